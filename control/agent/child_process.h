// SPDX-License-Identifier: Apache-2.0
// One supervised process: started with its descriptors, uid and cgroup, or adopted from an earlier
// agent by its pid file; watched by a pidfd. It is in its own session and outlives us. Thread: the
// executor's.
#pragma once
#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proxy/base/status.h"

namespace weft::agent {

struct ChildSpec {
  std::string name;  // for logs and the pid file
  std::vector<std::string> argv;
  uint32_t uid = 0;      // also its group; 0: ours
  std::string cgroup;    // cgroup2 directory it starts in; empty: ours
  std::vector<int> fds;  // become 3, 4, ... in the child; ours stay open
  bool no_new_privs = false;
};

class ChildProcess final {
 public:
  using OnExit = std::function<void(const std::string& how)>;

  // Adopts what the pid file at `pid_file` names, if that process still runs `program` (base name);
  // otherwise empty.
  static std::unique_ptr<ChildProcess> Adopt(boost::asio::any_io_executor executor,
                                             const std::string& pid_file,
                                             const std::string& program, OnExit on_exit);
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(boost::asio::any_io_executor executor,
                                                             const ChildSpec& spec,
                                                             const std::string& pid_file,
                                                             OnExit on_exit);
  ~ChildProcess();  // stops watching; the process goes on

  pid_t pid() const;
  // SIGTERM, SIGKILL after `grace`; returns when it is gone. on_exit is not called.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct State;
  explicit ChildProcess(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// Start time of a process in clock ticks since boot; 0: no such process.
uint64_t ProcessStartTime(pid_t pid);

}  // namespace weft::agent
