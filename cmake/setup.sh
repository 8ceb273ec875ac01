#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a Debian 12 machine ready to build and test Weft: packages from Debian, pinned sources through cargo, both said aloud.
# Idempotent: when nothing is missing it takes a second and changes nothing. Needs root only to install packages.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
say() { echo "setup: $*" >&2; }

declare -A pinned
while read -r name version; do
  [[ $name == \#* || -z $name ]] || pinned[$name]=$version
done <"$here/deps/apt.txt"

installed() { dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' "${!pinned[@]}" 2>/dev/null | awk '$1=="ii"{print $2, $3}'; }

missing=()
have=$(installed || true)
for name in "${!pinned[@]}"; do
  grep -q "^$name " <<<"$have" || missing+=("$name")
done
if ((${#missing[@]})); then
  say "missing: ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    say "run as root: apt-get install ${missing[*]}"
    exit 1
  fi
  # No daemon of an installed package (nginx, redis) may start on the user's machine because of us.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  log=$(mktemp)
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    say "apt-get failed; the end of its output:"
    tail -n 20 "$log" >&2
    exit 1
  fi
  rm -f "$log"
  say "installed ${#missing[@]} packages"
fi
while read -r name version; do
  [ "${pinned[$name]}" = "$version" ] || say "note: $name is $version here, tested with ${pinned[$name]}"
done < <(installed)

for tool in cargo go; do
  command -v $tool >/dev/null || { say "$tool is not installed: the README says which version is needed"; exit 1; }
done
"$here/deps/build.sh" >/dev/null
say "ready"
