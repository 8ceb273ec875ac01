// SPDX-License-Identifier: Apache-2.0
// What weft-keyd and weft-sockets have in common: a control listener for one uid, channels of
// SEQPACKET packets to proxies, and the poll loop over both. What the packets mean is its owner's.
// Thread: one. Owns the descriptors.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "proxy/ipc/token_bucket.h"

namespace weft::ipc {

class PacketServer final {
 public:
  struct Channel {
    int fd = -1;           // non-blocking
    bool control = false;  // from the listener; otherwise made by NewChannel()
    uint32_t tenant = 0;
    std::optional<TokenBucket> requests;  // the owner's: how often it may ask
  };
  // A channel is readable. False ends it. May call NewChannel(); the reference stays good.
  using Serve = std::function<bool(Channel& channel)>;

  // Takes `control_listener`, a listening SEQPACKET socket. Only peers of uid `control_uid` may use
  // it.
  PacketServer(int control_listener, uint32_t control_uid, Serve serve);
  ~PacketServer();
  PacketServer(const PacketServer&) = delete;
  PacketServer& operator=(const PacketServer&) = delete;

  // One turn: waits at most `timeout_ms` (-1: for ever) or for a stop signal, and serves what is
  // there.
  void Turn(int timeout_ms);
  // A channel for `tenant`: the other end, blocking and close-on-exec, the caller's. -ENOSPC,
  // -EMFILE: there is none.
  int NewChannel(uint32_t tenant);
  size_t channel_count() const { return channels_.size(); }

 private:
  void Accept();
  void End(size_t index);

  int control_listener_;
  uint32_t control_uid_;
  Serve serve_;
  std::vector<std::unique_ptr<Channel>> channels_;
  int64_t deaf_until_ms_ = 0;  // the listener is not polled before: accept() has failed
};

// For a main around a PacketServer: SIGTERM and SIGINT end it, SIGHUP and SIGPIPE do not. They are
// delivered within PacketServer::Turn() only, so that none is missed between two turns.
void WatchStopSignals();
bool StopRequested();

}  // namespace weft::ipc
