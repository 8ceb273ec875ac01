# SPDX-License-Identifier: Apache-2.0
# Imported targets for everything Weft does not write itself. What is pinned by cmake/deps/Cargo.lock is built by
# cmake/deps/build.sh into a cache outside the tree; the rest comes from Debian (cmake/deps/apt.txt).
execute_process(COMMAND ${CMAKE_SOURCE_DIR}/cmake/deps/build.sh OUTPUT_VARIABLE WEFT_DEPS
                OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "cmake/deps/build.sh failed; run `make setup` and read its output")
endif()
message(STATUS "Dependencies: ${WEFT_DEPS}")

function(weft_import name)
  cmake_parse_arguments(A "" "" "LIBS;INCLUDE;LINK" ${ARGN})
  add_library(weft_dep_${name} INTERFACE)
  add_library(weft::${name} ALIAS weft_dep_${name})
  target_include_directories(weft_dep_${name} SYSTEM INTERFACE ${A_INCLUDE})
  foreach(lib ${A_LIBS})
    target_link_libraries(weft_dep_${name} INTERFACE ${WEFT_DEPS}/lib/lib${lib}.a)
  endforeach()
  target_link_libraries(weft_dep_${name} INTERFACE ${A_LINK})
endfunction()

find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
pkg_check_modules(SECCOMP REQUIRED IMPORTED_TARGET libseccomp)
pkg_check_modules(CAP REQUIRED IMPORTED_TARGET libcap)
pkg_check_modules(MNL REQUIRED IMPORTED_TARGET libmnl)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

weft_import(boringssl LIBS ssl crypto INCLUDE ${WEFT_DEPS}/include LINK Threads::Threads)
weft_import(nghttp2 LIBS nghttp2 INCLUDE ${WEFT_DEPS}/include)
weft_import(llhttp LIBS llhttp INCLUDE ${WEFT_DEPS}/include)
weft_import(libbpf LIBS bpf INCLUDE ${WEFT_DEPS}/uapi ${WEFT_DEPS}/include LINK elf z)
weft_import(protos LIBS weft_protos INCLUDE ${WEFT_DEPS}/protos LINK protobuf::libprotobuf)
if(WEFT_SANITIZE MATCHES "thread")
  target_compile_options(weft_dep_protos INTERFACE "SHELL:-include ${CMAKE_SOURCE_DIR}/cmake/tsan_protobuf.h")
endif()
weft_import(absl LINK absl::status absl::statusor absl::strings absl::str_format absl::time absl::flat_hash_map
            absl::flat_hash_set absl::span absl::random_random absl::inlined_vector)
weft_import(yaml LINK yaml-cpp)
weft_import(json LINK nlohmann_json::nlohmann_json)
weft_import(re2 LINK PkgConfig::RE2)
weft_import(seccomp LINK PkgConfig::SECCOMP)
weft_import(cap LINK PkgConfig::CAP)
weft_import(mnl LINK PkgConfig::MNL)
weft_import(xxhash LINK PkgConfig::XXHASH)
# Asio is compiled once (proxy/base/asio.cc) instead of in every file that includes it.
weft_import(asio LINK Threads::Threads)
target_compile_definitions(weft_dep_asio INTERFACE BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED
  BOOST_ASIO_RECYCLING_ALLOCATOR_CACHE_SIZE=16 BOOST_ASIO_DISABLE_BOOST_REGEX)
