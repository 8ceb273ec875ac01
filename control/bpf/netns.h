// SPDX-License-Identifier: Apache-2.0
// Work inside a network namespace without moving the caller there: each call uses a thread of its
// own, joined before it returns.
#pragma once
#include <functional>

#include "proxy/base/status.h"

namespace weft::bpf {

// Runs `work` in the namespace. An error of setns() is returned without running it.
absl::Status InNetns(int netns_fd, const std::function<absl::Status()>& work);

}  // namespace weft::bpf
