// SPDX-License-Identifier: Apache-2.0
// One packet with descriptors over a unix SOCK_SEQPACKET socket. Received descriptors are
// close-on-exec; a truncated packet or control message is an error and its descriptors are closed.
// Thread: any; does what the socket's blocking mode says.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace weft::ipc {

inline constexpr int kMaxPassedFds = 32;

// 0 or an errno (EAGAIN if the socket would block). The descriptors stay the caller's.
int SendPacket(int socket, std::span<const uint8_t> bytes, std::span<const int> fds = {});

struct ReceivedPacket {
  int error =
      0;  // errno; EAGAIN: nothing there; EMSGSIZE: truncated; ECONNRESET: the other side is gone
  size_t bytes = 0;
  std::vector<int> fds;  // the caller owns them
};
// `into` must be larger than any packet of the protocol.
ReceivedPacket ReceivePacket(int socket, std::span<uint8_t> into);

// Effective uid of the process at the other end when it connected; -1 if unknown.
int64_t PeerUid(int socket);
// SEQPACKET on a path: blocking, close-on-exec. ListenPackets replaces a dead socket file and sets
// the file's permissions. -errno on failure.
int ListenPackets(const std::string& path, unsigned mode);
int ConnectPackets(const std::string& path);
// A connected SEQPACKET pair, both ends close-on-exec and blocking; {-1, -1} on failure.
struct FdPair {
  int a = -1, b = -1;
};
FdPair MakeSeqpacketPair();

}  // namespace weft::ipc
