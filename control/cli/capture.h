// SPDX-License-Identifier: Apache-2.0
// Watches one device of a network namespace (AF_PACKET) and answers: did a given byte string cross
// in the clear, and was every TCP byte part of a TLS record? Thread: one of its own from Start() to
// the end; the counters may be read from any.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::cli {

struct CaptureCounts {
  uint64_t packets = 0;         // with a TCP payload
  uint64_t bytes = 0;           // of TCP payload
  uint64_t tls_bytes = 0;       // inside well-formed TLS records
  uint64_t clear_bytes = 0;     // of streams that do not parse as TLS
  uint64_t unknown_bytes = 0;   // of streams whose beginning was not seen
  uint64_t canary_packets = 0;  // that hold the canary
  uint64_t dropped = 0;         // the kernel had no room: then the other figures prove nothing
  std::string clear_stream;     // one of them: "10.0.0.1:80 > 10.0.0.2:9"
};

// Follows the record headers of one direction of a TCP stream. Pure.
class TlsRecordCheck final {
 public:
  // The next bytes of the stream. False from the first byte that cannot be TLS.
  bool Feed(std::span<const uint8_t> bytes);

 private:
  uint8_t header_[5];
  size_t header_bytes_ = 0;
  size_t record_left_ = 0;
  bool broken_ = false;
};

// What one captured Ethernet frame adds to the counts. Pure, so that it is tested without a device.
class FrameCounter final {
 public:
  explicit FrameCounter(std::string canary) : canary_(std::move(canary)) {}
  void Count(std::span<const uint8_t> frame);
  CaptureCounts counts;

 private:
  struct Stream {
    uint32_t next_sequence = 0;
    bool complete = false;  // from its SYN on, without a hole
    bool clear = false;
    TlsRecordCheck tls;
  };
  using Key = std::pair<SocketAddress, SocketAddress>;  // from, to
  void CountPayload(Stream& stream, const Key& key, uint32_t sequence,
                    std::span<const uint8_t> payload);
  void CountTcp(const IpAddress& from, const IpAddress& to, std::span<const uint8_t> tcp);
  std::string canary_;
  std::map<Key, Stream> streams_;
};

class Capture final {
 public:
  // `canary` is looked for in each packet's payload.
  static absl::StatusOr<std::unique_ptr<Capture>> Start(const std::string& netns,
                                                        const std::string& device,
                                                        std::string canary);
  ~Capture();
  // Of everything that crossed the device before the call.
  CaptureCounts counts();

 private:
  Capture(int fd, int stop_fd, std::string canary);
  void ReadLoop();
  void Drain();
  const int fd_, stop_fd_;
  std::mutex mutex_;
  std::vector<uint8_t> frame_;
  FrameCounter counter_;
  std::thread thread_;
};

}  // namespace weft::cli
