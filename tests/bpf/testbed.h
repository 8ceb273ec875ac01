// SPDX-License-Identifier: Apache-2.0
// A node for tests of the kernel programs: pods as unnamed network namespaces on a bridge (gone
// with the process), the real loader, and sockets of the test's own process inside the pods.
// Thread: the test's.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/bpf/loader.h"
#include "control/bpf/pins.h"
#include "control/bpf/sockets_maps.h"
#include "proxy/base/address.h"

namespace weft::bpf {

struct Pod {
  UniqueFd netns;
  uint32_t id = 0;
  uint64_t cookie = 0;
  IpAddress v4;
  IpAddress v6;
  int host_netns = -1;  // where the other end of its veth is
  std::string host_end;
  SocketAddress At(uint16_t port) const { return {v4, port}; }
  SocketAddress At6(uint16_t port) const { return {v6, port}; }
};

constexpr uint32_t kGeneration = 7;
constexpr uint32_t IdentityOf(const Pod& pod) { return 100 + pod.id; }
constexpr uint32_t ClassOf(const Pod& pod) { return 200 + pod.id; }

// Three pods on one bridge: 10.77.0.1 to .3, fd77::1 to ::3. Nothing is enrolled.
class Network {
 public:
  Network();
  Pod& pod(int index) { return pods_[static_cast<size_t>(index)]; }
  const UniqueFd& node() const { return node_; }

 private:
  UniqueFd node_;
  std::vector<Pod> pods_;
};

// Runs `ip -batch` with these lines in a namespace.
void Ip(const UniqueFd& netns, const std::string& lines);

// A node's programs on a bpffs of the test's own; unloaded at the end.
class Node {
 public:
  explicit Node(const std::string& name, const std::function<void(KernelConfig&)>& adjust = {});
  ~Node();
  static KernelConfig ConfigOf(const std::string& name);

  Kernel& kernel() { return *kernel_; }
  // The agent dies, the next one adopts what it left.
  void Restart();
  const SocketMaps& sockets() const { return *sockets_; }
  const KernelConfig& config() const { return config_; }
  // Enrols the pod, guards it and announces its addresses as those of a workload of this node.
  void Enrol(Pod& pod, uint32_t flags);
  void EnrolUnguarded(Pod& pod, uint32_t flags);
  void Announce(const Pod& pod, uint32_t flags);
  // Its policy, and its class. Announce permits everything where nothing else was said.
  void Permit(const Pod& pod, const SubjectState& state = {});
  // What is in force after the next Apply, which expects success.
  PolicyState& policy() { return policy_; }
  PolicyReport Apply();
  // Our listeners, as weft-sockets makes them: 15001, 15006, 15008.
  struct Listeners {
    UniqueFd outbound, inbound, hbone;
  };
  Listeners Listen(const Pod& pod);
  // A stamped socket in the pod's netns and in weft-sockets' cgroup.
  UniqueFd Stamped(const Pod& pod, weft_role role, int family);
  std::vector<weft_event> Events();
  // Waits for an event of that kind; the test fails after 5 s.
  weft_event WaitEvent(uint32_t kind);
  uint64_t Count(weft_reason reason) { return kernel_->Counters()[reason]; }

 private:
  KernelConfig config_;
  PolicyState policy_;
  std::unique_ptr<Kernel> kernel_;
  std::unique_ptr<SocketMaps> sockets_;
};

enum class Blocking { kYes, kNo };

UniqueFd TcpSocket(const Pod& pod, int family, Blocking blocking);
UniqueFd Listener(const Pod& pod, uint16_t port, int family = AF_INET6);
// The errno of connect(), waited for if the socket is non-blocking; 0: connected.
int Connect(const UniqueFd& fd, const SocketAddress& to, int family = AF_INET);
// Accepts within 5 s; `shown` gets what accept() answers as the peer.
UniqueFd Accept(const UniqueFd& listener, Blocking blocking, SocketAddress* shown = nullptr);
// Nothing to accept for `milliseconds`.
bool NothingToAccept(const UniqueFd& listener, int milliseconds);
SocketAddress PeerName(const UniqueFd& fd);
SocketAddress SocketName(const UniqueFd& fd);
// Waits for readability (or writability) up to 5 s.
bool WaitFor(const UniqueFd& fd, short events);
void SendAll(const UniqueFd& fd, const std::string& bytes);
std::string ReceiveSome(const UniqueFd& fd,
                        size_t bytes);  // exactly so many, or fewer at EOF or after 5 s

}  // namespace weft::bpf
