// SPDX-License-Identifier: Apache-2.0
// Makes nodes and pods out of network namespaces: namespaces, bridges, veth pairs, addresses,
// routes, processes, mounts. Everything made is written to a journal first, so that Down() also
// cleans up after a crash of an earlier process. Thread: one. Used by `weft demo` and tests/mesh.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/cli/process.h"
#include "proxy/base/status.h"

namespace weft::cli {

class Topology final {
 public:
  // `prefix` starts the name of everything ("weft-demo-"); `dir` holds the journal, logs and
  // whatever the caller puts there. Refused if `dir` already has a journal: something is still up
  // (or crashed: Down() first).
  static absl::StatusOr<std::unique_ptr<Topology>> Create(std::string prefix, std::string dir);
  // The one whose journal is in `dir`, for Down() and for looking; NotFound if there is no `dir`.
  // Without a journal (ended before it was begun, or after all it names was removed) Down() removes
  // `dir` alone.
  static absl::StatusOr<std::unique_ptr<Topology>> Open(std::string prefix, std::string dir);

  const std::string& prefix() const { return prefix_; }
  const std::string& dir() const { return dir_; }
  // "client" -> "weft-demo-client".
  std::string Name(const std::string& short_name) const { return prefix_ + short_name; }
  static std::string NetnsPath(const std::string& netns) { return "/run/netns/" + netns; }

  // Namespaces are given by full name. Loopback is up, IPv4 forwarding is on if `forwarding`.
  absl::Status AddNamespace(const std::string& netns, bool forwarding = false);
  // `cidr` ("10.0.0.1/24") may be empty.
  absl::Status AddBridge(const std::string& netns, const std::string& bridge,
                         const std::string& cidr);
  struct End {
    std::string netns;
    std::string device;
    std::string cidr;    // may be empty
    std::string bridge;  // joined, if not empty
  };
  absl::Status AddVeth(const End& a, const End& b);
  absl::Status AddRoute(const std::string& netns, const std::string& to, const std::string& via);

  // The process is ended by Down(); its log is DIR/logs/NAME.log.
  absl::StatusOr<ProcessId> Start(const std::string& name, std::vector<std::string> argv,
                                  const std::string& netns, uint32_t uid = 0);
  // Ends one started process: SIGTERM, then SIGKILL after `grace`.
  void Stop(const ProcessId& process, std::chrono::milliseconds grace = std::chrono::seconds(10));
  std::string LogFile(const std::string& name) const { return dir_ + "/logs/" + name + ".log"; }
  // Mounts a bpf filesystem of our own at DIR/bpf.
  absl::StatusOr<std::string> MountBpf();
  // A directory (tree) or cgroup outside DIR that others make for us and Down() shall remove.
  absl::Status WillRemove(const std::string& path);
  absl::Status WillRemoveCgroup(const std::string& path);

  // Ends and removes everything in the journal, newest first, then DIR itself. Ends also processes
  // that live in our namespaces. Goes on after a failure and reports all of them.
  absl::Status Down();
  // What of the journal's kinds is still there under this prefix (namespaces, links, mounts, pins,
  // processes, cgroups), one line each; empty: nothing.
  static std::vector<std::string> Leftovers(const std::string& prefix, const std::string& dir);

 private:
  Topology(std::string prefix, std::string dir);
  absl::Status Record(const std::string& kind, const std::string& what);

  std::string prefix_;
  std::string dir_;
};

// Where cgroup2 is mounted, from the mount table; empty if it is not.
std::string FindCgroup2();

}  // namespace weft::cli
