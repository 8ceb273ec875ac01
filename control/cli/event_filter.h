// SPDX-License-Identifier: Apache-2.0
// Which events somebody wants to see. Pure. Thread: the only one.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "control/cli/command.h"

namespace weft::cli {

class EventFilter final {
 public:
  // The error is one line for people: a verdict or a reason that does not exist.
  static absl::StatusOr<EventFilter> Create(const Options& options);
  // An event as the agent writes it (docs/cli.md). What is not asked for matches.
  bool Matches(const nlohmann::json& event) const;

 private:
  std::string pod_, namespace_, binary_;
  std::vector<std::string> verdicts_, reasons_;
};

}  // namespace weft::cli
