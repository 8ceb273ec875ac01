// SPDX-License-Identifier: Apache-2.0
#include "control/agent/kernel_sync.h"

#include <algorithm>
#include <set>

#include "xds/model/authorization.h"

namespace weft::agent {
namespace {

using Policies = std::vector<const model::Authorization*>;

struct ApplicablePolicies {
  Policies policies;
  std::string unknown_reference;
  bool by_address = false;  // some rule looks at the source address
  std::set<uint16_t> ports;
};

void NotePorts(const model::Authorization& policy, ApplicablePolicies* out) {
  for (const auto& group : policy.groups) {
    for (const auto& rule : group) {
      for (const model::Authorization::Match& match : rule) {
        out->by_address |= !match.source_ips.empty() || !match.not_source_ips.empty();
        for (uint32_t port : match.destination_ports) out->ports.insert(uint16_t(port));
        for (uint32_t port : match.not_destination_ports) out->ports.insert(uint16_t(port));
      }
    }
  }
}

ApplicablePolicies PoliciesOf(const model::Snapshot& snapshot, const model::Workload& workload) {
  ApplicablePolicies out;
  using Scope = model::Authorization::Scope;
  for (const auto& [key, policy] : snapshot.authorizations) {
    const bool applies =
        policy->scope == Scope::kGlobal ||
        (policy->scope == Scope::kNamespace && policy->namespace_name == workload.namespace_name);
    if (applies) out.policies.push_back(policy.get());
  }
  for (const std::string& name : workload.authorization_policies) {
    auto found = snapshot.authorizations.find(name);
    if (found == snapshot.authorizations.end()) {
      out.unknown_reference = name;
    } else {
      out.policies.push_back(found->second.get());
    }
  }
  // The map they come from has no order; which policy is named must not change from one compilation
  // to the next.
  std::ranges::sort(out.policies, {}, [](const model::Authorization* p) { return p->Key(); });
  for (const model::Authorization* policy : out.policies) NotePorts(*policy, &out);
  return out;
}

// The rule that an event shall name: the policy that decided, or the ALLOW policies that did not
// match.
std::string RuleText(const model::L4Decision& decision, const ApplicablePolicies& applicable) {
  if (!decision.by_default) return std::string(decision.policy);
  if (decision.allowed) return "";
  std::string text;
  for (const model::Authorization* policy : applicable.policies) {
    if (policy->dry_run || policy->action != model::Authorization::Action::kAllow) continue;
    text += (text.empty() ? "" : ",") + policy->Key();
  }
  return text + " (ALLOW, not matched)";
}

void AddVerdicts(const LocalPod& pod, const ApplicablePolicies& applicable,
                 const std::set<std::string>& identities, KernelNumbers& numbers,
                 KernelState* state) {
  std::set<uint16_t> ports = applicable.ports;
  ports.insert(0);
  for (const std::string& identity : identities) {
    for (uint16_t port : ports) {
      model::L4Request request{.source_identity = identity};
      if (!pod.addresses.empty()) request.destination.ip = pod.addresses[0];
      request.destination.port = port;
      const model::L4Decision decision =
          model::Evaluate(applicable.policies, applicable.unknown_reference, request);
      const std::string rule = RuleText(decision, applicable);
      state->verdicts[{pod.id, numbers.identities.Of(identity), port}] = {
          decision.allowed, rule.empty() ? 0 : numbers.rules.Of(rule)};
    }
  }
}

// Its flags; adds its verdicts.
uint32_t CompilePod(const model::Snapshot& snapshot, const LocalPod& pod,
                    const std::set<std::string>& identities, KernelNumbers& numbers,
                    KernelState* state) {
  uint32_t flags = (pod.splice ? WEFT_WL_SPLICE : 0u);
  if (pod.proxy_ready) flags |= WEFT_WL_PROXY_READY;
  auto found = snapshot.workloads.find(pod.uid);
  // Unknown to the control plane: nobody can say who may reach it.
  if (found == snapshot.workloads.end()) return flags | WEFT_WL_DEFAULT_DENY;
  const ApplicablePolicies applicable = PoliciesOf(snapshot, *found->second);
  if (applicable.policies.empty() && applicable.unknown_reference.empty()) return flags;
  if (applicable.by_address) return flags | WEFT_WL_L7_INBOUND;
  if (model::HasAllow(applicable.policies) || !applicable.unknown_reference.empty()) {
    flags |= WEFT_WL_DEFAULT_DENY;
  }
  AddVerdicts(pod, applicable, identities, numbers, state);
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

std::set<SocketAddress> HttpListeners(const model::Snapshot& snapshot) {
  std::set<SocketAddress> addresses;
  for (const auto& [name, listener] : snapshot.listeners) {
    if (listener->http.has_value() && listener->address) addresses.insert(*listener->address);
  }
  return addresses;
}

using Backends = std::map<std::pair<std::string, uint16_t>, std::set<SocketAddress>>;

// (service key, service port) -> addresses of healthy workloads.
Backends CollectBackends(const model::Snapshot& snapshot) {
  Backends backends;
  for (const auto& [uid, workload] : snapshot.workloads) {
    if (!workload->healthy) continue;
    for (const auto& [service, ports] : workload->services) {
      for (const auto& port : ports) {
        auto& addresses = backends[{service, port.service_port}];
        for (const IpAddress& ip : workload->addresses) addresses.insert({ip, port.target_port});
      }
    }
  }
  return backends;
}

void CompileServices(const model::Snapshot& snapshot, KernelNumbers& numbers, KernelState* state) {
  const std::set<SocketAddress> http = HttpListeners(snapshot);
  const Backends backends = CollectBackends(snapshot);
  for (const auto& [key, service] : snapshot.services) {
    for (const model::Service::Port& port : service->ports) {
      KernelService out;
      for (const IpAddress& ip : service->addresses) {
        const SocketAddress vip{ip, port.service_port};
        out.vips.push_back(vip);
        if (http.contains(vip)) out.flags |= WEFT_SVC_L7;
      }
      if (out.vips.empty()) continue;
      if (auto found = backends.find({key, port.service_port}); found != backends.end()) {
        out.backends.assign(found->second.begin(), found->second.end());
      }
      const uint32_t id = numbers.services.Of(key + ":" + std::to_string(port.service_port));
      state->services[id] = std::move(out);
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

uint32_t Numbers::Of(std::string_view name) {
  auto [entry, added] =
      numbers_.try_emplace(std::string(name), static_cast<uint32_t>(names_.size() + 1));
  if (added) names_.emplace_back(name);
  return entry->second;
}

std::string_view Numbers::NameOf(uint32_t number) const {
  return number == 0 || number > names_.size() ? std::string_view() : names_[number - 1];
}

KernelState CompileKernelState(const model::Snapshot& snapshot, const std::vector<LocalPod>& pods,
                               KernelNumbers& numbers) {
  KernelState state;
  CompilePeers(snapshot, numbers, &state);
  CompileServices(snapshot, numbers, &state);
  // Only workloads of this node connect directly, so only their identities are asked for.
  std::set<std::string> identities;
  for (const LocalPod& pod : pods) identities.insert(pod.identity);
  for (const LocalPod& pod : pods) {
    const uint32_t identity = numbers.identities.Of(pod.identity);
    const uint32_t flags = CompilePod(snapshot, pod, identities, numbers, &state);
    state.workloads[pod.netns_cookie] = {pod.id, pod.generation, identity, flags, pod.addresses};
    for (const IpAddress& address : pod.addresses) {
      state.peers[address] = {pod.netns_cookie, pod.id, identity, WEFT_PEER_HBONE, flags};
    }
  }
  return state;
}

size_t KernelChanges::count() const {
  return workloads.size() + set_peers.size() + remove_peers.size() + set_services.size() +
         remove_services.size() + set_verdicts.size() + remove_verdicts.size();
}

KernelChanges DiffKernelState(const KernelState& have, const KernelState& want) {
  KernelChanges changes;
  std::vector<uint64_t> detached;  // detaching is the enrolment's business
  DiffMap(have.workloads, want.workloads, &changes.workloads, &detached);
  DiffMap(have.peers, want.peers, &changes.set_peers, &changes.remove_peers);
  DiffMap(have.services, want.services, &changes.set_services, &changes.remove_services);
  DiffMap(have.verdicts, want.verdicts, &changes.set_verdicts, &changes.remove_verdicts);
  return changes;
}

}  // namespace weft::agent
