// SPDX-License-Identifier: Apache-2.0
// weft-agent's flags, and the paths that follow from them. Plain values.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "proxy/base/status.h"

namespace weft::agent {

struct Options {
  std::string node;     // --node: name in the control plane
  std::string run_dir;  // --run-dir; default /run/weft/NODE. Its last part names pins and cgroup
  std::string bpffs = "/sys/fs/bpf";
  std::string cgroup2;          // --cgroup2; default: from the mount table
  std::string control;          // --control ADDRESS:PORT of weft-control (TLS)
  std::string control_root;     // --control-root: PEM file with its root, also the mesh's
  std::string join_token_file;  // --join-token
  std::string xds_plaintext;    // --xds-plaintext ADDRESS:PORT: tests; no certificates are made
  std::string trust_domain = "cluster.local";
  std::string workloads_dir;  // --workloads; empty: only POST /workloads
  std::string bin_dir;        // --bin-dir; default: where weft-agent is
  uint32_t proxy_uid = 64101;
  uint32_t keyd_uid = 64102;
  uint32_t proxy_workers = 2;
  bool keep_running_on_exit = false;  // SIGTERM leaves the other processes running
  bool unload_on_exit = false;        // SIGTERM also detaches and unpins the kernel programs
  bool splice = true;                 // --splice=off: the node-wide switch at start
  std::string zone;                   // --zone; empty: from workloads of this node, if they say
  uint32_t service_memory_mib = 16;   // --service-memory: endpoints and rings in the kernel
  bool json_log = false;
  bool help = false;

  std::string instance() const;  // last part of run_dir
  std::string Path(const std::string& file) const { return run_dir + "/" + file; }
};

extern const char kUsage[];
// argv without the program's name. The error is one line for people.
absl::StatusOr<Options> ParseOptions(std::span<char* const> arguments);

}  // namespace weft::agent
