// SPDX-License-Identifier: Apache-2.0
// What was learned of programs under `splice: auto`, for people: verdicts of the kernel's programs
// with the paths of what runs now. Thread: the agent's.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "control/bpf/loader.h"

namespace weft::agent {

// "path": of a running process that executes the file, as that process sees it; empty: none does.
nlohmann::json BinariesJson(const std::vector<bpf::BinaryVerdict>& verdicts);

}  // namespace weft::agent
