// SPDX-License-Identifier: Apache-2.0
// Does the splice keep its promise on the kernel that runs? Walks what it rests on (DESIGN.md 4,
// facts/splice.md) with real sockets: a node of its own in a scratch cgroup, two scratch network
// namespaces, in a child process, in a second or two. For weft-agent before it splices anything,
// and `weft check`. Thread: the caller's, which has no other threads (fork). Leaves nothing.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::bpf {

class Kernel;

struct SelfTestRow {
  std::string name;   // "redirect"
  std::string error;  // empty: it holds
};

struct SelfTestReport {
  std::vector<SelfTestRow> rows;  // up to the first that does not hold
  std::string error;              // why it could not be run to its end; else empty
  std::chrono::milliseconds took{0};

  bool ok() const;
  // One line: what does not hold and how it shows, or how many rows did.
  std::string Summary() const;
};

struct SelfTestOptions {
  std::string bpffs_root = "/sys/fs/bpf";
  std::string cgroup_root;  // cgroup2 mount; empty: from the mount table
  // For tests: called in the child, before each row, with the scratch node's kernel.
  std::function<void(Kernel& kernel, std::string_view row)> sabotage;
};

SelfTestReport RunSelfTest(const SelfTestOptions& options);

}  // namespace weft::bpf
