// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/cpu_account.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/bench/load/sockets.h"

namespace weft::bench {
namespace {

double SecondsOf(const std::string& pid) {
  double nanoseconds = 0;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + pid + "/task", error)) {
    std::ifstream in(task.path() / "schedstat");
    double ran = 0;
    if (in >> ran) nanoseconds += ran;  // a thread that ended meanwhile is gone
  }
  if (error) Die("process " + pid + " is gone");
  return nanoseconds / 1e9;
}

}  // namespace

CpuAccount::CpuAccount(const std::string& pids) {
  std::istringstream in(pids);
  for (std::string pid; std::getline(in, pid, ',');) {
    if (!pid.empty()) pids_.push_back(pid);
  }
}

CpuTimes CpuAccount::Now() const {
  CpuTimes times;
  for (const std::string& pid : pids_) times.processes_s += SecondsOf(pid);
  std::ifstream in("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
  in >> name >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  times.machine_s = (user + nice + system + irq + softirq) / ticks;
  times.steal_s = steal / ticks;
  return times;
}

}  // namespace weft::bench
