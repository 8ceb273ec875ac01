// SPDX-License-Identifier: Apache-2.0
// Finds out what a downstream speaks without stalling a server that speaks first (DESIGN.md 9).
// Thread: the worker's.
#pragma once
#include <memory>
#include <vector>

#include "proxy/http/detect.h"
#include "proxy/net/pump.h"
#include "proxy/net/stream.h"
#include "proxy/worker/tcp_downstream.h"

namespace weft::worker {

struct FirstBytes {
  http::Protocol protocol =
      http::Protocol::kNeedMore;  // kNeedMore: it ended before it could be told
  std::vector<uint8_t> bytes;     // what was read to tell
  Reason reason = WEFT_R_NONE;    // of the end, if it ended
};
// Waits for the downstream's first bytes, however long that takes, at most `limit`.
Task<FirstBytes> DetectDownstream(asio::any_io_executor executor, net::Stream& downstream,
                                  std::chrono::milliseconds limit);

// For listeners with an HTTP and a TCP chain: opens the upstream of the TCP chain at once and lets
// the first byte decide, from whichever side it comes. `http`: the downstream spoke HTTP; the
// upstream was not used and is closed, the stream is untouched but for `first`. Otherwise the
// connection has been carried to its end as TCP.
struct RaceResult {
  bool http = false;
  FirstBytes first;
  net::PumpResult moved;
  TcpUpstream upstream;
};
Task<RaceResult> RaceTcp(WorkerState& state, net::Stream& downstream, TcpDownstreamArgs args);

}  // namespace weft::worker
