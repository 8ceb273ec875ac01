// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/packet_channel.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <deque>

namespace weft::ipc {

struct PacketChannel::State : std::enable_shared_from_this<PacketChannel::State> {
  State(const asio::any_io_executor& executor, size_t max_packet_bytes)
      : descriptor(executor), buffer(max_packet_bytes + 1) {}

  void WaitRead() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](boost::system::error_code error) {
                            if (!error && self->open) self->ReadSome();
                          });
  }

  void ReadSome() {
    while (open) {
      ReceivedPacket packet = ReceivePacket(descriptor.native_handle(), buffer);
      if (packet.error == EAGAIN) return WaitRead();
      if (packet.error != 0) return End();
      if (!on_packet(std::span(buffer).first(packet.bytes), std::move(packet.fds))) return End();
    }
  }

  void WaitWrite() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                          [self = shared_from_this()](boost::system::error_code error) {
                            if (!error && self->open) self->WriteQueued();
                          });
  }

  void WriteQueued() {
    while (!queue.empty()) {
      const int error = SendPacket(descriptor.native_handle(), queue.front());
      if (error == EAGAIN) return WaitWrite();
      if (error != 0) return End();
      queue.pop_front();
    }
  }

  void End() {
    if (!open) return;
    open = false;
    boost::system::error_code ignored;
    descriptor.close(ignored);
    queue.clear();
    asio::post(descriptor.get_executor(), [self = shared_from_this()] {
      if (self->on_end) self->on_end();
    });
  }

  asio::posix::stream_descriptor descriptor;
  std::vector<uint8_t> buffer;
  std::deque<std::vector<uint8_t>> queue;
  OnPacket on_packet;
  std::function<void()> on_end;
  bool open = true;
};

PacketChannel::PacketChannel(asio::any_io_executor executor, int fd, size_t max_packet_bytes,
                             OnPacket on_packet, std::function<void()> on_end)
    : state_(std::make_shared<State>(executor, max_packet_bytes)) {
  state_->on_packet = std::move(on_packet);
  state_->on_end = std::move(on_end);
  const int flags = fcntl(fd, F_GETFL);
  boost::system::error_code error;
  if (flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0) {
    state_->descriptor.assign(fd, error);
  } else {
    error = boost::system::error_code(errno, boost::system::system_category());
  }
  if (error) {
    (void)close(fd);
    state_->End();
    return;
  }
  state_->WaitRead();
}

PacketChannel::~PacketChannel() {
  state_->open = false;
  state_->on_packet = nullptr;
  state_->on_end = nullptr;
  boost::system::error_code ignored;
  state_->descriptor.close(ignored);
}

bool PacketChannel::Send(std::span<const uint8_t> bytes) {
  State& state = *state_;
  if (!state.open || state.queue.size() >= kMaxQueuedPackets) return false;
  if (!state.queue.empty()) {
    state.queue.emplace_back(bytes.begin(), bytes.end());
    return true;
  }
  const int error = SendPacket(state.descriptor.native_handle(), bytes);
  if (error == 0) return true;
  if (error != EAGAIN) {
    state.End();
    return false;
  }
  state.queue.emplace_back(bytes.begin(), bytes.end());
  state.WaitWrite();
  return true;
}

bool PacketChannel::alive() const { return state_->open; }

}  // namespace weft::ipc
