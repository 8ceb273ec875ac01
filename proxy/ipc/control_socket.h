// SPDX-License-Identifier: Apache-2.0
// The agent's end of a control channel of weft-keyd or weft-sockets: one request, one answer.
// Synchronous: the other side is root's or ours, has one thread, and answers from memory or by a
// few system calls; a call is bound to kAnswerLimit all the same. Thread: one, which it blocks.
// Owns the connection. What the packets mean: keyd_control.cc, sockets_control.cc.
#pragma once
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "proxy/base/status.h"

namespace weft::ipc {

class ControlSocket final {
 public:
  static constexpr std::chrono::milliseconds kAnswerLimit{250};

  // `server` names it in errors.
  static absl::StatusOr<ControlSocket> Connect(const std::string& path, std::string server);
  ControlSocket(ControlSocket&& other) noexcept;
  ControlSocket& operator=(ControlSocket&& other) noexcept;
  ~ControlSocket();

  struct Packet {
    std::vector<uint8_t> bytes;
    std::vector<int> fds;  // the caller's
  };
  // For the next request.
  uint32_t NextId() { return next_id_++; }
  // Sends `request`, which has `id`, and waits for the answer that has it too. Answers of another
  // id are of calls that did not wait so long: they are dropped with their descriptors.
  absl::StatusOr<Packet> Call(uint32_t id, std::span<const uint8_t> request,
                              std::span<const int> fds = {});
  // `packet` is not what was asked for: its descriptors are closed.
  absl::Status Malformed(const Packet& packet) const;
  // An error that the answer itself reports.
  absl::Status Refused(int error) const;

 private:
  ControlSocket(int fd, std::string server) : fd_(fd), server_(std::move(server)) {}
  absl::StatusOr<Packet> Receive(std::chrono::steady_clock::time_point until);

  int fd_ = -1;
  std::string server_;
  uint32_t next_id_ = 1;
};

}  // namespace weft::ipc
