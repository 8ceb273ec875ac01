// SPDX-License-Identifier: Apache-2.0
// The channels of weft-keyd: packets to Keyd and back. Thread: one, a poll loop. Owns the channels;
// privileges are keyd_main.cc's.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "control/identity/keyd.h"
#include "proxy/ipc/packet_server.h"

namespace weft::identity {

class KeydServer final {
 public:
  using Clock = int64_t (*)();  // nanoseconds, never back
  static int64_t MonotonicNs();

  // Takes `control_listener`, a listening SEQPACKET socket. Only peers of uid `control_uid` may use
  // it.
  KeydServer(int control_listener, uint32_t control_uid, Clock clock = MonotonicNs);

  // One turn: waits at most `timeout_ms` (-1: for ever) and serves what is there.
  void Turn(int timeout_ms) { server_.Turn(timeout_ms); }
  size_t channel_count() const { return server_.channel_count(); }

 private:
  bool Serve(ipc::PacketServer::Channel& channel);
  Keyd::Answer AnswerTo(ipc::PacketServer::Channel& channel, std::span<const uint8_t> packet);
  void ReportRefusal(uint32_t tenant);

  const Clock clock_;
  Keyd keyd_;
  std::vector<uint8_t> buffer_;
  int64_t last_report_seconds_ = 0;
  uint64_t unreported_refusals_ = 0;
  ipc::PacketServer server_;
};

}  // namespace weft::identity
