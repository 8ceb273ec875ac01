// SPDX-License-Identifier: Apache-2.0
// Copies bytes both ways between two established streams until both directions have ended.
// Thread: the one that owns the streams. Owns buffers only while bytes are pending; borrows the
// streams.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>

#include "proxy/base/task.h"
#include "proxy/net/stream.h"

namespace weft::net {

struct PumpOptions {
  std::chrono::milliseconds idle_timeout{0};  // nothing moved either way; 0: none
};

struct PumpResult {
  uint64_t to_upstream_bytes = 0;
  uint64_t to_downstream_bytes = 0;
  // CLOSED: both directions ended in order. Otherwise of the direction that failed first, or
  // IDLE_TIMEOUT.
  Reason reason = WEFT_R_CLOSED;
};

// A FIN on one side half-closes the other and keeps the reverse direction running; a failure closes
// both streams. To cancel, Close() either stream: the task still completes. Both streams must
// outlive the returned task; they are closed when it ends. `moved`, if not null, counts along (the
// same two numbers) for whoever watches a long connection.
Task<PumpResult> Pump(Stream& downstream, Stream& upstream, PumpOptions options,
                      PumpResult* moved = nullptr);

}  // namespace weft::net
