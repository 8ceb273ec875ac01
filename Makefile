# SPDX-License-Identifier: Apache-2.0
# What people call. `make help` lists it. Every target sets up what it needs first; nothing is written outside build/ and
# the cache (~/.cache/weft, or WEFT_CACHE).
.DEFAULT_GOAL := help
JOBS ?= $(shell nproc)
CTEST_FLAGS ?=
# Parallel test runs disturb the ones that measure time or use the whole machine: only the pure ones run side by side.
CTEST = ctest --output-on-failure --no-tests=error $(CTEST_FLAGS)

.PHONY: bench-balancer help setup build release test unit-test lint fmt asan tsan fuzz bench demo soak kernel-test cluster-test clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: ## Install what is missing (Debian packages, pinned sources) and say what
	@cmake/setup.sh

build/%/build.ninja: | setup
	@cmake --preset $* >build/$*.log 2>&1 || (cat build/$*.log; exit 1)

build: setup ## Build everything, with tests (build/dev)
	@mkdir -p build
	@[ -f build/dev/build.ninja ] || cmake --preset dev
	@ninja -C build/dev -j $(JOBS)

release: setup ## Build the programs as users run them (build/release)
	@mkdir -p build
	@[ -f build/release/build.ninja ] || cmake --preset release
	@ninja -C build/release -j $(JOBS)

demo: release ## The main job: two nodes, real programs, mutual TLS, policy, failures. FLAGS=--keep leaves it running
	@build/release/bin/weft demo $(FLAGS)

test: build ## Set up, build and run all tests that CI runs
	@tests/conformance/build.sh
	@cd build/dev && $(CTEST) -j $(JOBS) -L unit && $(CTEST) -LE 'unit|bench|soak|cluster'

unit-test: build ## The tests that need no root
	@cd build/dev && $(CTEST) -j $(JOBS) -L unit

asan: setup ## All tests under the address, leak and undefined behaviour sanitizers. Prints how long it took
	@mkdir -p build
	@[ -f build/asan/build.ninja ] || cmake --preset asan
	@start=$$(date +%s); ninja -C build/asan -j $(JOBS) && built=$$(date +%s) && tests/conformance/build.sh && cd build/asan && \
	  $(CTEST) -j $(JOBS) -L unit && $(CTEST) -LE 'unit|bench|soak|cluster' && \
	  echo "asan: built in $$((built - start)) s, tested in $$(($$(date +%s) - built)) s"

# What has threads, or talks to what has: the proxy's parts and programs, xDS and the agent. TSAN_TESTS is a regular expression.
TSAN_TESTS ?= unit_(proxy_(worker|upstream|server|tunnel|net|ipc|telemetry)|xds_(client|server|session)|control_agent)|integration_proxy
tsan: setup ## The tests of what has threads, under the thread sanitizer. Prints how long it took
	@mkdir -p build
	@[ -f build/tsan/build.ninja ] || cmake --preset tsan
	@start=$$(date +%s); ninja -C build/tsan -j $(JOBS) $$(ninja -C build/tsan -t targets all | grep -oE '^($(TSAN_TESTS)): ' | tr -d :) && \
	  built=$$(date +%s) && cd build/tsan && $(CTEST) -R '^($(TSAN_TESTS))$$' && \
	  echo "tsan: built in $$((built - start)) s, tested in $$(($$(date +%s) - built)) s"

lint: setup ## clang-format and clang-tidy over our files, shellcheck-like syntax checks
	@cmake/lint.sh

fmt: setup ## Format our C++ and BPF files
	@git ls-files '*.cc' '*.h' 'bpf/*.bpf.c' | xargs clang-format-19 -i
	@git ls-files 'tests/*.bpf.c' | xargs clang-format-19 --style=file:bpf/.clang-format -i

soak: build ## The long form of the splice's tests: to 4 GiB, thousands of connections, processes stopped and killed. Hours
	@cd build/dev && $(CTEST) -L soak

bench: release ## Benchmarks: direct, null relay, Weft same node and across nodes. Prints a table, writes build/bench.json
	@tests/bench/run.sh

bench-balancer: release ## The L4 balancer: nanoseconds a packet, memory, disruption, beside Katran's figures. Root
	@build/release/bin/weft-balancer-bench

clean: ## Remove build/ (the cache stays: rm -r ~/.cache/weft)
	@rm -rf build
