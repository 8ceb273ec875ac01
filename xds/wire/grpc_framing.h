// SPDX-License-Identifier: Apache-2.0
// gRPC's message framing: a flag byte, a 32-bit big-endian length, the message. No thread; no I/O.
// Compression is not spoken.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace weft::xds {

inline constexpr size_t kMaxGrpcMessageBytes = 64u << 20;
inline constexpr size_t kGrpcPrefixBytes = 5;

// `message` with its prefix, ready to be sent.
std::string FrameGrpcMessage(std::string_view message);

// Cuts a byte stream into messages. Holds at most one message of max_bytes and what one Feed()
// brought beyond it.
class GrpcDeframer final {
 public:
  explicit GrpcDeframer(size_t max_bytes = kMaxGrpcMessageBytes) : max_bytes_(max_bytes) {}

  void Feed(std::span<const uint8_t> bytes);
  // The next whole message, or nullopt: more bytes are needed, or error() says what is wrong (then
  // for good).
  std::optional<std::string> Next();
  // Empty while all is well.
  const std::string& error() const { return error_; }
  // True if the stream may end here: no message is half there.
  bool at_boundary() const { return buffer_.size() == consumed_; }

 private:
  size_t max_bytes_;
  std::string buffer_;
  size_t consumed_ = 0;  // bytes of buffer_ already given out
  std::string error_;
};

}  // namespace weft::xds
