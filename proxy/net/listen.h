// SPDX-License-Identifier: Apache-2.0
// Listening sockets and the loop that accepts from them.
// Thread: an Acceptor belongs to its executor's thread; the functions have none.
#pragma once
#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <string>

#include "proxy/base/address.h"
#include "proxy/base/status.h"
#include "proxy/base/task.h"

namespace weft::net {

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;
};
// Bound, listening, non-blocking, close-on-exec; SO_REUSEADDR. An unspecified v6 address is dual
// stack. Port 0: see LocalAddress.
absl::StatusOr<int> ListenTcp(SocketAddress address, ListenOptions options = {});
// Replaces a dead socket file of that path. `mode` are the permissions of the file.
absl::StatusOr<int> ListenUnix(const std::string& path, mode_t mode);

// All zero if the socket has none (unix sockets).
SocketAddress LocalAddress(int fd);
SocketAddress PeerAddress(int fd);

// Hands out accepted descriptors (non-blocking, close-on-exec; the receiver owns them) until Stop()
// or its end. Out of descriptors: the listener rests for 100 ms. Destroying it closes the listening
// descriptor.
class Acceptor final {
 public:
  using OnAccept = std::function<void(int fd, SocketAddress peer)>;
  // Takes `listen_fd`. `on_accept` may destroy the Acceptor.
  Acceptor(asio::any_io_executor executor, int listen_fd, OnAccept on_accept);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  void Start();
  void Stop();
  SocketAddress address() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::net
