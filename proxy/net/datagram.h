// SPDX-License-Identifier: Apache-2.0
// A UDP socket: datagrams in and out by calls that never wait, readiness awaited. Says which of our
// addresses a datagram came to, and answers from that one. Thread: the executor's. Owns the
// descriptor.
#pragma once
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <span>

#include "proxy/base/address.h"
#include "proxy/base/task.h"

namespace weft::net {

class DatagramSocket final {
 public:
  // Takes `fd`, non-blocking. One that cannot be watched is closed at once.
  DatagramSocket(const asio::any_io_executor& executor, int fd);
  ~DatagramSocket() { Close(); }
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;

  struct Received {
    int error = 0;  // errno; EAGAIN: nothing is there; EBADF: closed
    size_t bytes = 0;
    bool truncated = false;  // it was larger than the buffer
    SocketAddress from;
    IpAddress to;  // our address that it came to; unspecified if unknown
  };
  Received TryReceive(std::span<uint8_t> into);
  // 0 or an errno. EAGAIN: it is lost, as datagrams may be.
  int TrySend(std::span<const uint8_t> bytes);  // on a connected socket
  int TrySendTo(std::span<const uint8_t> bytes, const SocketAddress& to, const IpAddress& from);
  // From now on only datagrams of this address are received. 0 or an errno.
  int Connect(const SocketAddress& to);

  // Resumes when TryReceive may find something, or after Close(). At most one waiter.
  Task<void> Readable();
  // Calls back once when TryReceive may find something, for loops that are nobody's coroutine; not
  // after Close(). Instead of Readable(), not beside it.
  void WhenReadable(std::function<void()> callback);
  // Idempotent; wakes the waiter.
  void Close();
  bool closed() const { return fd_ < 0; }
  SocketAddress local_address() const;

 private:
  asio::posix::stream_descriptor descriptor_;
  int fd_ = -1;
  int family_ = 0;
};

}  // namespace weft::net
