// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: runs bpf/sockops/late.bpf.c in a workload's netns when a connection there
// asked for it, as walk_schedule.h says. Thread: the agent's. Owns the iterator's link.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <optional>

#include "control/bpf/loader.h"
#include "control/bpf/programs.h"
#include "control/bpf/walk_schedule.h"

namespace weft::bpf {

class LateInserter final {
 public:
  static absl::StatusOr<std::unique_ptr<LateInserter>> Create(const PinPaths& paths,
                                                              const MapSizes& sizes);
  // The descriptor is borrowed until Remove.
  void Add(uint64_t netns_cookie, int netns_fd, uint32_t workload);
  void Remove(uint64_t netns_cookie);
  // Makes the workload due. Ignored for one that was not added.
  void Request(uint64_t netns_cookie);
  // Returns how long until a walk is due; nullopt: nobody waits for one. `servers` is weft_servers,
  // where what was given up is asked for anew.
  std::optional<std::chrono::nanoseconds> RunDue(const UniqueFd& servers);
  absl::StatusOr<LateInsertion> Run(int netns_fd);

 private:
  struct Known {
    int netns_fd = -1;
    uint32_t workload = 0;
    WalkSchedule schedule;
  };
  LateInserter(ObjectPtr object, LinkPtr link, uint32_t* inserted, uint32_t* waiting)
      : object_(std::move(object)),
        link_(std::move(link)),
        inserted_(inserted),
        waiting_(waiting) {}

  ObjectPtr object_;
  LinkPtr link_;
  uint32_t* const inserted_;  // the program's counts, in its mapped .bss
  uint32_t* const waiting_;
  std::map<uint64_t, Known> known_;
};

}  // namespace weft::bpf
