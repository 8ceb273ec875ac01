// SPDX-License-Identifier: Apache-2.0
#include "control/policy/authorization.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "xds/model/authorization.h"

namespace weft::rules {
namespace {

using model::Authorization;
using Action = Authorization::Action;

// What the policies of one workload answer, port by port.
class Judge {
 public:
  Judge(const Subject& subject, const Applicable& applicable, Numbers& rules)
      : applicable_(applicable), rules_(rules) {
    if (!subject.addresses.empty()) destination_ = subject.addresses[0];
    for (const Authorization* policy : applicable.policies) {
      if (!policy->dry_run) continue;
      trials_.push_back(*policy);
      trials_.back().dry_run = false;
    }
  }

  bpf::PolicySays Says(const Class& source, uint16_t port) const {
    const model::L4Request request{.source_identity = source.identity,
                                   .source_ip = source.address,
                                   .destination = {destination_, port}};
    const model::L4Decision decision = model::Evaluate(applicable_.policies, "", request);
    bpf::PolicySays out;
    if (!decision.by_default) {
      out.says = decision.allowed ? WEFT_SAYS_ALLOW : WEFT_SAYS_DENY;
      out.rule = rules_.Of(decision.policy);
    }
    for (const Authorization& trial : trials_) {
      if (model::Evaluate({&trial}, "", request).by_default) continue;
      out.says |= WEFT_SAYS_AUDIT;
      out.audit = rules_.Of(
          trial.Key() + (trial.action == Action::kDeny ? " (dry run, DENY)" : " (dry run, ALLOW)"));
      break;
    }
    return out;
  }

 private:
  const Applicable& applicable_;
  Numbers& rules_;
  IpAddress destination_;
  std::vector<Authorization> trials_;  // dry-run policies, as if they counted
};

std::set<uint16_t> PortsOf(const Applicable& applicable) {
  std::set<uint16_t> ports;
  const auto note = [&](const std::vector<uint32_t>& list) {
    for (uint32_t port : list) {
      if (port <= 65535) ports.insert(static_cast<uint16_t>(port));
    }
  };
  ForEachMatch(applicable, [&](const Authorization::Match& match) {
    note(match.destination_ports);
    note(match.not_destination_ports);
  });
  return ports;
}

// A port that no policy names.
uint16_t OtherPort(const std::set<uint16_t>& ports) {
  uint16_t port = 0;
  while (ports.contains(port) && port < 65535) ++port;
  return port;
}

}  // namespace

std::string DefaultText(const Applicable& applicable) {
  std::string text;
  for (const Authorization* policy : applicable.policies) {
    if (policy->dry_run || policy->action != Action::kAllow) continue;
    text += (text.empty() ? "" : ",") + policy->Key();
  }
  return text + " (ALLOW, not matched)";
}

Applicable ApplicableTo(const model::Snapshot& snapshot, const model::Workload& workload) {
  Applicable out;
  using Scope = Authorization::Scope;
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
  std::ranges::sort(out.policies, {}, [](const Authorization* p) { return p->Key(); });
  return out;
}

bool LooksAtDestinations(const Applicable& applicable) {
  bool looks = false;
  ForEachMatch(applicable, [&](const Authorization::Match& match) {
    looks |= !match.destination_ips.empty() || !match.not_destination_ips.empty();
  });
  return looks;
}

bpf::LayerState CompileAuthorization(const Subject& subject, const Applicable& applicable,
                                     const std::vector<Class>& classes, Numbers& rules,
                                     bpf::PolicyState* out) {
  bpf::LayerState state;
  if (!applicable.unknown_reference.empty()) {
    state.says = WEFT_SAYS_DENY;
    state.rule = rules.Of(applicable.unknown_reference + " (not known: denied)");
    return state;
  }
  if (applicable.policies.empty()) return state;
  const bool has_allow = model::HasAllow(applicable.policies);
  state.says = has_allow ? WEFT_SAYS_DENY : WEFT_SAYS_ALLOW;
  if (has_allow) state.rule = rules.Of(DefaultText(applicable));
  const std::set<uint16_t> ports = PortsOf(applicable);
  const uint16_t other_port = OtherPort(ports);
  const Judge judge(subject, applicable, rules);
  const auto put = [&](uint32_t class_number, uint16_t port, uint8_t length,
                       const bpf::PolicySays& says) {
    out->entries[{subject.id, class_number, port, length, WEFT_PROTOCOL_TCP,
                  WEFT_LAYER_AUTHORIZATION}] = says;
    state.lengths |= 1u << length;
  };
  for (const Class& source : classes) {
    if (!source.local) continue;
    const bpf::PolicySays others = judge.Says(source, other_port);
    if (others.says != 0) put(source.number, 0, 0, others);
    for (uint16_t port : ports) {
      const bpf::PolicySays says = judge.Says(source, port);
      // One that says nothing is needed as well: the search must end there.
      if (!(says == others)) put(source.number, port, 16, says);
    }
  }
  return state;
}

}  // namespace weft::rules
