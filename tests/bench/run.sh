#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make bench. Needs root and build/release.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
exec python3 tests/bench/run.py "$@"
