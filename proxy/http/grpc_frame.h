// SPDX-License-Identifier: Apache-2.0
// gRPC's message framing (1 byte flags, 4 bytes length, message) without gRPC: for the xDS streams
// on an Http2Session. Compressed messages are refused: we never announce a grpc-encoding. Pure; no
// thread.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace weft::http {

inline constexpr size_t kGrpcPrefixBytes = 5;

// Appends one message with its prefix to `out`.
inline void EncodeGrpcMessage(std::string_view message, std::string* out) {
  const auto size = static_cast<uint32_t>(message.size());
  const char prefix[kGrpcPrefixBytes] = {0, static_cast<char>(size >> 24),
                                         static_cast<char>(size >> 16),
                                         static_cast<char>(size >> 8), static_cast<char>(size)};
  out->append(prefix, sizeof prefix);
  out->append(message);
}

// Cuts a stream of bytes into messages. Holds at most one message of `max_message_bytes` plus what
// one Feed() brought.
class GrpcDecoder final {
 public:
  explicit GrpcDecoder(size_t max_message_bytes) : max_message_bytes_(max_message_bytes) {}

  // Takes bytes of DATA frames. False once the stream is unusable: a message above the bound, or a
  // compressed one.
  [[nodiscard]] bool Feed(std::span<const uint8_t> bytes) {
    if (failed_) return false;
    if (begin_ > 0) {
      buffer_.erase(0, begin_);
      begin_ = 0;
    }
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return CheckPrefix();
  }

  // The next complete message, valid until the next Feed(); nullopt: feed more, or failed().
  std::optional<std::string_view> Next() {
    if (failed_ || buffer_.size() - begin_ < kGrpcPrefixBytes) return std::nullopt;
    const size_t size = PendingSize();
    if (buffer_.size() - begin_ - kGrpcPrefixBytes < size) return std::nullopt;
    const std::string_view message =
        std::string_view(buffer_).substr(begin_ + kGrpcPrefixBytes, size);
    begin_ += kGrpcPrefixBytes + size;
    (void)CheckPrefix();  // a bad successor shows in failed(); this message is still good
    return message;
  }

  bool failed() const { return failed_; }
  // Bytes held that are no complete message yet; not 0 at the end of the stream: it was cut.
  size_t pending_bytes() const { return buffer_.size() - begin_; }

 private:
  size_t PendingSize() const {
    const auto* p = reinterpret_cast<const uint8_t*>(buffer_.data()) + begin_;
    return size_t{p[1]} << 24 | size_t{p[2]} << 16 | size_t{p[3]} << 8 | size_t{p[4]};
  }
  bool CheckPrefix() {
    const size_t held = buffer_.size() - begin_;
    if (held > 0 && buffer_[begin_] != 0) failed_ = true;
    if (held >= kGrpcPrefixBytes && PendingSize() > max_message_bytes_) failed_ = true;
    return !failed_;
  }

  const size_t max_message_bytes_;
  std::string buffer_;
  size_t begin_ = 0;
  bool failed_ = false;
};

}  // namespace weft::http
