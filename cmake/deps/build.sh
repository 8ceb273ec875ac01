#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the pinned C and C++ dependencies (BoringSSL, nghttp2, llhttp, libbpf, Envoy's protobuf classes) as static
# libraries into a cache outside the tree, once per lock file. Prints the directory on the last line of standard output;
# progress goes to standard error. Idempotent: a finished directory holds the file `complete`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${WEFT_CACHE:-$HOME/.cache/weft}
key=$(cat "$here/Cargo.lock" "$here/build.sh" "$here/protos.txt" | sha256sum | cut -c1-16)
out=$cache/deps-$key
say() { echo "deps: $*" >&2; }

if [ -f "$out/complete" ]; then
  echo "$out"
  exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/deps.lock"
flock 9
[ -f "$out/complete" ] && { echo "$out"; exit 0; }

jobs=$(nproc)
rm -rf "$out"
mkdir -p "$out"/{src,include,lib,build}
log=$out/build.log
step() { # step NAME COMMAND...: runs it with its output in the log; on failure shows the tail.
  local name=$1 from=$SECONDS
  shift
  if ! "$@" >>"$log" 2>&1; then
    say "$name FAILED; the end of $log:"
    tail -n 30 "$log" >&2
    exit 1
  fi
  say "$name ($((SECONDS - from)) s)"
}

vendor() {
  (cd "$here" && cargo vendor --locked "$out/vendor" >/dev/null)
  cp -r "$out/vendor/boring-sys/deps/boringssl" "$out/src/boringssl"
  cp -r "$out/vendor/libnghttp2-sys/nghttp2" "$out/src/nghttp2"
  cp -r "$out/vendor/libbpf-sys/libbpf" "$out/src/libbpf"
  cp -r "$out/vendor/envoy-types/proto" "$out/src/proto"
  for crate in boring-sys libnghttp2-sys libbpf-sys envoy-types; do
    mkdir -p "$out/licenses/$crate"
    find "$out/vendor/$crate" -maxdepth 4 -iname 'LICEN*' -exec cp --backup=numbered {} "$out/licenses/$crate/" \;
  done
  rm -rf "$out/vendor"
}

boringssl() {
  cmake -S "$out/src/boringssl" -B "$out/build/boringssl" -GNinja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  ninja -C "$out/build/boringssl" -j "$jobs" crypto ssl pki bssl
  cp "$out/build/boringssl"/{libcrypto.a,libssl.a,libpki.a} "$out/lib/"
  mkdir -p "$out/bin" && cp "$out/build/boringssl/bssl" "$out/bin/"
  cp -r "$out/src/boringssl/include/openssl" "$out/include/"
}

nghttp2() {
  cmake -S "$out/src/nghttp2" -B "$out/build/nghttp2" -GNinja -DCMAKE_BUILD_TYPE=Release -DENABLE_LIB_ONLY=ON \
    -DBUILD_SHARED_LIBS=OFF -DBUILD_STATIC_LIBS=ON -DENABLE_DOC=OFF -DBUILD_TESTING=OFF \
    -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  ninja -C "$out/build/nghttp2" -j "$jobs"
  cp "$out/build/nghttp2/lib/libnghttp2.a" "$out/lib/"
  mkdir -p "$out/include/nghttp2"
  cp "$out/src/nghttp2/lib/includes/nghttp2/nghttp2.h" "$out/build/nghttp2/lib/includes/nghttp2/nghttp2ver.h" \
    "$out/include/nghttp2/"
}

llhttp() {
  local dir=$out/src/nghttp2/third-party/llhttp
  mkdir -p "$out/build/llhttp"
  for unit in "$dir"/src/*.c; do
    gcc -O2 -fPIC -I"$dir/include" -c "$unit" -o "$out/build/llhttp/$(basename "$unit" .c).o"
  done
  ar rcs "$out/lib/libllhttp.a" "$out/build/llhttp"/*.o
  cp "$dir/include/llhttp.h" "$out/include/"
}

libbpf() {
  make -C "$out/src/libbpf/src" -j "$jobs" BUILD_STATIC_ONLY=1 OBJDIR="$out/build/libbpf" DESTDIR="$out/build/libbpf-root" \
    CFLAGS="-O2 -fPIC" PREFIX= LIBDIR=/lib INCLUDEDIR=/include install
  cp "$out/build/libbpf-root/lib/libbpf.a" "$out/lib/"
  cp -r "$out/build/libbpf-root/include/bpf" "$out/include/"
  # The UAPI headers that go with this libbpf; the distribution's may be older. For BPF programs and their loader only.
  mkdir -p "$out/uapi" && cp -r "$out/src/libbpf/include/uapi/linux" "$out/uapi/"
}

protos() {
  local p=$out/src/proto gen=$out/build/protos/gen
  local -a paths=(-I"$p/data-plane-api" -I"$p/googleapis" -I"$p/protoc-gen-validate" -I"$p/xds"
    -I"$p/opentelemetry-proto" -I"$p/cel-spec/proto" -I"$p/client_model" -I/usr/include)
  mkdir -p "$gen"
  mapfile -t roots < <(grep -v '^#' "$here/protos.txt")
  protoc "${paths[@]}" --include_imports --descriptor_set_out="$out/build/protos/all.pb" "${roots[@]}"
  mapfile -t closure < <(protoc --decode=google.protobuf.FileDescriptorSet -I/usr/include \
    google/protobuf/descriptor.proto <"$out/build/protos/all.pb" |
    sed -n 's/^  name: "\(.*\)"$/\1/p' | grep -v '^google/protobuf/' | sort -u)
  protoc "${paths[@]}" --cpp_out="$gen" "${closure[@]}"
  cat >"$out/build/protos/CMakeLists.txt" <<CM
cmake_minimum_required(VERSION 3.25)
project(weft_protos CXX)
set(CMAKE_CXX_STANDARD 20)
file(GLOB_RECURSE units gen/*.pb.cc)
add_library(weft_protos STATIC \${units})
target_include_directories(weft_protos PUBLIC gen)
set_target_properties(weft_protos PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_compile_options(weft_protos PRIVATE -O1 -g0 -w)
CM
  cmake -S "$out/build/protos" -B "$out/build/protos/build" -GNinja -DCMAKE_BUILD_TYPE=None
  ninja -C "$out/build/protos/build" -j "$jobs"
  cp "$out/build/protos/build/libweft_protos.a" "$out/lib/"
  mkdir -p "$out/protos" && (cd "$gen" && find . -name '*.h' -exec cp --parents {} "$out/protos/" \;)
}

say "building into $out (log: $log)"
step "sources: cargo vendor, checked against Cargo.lock" vendor
step "libbpf" libbpf
step "nghttp2" nghttp2
step "llhttp" llhttp
step "BoringSSL" boringssl
step "Envoy's protobuf classes" protos
rm -rf "$out/build"
touch "$out/complete"
echo "$out"
