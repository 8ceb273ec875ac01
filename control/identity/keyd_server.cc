// SPDX-License-Identifier: Apache-2.0
#include "control/identity/keyd_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <string>

#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"

namespace weft::identity {
namespace {

constexpr size_t kMaxChannels = 1024;

}  // namespace

KeydServer::KeydServer(int control_listener, uint32_t control_uid)
    : control_listener_(control_listener),
      control_uid_(control_uid),
      buffer_(ipc::kMaxKeydPacket + 1) {}

KeydServer::~KeydServer() {
  for (const Channel& channel : channels_) (void)close(channel.fd);
  (void)close(control_listener_);
}

void KeydServer::Turn(int timeout_ms) {
  std::vector<pollfd> polled;
  polled.push_back({.fd = control_listener_, .events = POLLIN, .revents = 0});
  for (const Channel& channel : channels_)
    polled.push_back({.fd = channel.fd, .events = POLLIN, .revents = 0});
  if (poll(polled.data(), polled.size(), timeout_ms) <= 0) return;
  // Backwards, because serving may remove a channel; those added meanwhile are behind the end of
  // `polled`.
  for (size_t i = polled.size() - 1; i > 0; --i) {
    if (polled[i].revents == 0 || Serve(channels_[i - 1])) continue;
    (void)close(channels_[i - 1].fd);
    channels_.erase(channels_.begin() + static_cast<ptrdiff_t>(i - 1));
  }
  if (polled[0].revents != 0) Accept();
}

void KeydServer::Accept() {
  const int fd = accept4(control_listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  const int64_t uid = ipc::PeerUid(fd);
  if (uid != static_cast<int64_t>(control_uid_) || channels_.size() >= kMaxChannels) {
    LogWarning("control connection refused", {{"uid", std::to_string(uid)}});
    (void)close(fd);
    return;
  }
  channels_.push_back({.fd = fd, .kind = Keyd::Channel::kControl});
}

// One line a second: an exploited proxy may ask as often as it likes.
void KeydServer::ReportRefusal(uint32_t tenant) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  ++unreported_refusals_;
  if (now.tv_sec == last_report_seconds_) return;
  last_report_seconds_ = now.tv_sec;
  LogWarning("refused to sign", {{"tenant", std::to_string(tenant)},
                                 {"refusals", std::to_string(unreported_refusals_)}});
  unreported_refusals_ = 0;
}

bool KeydServer::Serve(Channel channel) {
  ipc::ReceivedPacket packet = ipc::ReceivePacket(channel.fd, buffer_);
  if (packet.error != 0) return packet.error == EAGAIN;
  for (const int fd : packet.fds) (void)close(fd);
  if (!packet.fds.empty()) return false;  // nobody sends us descriptors
  Keyd::Answer answer =
      keyd_.Handle(channel.kind, channel.tenant, std::span(buffer_).first(packet.bytes));
  if (answer.bytes.empty()) {
    LogWarning("malformed request: ending its channel",
               {{"tenant", std::to_string(channel.tenant)}});
    return false;
  }
  if (answer.refused) ReportRefusal(channel.tenant);
  ipc::FdPair pair;
  if (answer.wants_channel) {
    if (channels_.size() < kMaxChannels) pair = ipc::MakeSeqpacketPair();
    if (pair.a < 0)
      return false;  // the agent sees a broken channel rather than an answer without its descriptor
    (void)fcntl(pair.a, F_SETFL, O_NONBLOCK);
    channels_.push_back({.fd = pair.a, .kind = Keyd::Channel::kSigner, .tenant = answer.tenant});
  }
  const int error =
      ipc::SendPacket(channel.fd, answer.bytes, std::span(&pair.b, answer.wants_channel ? 1 : 0));
  if (pair.b >= 0) (void)close(pair.b);
  return error == 0;
}

}  // namespace weft::identity
