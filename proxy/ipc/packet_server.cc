// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/packet_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string>

#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"

namespace weft::ipc {
namespace {

constexpr size_t kMaxChannels = 1024;  // proxies' workers of one node, and then some
// poll() reports who waits at the listener whether or not there is a descriptor to accept with.
constexpr int64_t kDeafMs = 100;

volatile sig_atomic_t g_stop = 0;
void OnStopSignal(int) { g_stop = 1; }

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

// poll() with the stop signals let in: 0 if there is nothing to do.
int PollWithSignals(std::vector<pollfd>& polled, int timeout_ms) {
  const timespec limit{.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1'000'000L};
  sigset_t none;
  sigemptyset(&none);
  return std::max(0, ppoll(polled.data(), polled.size(), timeout_ms < 0 ? nullptr : &limit, &none));
}

}  // namespace

PacketServer::PacketServer(int control_listener, uint32_t control_uid, Serve serve)
    : control_listener_(control_listener), control_uid_(control_uid), serve_(std::move(serve)) {
  // The one who waited may be gone when we accept.
  (void)fcntl(control_listener_, F_SETFL, O_NONBLOCK);
}

PacketServer::~PacketServer() {
  for (const auto& channel : channels_) (void)close(channel->fd);
  (void)close(control_listener_);
}

void PacketServer::Turn(int timeout_ms) {
  const int64_t deaf_ms = deaf_until_ms_ == 0 ? 0 : deaf_until_ms_ - NowMs();
  if (deaf_ms > 0 && (timeout_ms < 0 || timeout_ms > deaf_ms)) {
    timeout_ms = static_cast<int>(deaf_ms);
  }
  std::vector<pollfd> polled;
  // poll() passes over a negative descriptor.
  polled.push_back({.fd = deaf_ms > 0 ? -1 : control_listener_, .events = POLLIN, .revents = 0});
  for (const auto& channel : channels_) {
    polled.push_back({.fd = channel->fd, .events = POLLIN, .revents = 0});
  }
  if (PollWithSignals(polled, timeout_ms) == 0) return;
  // Backwards, because a channel may end; those added meanwhile are behind the end of `polled`.
  for (size_t i = polled.size() - 1; i > 0; --i) {
    if (polled[i].revents != 0 && !serve_(*channels_[i - 1])) End(i - 1);
  }
  if (polled[0].revents != 0) Accept();
}

void PacketServer::Accept() {
  deaf_until_ms_ = 0;
  const int fd = accept4(control_listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    LogWarning("cannot accept a control connection", {{"error", strerror(errno)}});
    deaf_until_ms_ = NowMs() + kDeafMs;
    return;
  }
  const int64_t uid = PeerUid(fd);
  if (uid != static_cast<int64_t>(control_uid_) || channels_.size() >= kMaxChannels) {
    LogWarning("control connection refused", {{"uid", std::to_string(uid)}});
    (void)close(fd);
    return;
  }
  channels_.push_back(std::make_unique<Channel>(Channel{.fd = fd, .control = true}));
}

void PacketServer::End(size_t index) {
  const std::unique_ptr<Channel> gone = std::move(channels_[index]);
  (void)close(gone->fd);
  channels_.erase(channels_.begin() + static_cast<ptrdiff_t>(index));
  if (gone->control) return;
  const bool last = std::ranges::none_of(
      channels_, [&](const auto& c) { return !c->control && c->tenant == gone->tenant; });
  if (last) {
    LogWarning("the last channel of a tenant is gone", {{"tenant", std::to_string(gone->tenant)}});
  }
}

int PacketServer::NewChannel(uint32_t tenant) {
  if (channels_.size() >= kMaxChannels) return -ENOSPC;
  const FdPair pair = MakeSeqpacketPair();
  if (pair.a < 0) return -EMFILE;
  (void)fcntl(pair.a, F_SETFL, O_NONBLOCK);  // who does not read its answers must not hold us
  channels_.push_back(std::make_unique<Channel>(Channel{.fd = pair.a, .tenant = tenant}));
  return pair.b;
}

void WatchStopSignals() {
  (void)signal(SIGPIPE, SIG_IGN);
  (void)signal(SIGHUP, SIG_IGN);
  struct sigaction stop{};
  stop.sa_handler = OnStopSignal;
  sigset_t blocked;
  sigemptyset(&blocked);
  for (const int number : {SIGTERM, SIGINT}) {
    (void)sigaction(number, &stop, nullptr);
    sigaddset(&blocked, number);
  }
  (void)sigprocmask(SIG_BLOCK, &blocked, nullptr);
}

bool StopRequested() { return g_stop != 0; }

}  // namespace weft::ipc
