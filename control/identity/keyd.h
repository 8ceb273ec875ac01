// SPDX-License-Identifier: Apache-2.0
// weft-keyd without its process: a request's bytes in, an answer's bytes out. No I/O, no clock.
// Holds the private keys. Not here: sockets, privileges (keyd_main.cc). Thread: one.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace weft::identity {

class Keyd final {
 public:
  Keyd();
  ~Keyd();  // overwrites every key
  Keyd(const Keyd&) = delete;
  Keyd& operator=(const Keyd&) = delete;

  enum class Channel : uint8_t { kControl, kSigner };
  struct Answer {
    std::vector<uint8_t> bytes;  // empty: malformed, end the channel
    bool wants_channel =
        false;  // kNewChannel was granted: make a pair for `tenant`, send one end along
    uint32_t tenant = 0;
    bool refused = false;  // a signer asked for what it may not have: log it
  };
  // `tenant` is the channel's (ignored for kControl). `packet` is one whole packet.
  Answer Handle(Channel channel, uint32_t tenant, std::span<const uint8_t> packet);
  // Instead of Handle() for a signer that asks too often: EBUSY, counted apart.
  Answer RefuseTooOften(std::span<const uint8_t> packet);
  size_t key_count() const;

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

// RFC 8446 4.4.3: 64 spaces, context string of server or client, 0, a SHA-256 or SHA-384 hash;
// nothing else.
bool IsCertificateVerifyInput(std::span<const uint8_t> input);

}  // namespace weft::identity
