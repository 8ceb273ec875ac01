// SPDX-License-Identifier: Apache-2.0
// The agent's side of weft-keyd's control channel. Calls are synchronous, at most 250 ms
// (control_socket.h). Thread: one. Owns the connection.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "proxy/base/status.h"
#include "proxy/ipc/control_socket.h"
#include "proxy/ipc/keyd_protocol.h"

namespace weft::ipc {

class KeydControl final {
 public:
  static absl::StatusOr<KeydControl> Connect(const std::string& path);

  struct Generated {
    uint64_t key_id = 0;
    std::string csr_pem;
  };
  absl::StatusOr<Generated> Generate(std::string_view identity);
  absl::Status Grant(std::string_view identity, uint64_t key_id, uint32_t tenant);
  absl::Status Forget(uint64_t key_id);
  // The other end of a new signer channel; the caller owns it (close-on-exec). Works as a proxy's
  // and as the agent's own (RemoteSigner), for the node's certificate.
  absl::StatusOr<int> NewChannel(uint32_t tenant);
  absl::StatusOr<std::string> StatusJson();

 private:
  explicit KeydControl(ControlSocket socket) : socket_(std::move(socket)) {}
  struct Reply {
    KeydAnswer answer;
    std::string body;
    int fd = -1;
  };
  absl::StatusOr<Reply> Call(KeydRequest request, std::string_view identity);
  ControlSocket socket_;
};

}  // namespace weft::ipc
