#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make lint: formatting of every file of ours, clang-tidy over the C++ sources that changed (all with LINT_ALL=1), shell syntax,
# file sizes. Every finding fails.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
mapfile -t sources < <(git ls-files '*.cc' '*.h' '*.bpf.c')
# Kernel programs that only tests load are kernel code, too.
mapfile -t formatted < <(git ls-files '*.cc' '*.h' 'bpf/*.bpf.c')
mapfile -t programs < <(git ls-files 'tests/*.bpf.c')
if ! { clang-format-19 --dry-run -Werror "${formatted[@]}" && \
       clang-format-19 --style=file:bpf/.clang-format --dry-run -Werror "${programs[@]}"; } 2>/tmp/weft-lint.$$; then
  grep -o '^[^:]*:[0-9]*' /tmp/weft-lint.$$ | cut -d: -f1 | sort | uniq -c | awk '{print "lint: format: " $2 " (" $1 " places): run make fmt"}'
  failed=1
fi
rm -f /tmp/weft-lint.$$
while read -r script; do
  bash -n "$script" || failed=1
done < <(git ls-files '*.sh')
while read -r lines file; do
  if ((lines > 800)); then
    echo "lint: size: $file has $lines lines; more than 800 stops review"
    failed=1
  fi
done < <(wc -l "${sources[@]}" | grep -v ' total$')
[ -f build/dev/compile_commands.json ] || cmake --preset dev >/dev/null
if [ "${LINT_ALL:-0}" = 1 ]; then
  mapfile -t units < <(git ls-files '*.cc')
else
  base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse HEAD~1 2>/dev/null || git rev-parse HEAD)
  mapfile -t units < <({ git diff --name-only --diff-filter=d "$base"; git diff --name-only --diff-filter=d; } | grep '\.cc$' | sort -u)
fi
if ((${#units[@]})); then
  printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy-19 -p build/dev --quiet --warnings-as-errors='*' 2>/dev/null || failed=1
fi
[ $failed = 0 ] && echo "lint: ok (${#sources[@]} files, ${#units[@]} through clang-tidy)"
exit $failed
