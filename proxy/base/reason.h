// SPDX-License-Identifier: Apache-2.0
// Why a connection, a stream or a request ended: the C++ face of the one list in bpf/reasons.h.
// A Reason is a value on the data path: no allocation, always counted, logged once, at the close.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "bpf/reasons.h"

namespace weft {

using Reason = weft_reason;

// The name used in events, metrics and response details, e.g. "policy_denied". Static storage.
std::string_view ReasonName(Reason reason);
// One sentence for people. Static storage.
std::string_view ReasonMeaning(Reason reason);
// The inverse of ReasonName; nullopt for an unknown name.
std::optional<Reason> ReasonFromName(std::string_view name);

}  // namespace weft
