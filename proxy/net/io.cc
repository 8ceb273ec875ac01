// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/io.h"

namespace weft::net {

Task<IoResult> WriteAll(Stream& stream, std::span<const uint8_t> bytes) {
  size_t written = 0;
  while (written < bytes.size()) {
    const iovec part{const_cast<uint8_t*>(bytes.data()) + written, bytes.size() - written};
    const IoResult result = stream.TryWrite({&part, 1});
    if (result.status == IoStatus::kOk) {
      written += result.bytes;
    } else if (result.status == IoStatus::kWouldBlock) {
      co_await stream.Writable();
    } else {
      co_return result;
    }
  }
  co_return IoResult{.bytes = written};
}

Task<IoResult> WriteAll(Stream& stream, std::string_view text) {
  return WriteAll(stream, std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

Task<IoResult> ReadSome(Stream& stream, std::span<uint8_t> into) {
  for (;;) {
    const IoResult result = stream.TryRead(into);
    if (result.status != IoStatus::kWouldBlock) co_return result;
    co_await stream.Readable();
  }
}

}  // namespace weft::net
