// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: runs bpf/sockops/cut.bpf.c in a workload's network namespace. Thread: the
// agent's. Owns the program.
#pragma once
#include <memory>

#include "control/bpf/policy_state.h"
#include "control/bpf/programs.h"

namespace weft::bpf {

class Cutter final {
 public:
  static absl::StatusOr<std::unique_ptr<Cutter>> Create(const PinPaths& paths,
                                                        const MapSizes& sizes);
  // One walk over the namespace's connections (milliseconds).
  absl::StatusOr<CutReport> Run(uint64_t netns_cookie, int netns_fd);

 private:
  struct Variables {
    uint64_t* netns_cookie;
    uint32_t* asked;
    uint32_t* destroyed;
  };
  Cutter(ObjectPtr object, LinkPtr link, Variables variables)
      : object_(std::move(object)), link_(std::move(link)), variables_(variables) {}
  ObjectPtr object_;
  LinkPtr link_;
  Variables variables_;
};

}  // namespace weft::bpf
