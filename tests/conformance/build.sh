#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Go programs of the conformance tests into the cache, once per content of their sources and go.sum.
# Prints the path of the binary on the last line of standard output; progress goes to standard error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${WEFT_CACHE:-$HOME/.cache/weft}/bin
program=${1:-xds-server}
cd "$here/$program"
key=$(cat go.mod go.sum ./*.go "$here/build.sh" | sha256sum | cut -c1-16)
out=$bin/$program-$key
if [ ! -x "$out" ]; then
  mkdir -p "$bin"
  exec 9>"$bin/$program.lock"
  flock 9
  if [ ! -x "$out" ]; then
    echo "conformance: building $program" >&2
    CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$out.new.$$" . >&2
    mv "$out.new.$$" "$out"
  fi
fi
echo "$out"
