// SPDX-License-Identifier: Apache-2.0
// Runs programs, optionally inside a named network namespace: in the foreground with its output
// captured (Run), or in the background with its output in a file (Spawn). Thread: any; owns nothing
// after it returned. Not `ip netns exec`: that makes a new mount namespace and hides the cgroup2
// mount below /sys.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/status.h"

namespace weft::cli {

struct RunOptions {
  std::string netns;  // name below /run/netns; empty: ours
  std::string input;  // written to its standard input
  std::chrono::milliseconds timeout{20000};
  std::vector<std::string> environment;  // "KEY=value", added to ours
};

struct RunResult {
  int exit_code = -1;  // 128 + signal if it was killed
  bool timed_out = false;
  std::string out;  // at most 8 MiB each
  std::string err;
  std::chrono::microseconds took{};
  bool ok() const { return exit_code == 0; }
};

// A failure to start is an error; a program that ran and failed is a RunResult.
absl::StatusOr<RunResult> Run(std::vector<std::string> argv, RunOptions options = {});

struct SpawnOptions {
  std::string netns;
  std::string log_file;  // standard output and error, appended
  std::string directory;
  uint32_t uid = 0;
};

// A process that goes on after us: in its own session, its parent is whoever reaps it.
absl::StatusOr<pid_t> Spawn(std::vector<std::string> argv, SpawnOptions options = {});

// The process's start time in clock ticks since boot, 0 if there is no such process (or only a
// zombie): with the pid it names a process for good.
uint64_t ProcessStartTime(pid_t pid);

// SIGTERM to each, SIGKILL to those still there after `grace`. Only processes whose start time
// still matches are touched.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_time = 0;
};
void EndProcesses(const std::vector<ProcessId>& processes, std::chrono::milliseconds grace);

// A file's whole content; error names the path.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// Writes to a temporary name and renames.
absl::Status WriteFile(const std::string& path, const std::string& content, unsigned mode = 0644);
// Calls `condition` until it is true, at most `limit`; true if it became true.
template <typename Condition>
bool WaitFor(std::chrono::milliseconds limit, Condition condition);
void PauseBetweenPolls();

template <typename Condition>
bool WaitFor(std::chrono::milliseconds limit, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    if (condition()) return true;
    if (std::chrono::steady_clock::now() >= end) return false;
    PauseBetweenPolls();
  }
}

}  // namespace weft::cli
