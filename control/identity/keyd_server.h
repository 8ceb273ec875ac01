// SPDX-License-Identifier: Apache-2.0
// The channels of weft-keyd: packets to Keyd and back. Thread: one, a poll loop. Owns the channels;
// privileges are keyd_main.cc's.
#pragma once
#include <cstdint>
#include <vector>

#include "control/identity/keyd.h"

namespace weft::identity {

class KeydServer final {
 public:
  // Takes `control_listener`, a listening SEQPACKET socket. Only peers of uid `control_uid` may use
  // it.
  KeydServer(int control_listener, uint32_t control_uid);
  ~KeydServer();
  KeydServer(const KeydServer&) = delete;
  KeydServer& operator=(const KeydServer&) = delete;

  // One turn: waits at most `timeout_ms` (-1: for ever) and serves what is there.
  void Turn(int timeout_ms);
  size_t channel_count() const { return channels_.size(); }

 private:
  struct Channel {
    int fd = -1;
    Keyd::Channel kind = Keyd::Channel::kSigner;
    uint32_t tenant = 0;
  };
  void Accept();
  bool Serve(Channel channel);
  void ReportRefusal(uint32_t tenant);

  Keyd keyd_;
  int control_listener_;
  uint32_t control_uid_;
  std::vector<Channel> channels_;
  std::vector<uint8_t> buffer_;
  int64_t last_report_seconds_ = 0;
  uint64_t unreported_refusals_ = 0;
};

}  // namespace weft::identity
