// SPDX-License-Identifier: Apache-2.0
// Whole writes and bounded reads on a Stream, for handshakes, control channels and tests. The data
// path uses Try* itself. Thread: the stream's.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "proxy/net/stream.h"

namespace weft::net {

// kOk once all of `bytes` was accepted, kError otherwise. `bytes` must stay valid until the task
// ends.
Task<IoResult> WriteAll(Stream& stream, std::span<const uint8_t> bytes);
Task<IoResult> WriteAll(Stream& stream, std::string_view text);
// Waits for at least one byte: kOk, kEof or kError, never kWouldBlock.
Task<IoResult> ReadSome(Stream& stream, std::span<uint8_t> into);

}  // namespace weft::net
