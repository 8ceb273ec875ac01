// SPDX-License-Identifier: Apache-2.0
// The agent's side of weft-keyd's control channel. Calls block until answered, at most 5 s. Thread:
// one. Owns the connection.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/base/status.h"
#include "proxy/ipc/keyd_protocol.h"

namespace weft::ipc {

class KeydControl final {
 public:
  static absl::StatusOr<KeydControl> Connect(const std::string& path);
  KeydControl(KeydControl&& other) noexcept;
  KeydControl& operator=(KeydControl&& other) noexcept;
  ~KeydControl();

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
  explicit KeydControl(int fd) : fd_(fd) {}
  struct Reply {
    KeydAnswer answer;
    std::string body;
    int fd = -1;
  };
  absl::StatusOr<Reply> Call(KeydRequest request, std::string_view identity);
  int fd_ = -1;
  uint32_t next_id_ = 1;
};

}  // namespace weft::ipc
