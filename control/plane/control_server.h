// SPDX-License-Identifier: Apache-2.0
// weft-control as one object: folder -> publisher -> ADS, and the CA, on its ports. Thread: one
// io_context, its owner's. Not here: the command line and signals (main.cc).
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "control/plane/options.h"
#include "proxy/base/status.h"

namespace weft::plane {

class ControlServer final {
 public:
  // Opens the CA and every port, reads the folder and starts to serve. The error says what is in
  // the way and, for a port in use, whom to ask.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Start(boost::asio::any_io_executor executor,
                                                              Options options);
  ~ControlServer();  // ends every connection; the io_context must run once more for their
                     // coroutines to leave

  // Ports as bound (port 0 was asked for in tests); port 0: not open.
  SocketAddress tls_address() const;
  SocketAddress plaintext_address() const;
  SocketAddress status_address() const;

 private:
  struct State;
  explicit ControlServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace weft::plane
