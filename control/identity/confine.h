// SPDX-License-Identifier: Apache-2.0
// How weft-keyd gives up what it does not need. Thread: main, before any key exists.
#pragma once
#include <cstdint>

#include "proxy/base/status.h"

namespace weft::identity {

// Locks memory, forbids core dumps and debuggers, drops every capability, becomes `uid` (0: stays
// who it is), and leaves itself a handful of system calls: no socket(), connect(), open() or
// execve(). Nothing of it can be undone.
absl::Status Confine(uint32_t uid);

}  // namespace weft::identity
