// SPDX-License-Identifier: Apache-2.0
// Two Streams joined in memory, for tests: what one writes, the other reads, through a bounded
// buffer each way. Thread: one. Each end may be destroyed first; the other then reads what is left,
// then sees PEER_RESET (or EOF after ShutdownWrite).
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <memory>
#include <utility>

#include "proxy/net/stream.h"

namespace weft::net {

struct StreamPairOptions {
  size_t capacity_bytes = 65536;  // of each direction; a writer sees kWouldBlock beyond it
  size_t max_read_bytes =
      SIZE_MAX;  // a TryRead moves at most this much: 1 makes every boundary visible
  size_t max_write_bytes = SIZE_MAX;
};

using StreamPair = std::pair<std::unique_ptr<Stream>, std::unique_ptr<Stream>>;
StreamPair MakeStreamPair(asio::any_io_executor executor, StreamPairOptions options = {});

}  // namespace weft::net
