#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build_fuzzer.sh PROGRAM SOURCE_DIR DEPS_DIR FILE...: one libFuzzer program with address and undefined behaviour sanitizers.
set -euo pipefail
program=$1 root=$2 deps=$3
shift 3
read -ra libs <<<"$(pkg-config --libs absl_flat_hash_map absl_status absl_statusor absl_str_format re2)"
exec clang++-19 -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
  -D_GLIBCXX_ASSERTIONS -I"$root" -isystem "$deps/include" "$@" "$deps/lib/libnghttp2.a" "$deps/lib/libllhttp.a" \
  "${libs[@]}" -o "$program"
