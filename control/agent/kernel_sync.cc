// SPDX-License-Identifier: Apache-2.0
#include "control/agent/kernel_sync.h"

#include <set>

namespace weft::agent {
namespace {

uint32_t FlagsOf(const LocalPod& pod, const rules::Compiled& policy) {
  uint32_t flags = pod.splice ? WEFT_WL_SPLICE : 0u;
  if (pod.proxy_ready) flags |= WEFT_WL_PROXY_READY;
  if (policy.left_to_the_proxy.contains(pod.id)) flags |= WEFT_WL_L7_INBOUND;
  return flags;
}

void CompilePeers(const model::Snapshot& snapshot, KernelNumbers& numbers, KernelState* state) {
  for (const auto& [uid, workload] : snapshot.workloads) {
    if (workload->host_network) continue;  // its address is the node's, not its own
    for (const IpAddress& address : workload->addresses) {
      state->peers[address] = {.identity = numbers.identities.Of(workload->Identity()),
                               .flags = workload->hbone ? WEFT_PEER_HBONE : 0u};
    }
  }
}

template <typename Map, typename Key>
void DiffMap(const Map& have, const Map& want, std::vector<Key>* set, std::vector<Key>* remove) {
  for (const auto& [key, value] : want) {
    auto found = have.find(key);
    if (found == have.end() || !(found->second == value)) set->push_back(key);
  }
  for (const auto& [key, value] : have) {
    if (!want.contains(key)) remove->push_back(key);
  }
}

}  // namespace

KernelState CompileKernelState(const model::Snapshot& snapshot, const std::vector<LocalPod>& pods,
                               const NodePlace& place, KernelNumbers& numbers) {
  KernelState state;
  CompilePeers(snapshot, numbers, &state);
  std::set<IpAddress> on_this_node;
  for (const LocalPod& pod : pods) on_this_node.insert(pod.addresses.begin(), pod.addresses.end());
  state.services = CompileServices(snapshot, place, on_this_node, numbers.services);
  std::vector<rules::Subject> subjects;
  for (const LocalPod& pod : pods) {
    subjects.push_back({pod.id, pod.uid, pod.identity, pod.addresses});
  }
  rules::Compiled policy = rules::Compile(snapshot, subjects, numbers.compiler);
  for (const LocalPod& pod : pods) {
    const uint32_t identity = numbers.identities.Of(pod.identity);
    const uint32_t flags = FlagsOf(pod, policy);
    state.workloads[pod.netns_cookie] = {pod.id, pod.generation, identity, flags, pod.addresses};
    for (const IpAddress& address : pod.addresses) {
      state.peers[address] = {pod.netns_cookie, pod.id, identity, WEFT_PEER_HBONE, flags};
    }
  }
  state.policy = std::move(policy.state);
  return state;
}

size_t KernelChanges::count() const {
  return workloads.size() + set_peers.size() + remove_peers.size() + set_services.size() +
         remove_services.size();
}

KernelChanges DiffKernelState(const KernelState& have, const KernelState& want) {
  KernelChanges changes;
  std::vector<uint64_t> detached;  // detaching is the enrolment's business
  DiffMap(have.workloads, want.workloads, &changes.workloads, &detached);
  DiffMap(have.peers, want.peers, &changes.set_peers, &changes.remove_peers);
  DiffMap(have.services, want.services, &changes.set_services, &changes.remove_services);
  return changes;
}

}  // namespace weft::agent
