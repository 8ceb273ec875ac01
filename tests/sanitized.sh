#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What ctest runs in a sanitizer build: tests/sanitized.sh PROGRAM [ARGUMENT...]. Fails if the program fails, or if it or any
# process it started, whatever became of that process, left a sanitizer's report (cmake/sanitizer_report.cc).
set -eu
WEFT_SANITIZER_REPORTS=$(mktemp -d /tmp/weft-sanitizer-XXXXXX)
export WEFT_SANITIZER_REPORTS
chmod 1777 "$WEFT_SANITIZER_REPORTS" # programs start as other users too
trap 'rm -rf "$WEFT_SANITIZER_REPORTS"' EXIT
code=0
"$@" || code=$?
started=$(find "$WEFT_SANITIZER_REPORTS" -type f | wc -l)
if [ "$started" = 0 ]; then
  echo "sanitized.sh: nothing that ran was built with a sanitizer: $1" >&2
  exit 1
fi
reports=$(find "$WEFT_SANITIZER_REPORTS" -type f -size +0c | sort)
for report in $reports; do
  echo "=== sanitizer report of ${report##*/}"
  cat "$report"
done
if [ -n "$reports" ]; then
  echo "=== sanitizer reports: the test failed whatever it said (its exit code was $code)"
  exit 1
fi
exit "$code"
