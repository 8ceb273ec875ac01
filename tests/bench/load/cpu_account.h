// SPDX-License-Identifier: Apache-2.0
// CPU time between two moments: of the processes under test, exact (schedstat of every thread), and
// of the whole machine (/proc/stat, in ticks), so that softirq and BPF time is charged, too. One
// thread.
#pragma once
#include <string>
#include <vector>

namespace weft::bench {

struct CpuTimes {
  double processes_s = 0;
  double machine_s = 0;  // all cores, everything but idle, iowait and steal
  double steal_s = 0;
};

class CpuAccount final {
 public:
  // "12,34": process ids; empty: the machine only.
  explicit CpuAccount(const std::string& pids);
  CpuTimes Now() const;

 private:
  std::vector<std::string> pids_;
};

}  // namespace weft::bench
