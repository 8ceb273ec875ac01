// SPDX-License-Identifier: Apache-2.0
#include "control/identity/keyd_server.h"

#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <string>

#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"

namespace weft::identity {
namespace {

// Of one signer channel, that is of one worker of a proxy: far above the full handshakes that a
// worker can do in a second. Who is beyond is answered EBUSY before a key is touched.
constexpr int64_t kSignerRequestsPerSecond = 20'000;
constexpr int64_t kSignerBurst = 20'000;

}  // namespace

int64_t KeydServer::MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

KeydServer::KeydServer(int control_listener, uint32_t control_uid, Clock clock)
    : clock_(clock),
      buffer_(ipc::kMaxKeydPacket + 1),
      server_(control_listener, control_uid,
              [this](ipc::PacketServer::Channel& channel) { return Serve(channel); }) {}

// One line a second: an exploited proxy may ask as often as it likes.
void KeydServer::ReportRefusal(uint32_t tenant) {
  const int64_t now_seconds = clock_() / 1'000'000'000;
  ++unreported_refusals_;
  if (now_seconds == last_report_seconds_) return;
  last_report_seconds_ = now_seconds;
  LogWarning("refused to sign", {{"tenant", std::to_string(tenant)},
                                 {"refusals", std::to_string(unreported_refusals_)}});
  unreported_refusals_ = 0;
}

Keyd::Answer KeydServer::AnswerTo(ipc::PacketServer::Channel& channel,
                                  std::span<const uint8_t> packet) {
  if (channel.control) return keyd_.Handle(Keyd::Channel::kControl, 0, packet);
  if (!channel.requests) channel.requests.emplace(kSignerRequestsPerSecond, kSignerBurst);
  if (!channel.requests->Take(clock_())) return keyd_.RefuseTooOften(packet);
  return keyd_.Handle(Keyd::Channel::kSigner, channel.tenant, packet);
}

bool KeydServer::Serve(ipc::PacketServer::Channel& channel) {
  ipc::ReceivedPacket packet = ipc::ReceivePacket(channel.fd, buffer_);
  if (packet.error != 0) return packet.error == EAGAIN;
  for (const int fd : packet.fds) (void)close(fd);
  if (!packet.fds.empty()) return false;  // nobody sends us descriptors
  Keyd::Answer answer = AnswerTo(channel, std::span(buffer_).first(packet.bytes));
  if (answer.bytes.empty()) {
    LogWarning("malformed request: ending its channel",
               {{"tenant", std::to_string(channel.tenant)}});
    return false;
  }
  if (answer.refused) ReportRefusal(channel.tenant);
  const int fd = answer.wants_channel ? server_.NewChannel(answer.tenant) : -1;
  // The agent sees a broken channel rather than an answer without its descriptor.
  if (answer.wants_channel && fd < 0) return false;
  const int error = ipc::SendPacket(channel.fd, answer.bytes, std::span(&fd, fd >= 0 ? 1 : 0));
  if (fd >= 0) (void)close(fd);
  return error == 0;
}

}  // namespace weft::identity
