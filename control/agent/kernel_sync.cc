// SPDX-License-Identifier: Apache-2.0
#include "control/agent/kernel_sync.h"

#include <set>

namespace weft::agent {
namespace {

uint32_t FlagsOf(const LocalPod& pod, const rules::Compiled& policy) {
  uint32_t flags = pod.splice == SpliceMode::kOff ? 0u : WEFT_WL_SPLICE;
  if (pod.splice == SpliceMode::kAuto) flags |= WEFT_WL_SPLICE_AUTO;
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

// Every endpoint that a service which the proxy serves may have, near or far.
std::vector<rules::L7Service> L7Services(const model::Snapshot& snapshot,
                                         const std::map<uint32_t, KernelService>& services,
                                         KernelNumbers& numbers) {
  const Reachable reachable = ReachableEndpoints(snapshot);
  std::vector<rules::L7Service> out;
  for (const auto& [key, service] : snapshot.services) {
    for (const model::Service::Port& port : service->ports) {
      std::string name = key + ":" + std::to_string(port.service_port);
      for (const char* family : {"", "/ipv6"}) {  // as CompileServices names them
        const auto compiled = services.find(numbers.services.Of(name + family));
        if (compiled == services.end() || !(compiled->second.flags & WEFT_SVC_L7)) continue;
        rules::L7Service& made = out.emplace_back();
        made.id = compiled->first;
        if (auto found = reachable.find({key, port.service_port}); found != reachable.end()) {
          made.endpoints.assign(found->second.begin(), found->second.end());
        }
      }
    }
  }
  return out;
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
  rules::Compiled policy = rules::Compile(snapshot, subjects, numbers.compiler,
                                          snapshot.process_policies.empty()
                                              ? std::vector<rules::L7Service>()
                                              : L7Services(snapshot, state.services, numbers));
  for (const LocalPod& pod : pods) {
    const uint32_t identity = numbers.identities.Of(pod.identity);
    const uint32_t flags = FlagsOf(pod, policy);
    state.workloads[pod.netns_cookie] = {pod.id, pod.generation, identity,
                                         flags,  pod.addresses,  pod.resolvers};
    for (const IpAddress& address : pod.addresses) {
      state.peers[address] = {pod.netns_cookie, pod.id, identity, WEFT_PEER_HBONE, flags};
    }
  }
  state.policy = std::move(policy.state);
  state.problems = std::move(policy.problems);
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
