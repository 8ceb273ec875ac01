// SPDX-License-Identifier: Apache-2.0
// For tests of the guard: raw and packet sockets in a pod, an observer that sees every frame that
// reaches a pod, UDP and ping. Thread: the test's.
#pragma once
#include <string>

#include "tests/bpf/balancer/packet.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {

// A socket of any kind, made inside the pod.
UniqueFd SocketIn(const Pod& pod, int family, int type, int protocol);

// Sees what arrives at (not what leaves) a pod's eth0, from now on.
class Observer {
 public:
  explicit Observer(const Pod& pod);
  // Reads what has come so far; true if a frame since the last Forget() has `marker` in it.
  bool Saw(const Bytes& marker);
  // Waits for it, up to 5 s.
  bool WaitFor(const Bytes& marker);
  void Forget();

 private:
  void Drain();
  UniqueFd fd_;
  std::vector<Bytes> frames_;
};

Bytes MacOf(const Pod& pod);
// Ethernet around `packet`, to everybody, so that it reaches whoever listens.
Bytes FrameFrom(const Bytes& mac, unsigned type, const Bytes& packet);
// By a packet socket: no route, no firewall, no socket of TCP.
void SendFrame(const Pod& pod, const Bytes& frame, int times = 1);
// By a raw socket with a header of its own.
void SendRaw(const Pod& pod, const IpAddress& to, const Bytes& packet);

UniqueFd UdpSocket(const Pod& pod, const SocketAddress& bound);
// The errno, 0: sent.
int SendTo(const UniqueFd& fd, const SocketAddress& to, const std::string& bytes);
// A datagram within `milliseconds`, or "".
std::string ReceiveFrom(const UniqueFd& fd, SocketAddress* from = nullptr, int milliseconds = 5000);

// An echo request; true if the answer comes within `milliseconds`.
bool Ping(const Pod& from, const IpAddress& to, int milliseconds = 5000);

}  // namespace weft::bpf
