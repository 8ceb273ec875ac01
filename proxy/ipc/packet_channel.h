// SPDX-License-Identifier: Apache-2.0
// Inside proxy/ipc: a SEQPACKET channel on an executor: packets out without waiting, a callback for
// each packet in. Thread: the executor's. Owns the descriptor. A packet that does not fit, or the
// other side's end, ends the channel.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <span>

#include "proxy/base/task.h"
#include "proxy/ipc/fd_passing.h"

namespace weft::ipc {

class PacketChannel final {
 public:
  // on_packet: its fds are the callee's. Returns false: the packet is malformed, end the channel.
  // on_end runs once, from the executor, when the channel ends by itself.
  using OnPacket = std::function<bool(std::span<const uint8_t> bytes, std::vector<int> fds)>;
  PacketChannel(asio::any_io_executor executor, int fd, size_t max_packet_bytes, OnPacket on_packet,
                std::function<void()> on_end);
  ~PacketChannel();
  PacketChannel(const PacketChannel&) = delete;
  PacketChannel& operator=(const PacketChannel&) = delete;

  // False if the channel is dead. A full socket keeps up to `kMaxQueuedPackets`; beyond that:
  // false.
  bool Send(std::span<const uint8_t> bytes);
  bool alive() const;

  static constexpr size_t kMaxQueuedPackets = 1024;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::ipc
