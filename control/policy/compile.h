// SPDX-License-Identifier: Apache-2.0
// From NetworkPolicy and Authorization, as the control plane resolved them, to the entries of the
// kernel's policy maps. Pure: no kernel, no clock. A *class* is what the policies of this node can
// tell apart: for an address of one of its workloads the SPIFFE id, the NetworkPolicy rules whose
// peers it is in and the address prefixes of authorization that it is in; for any other address and
// for a CIDR block the rules alone. Rules are known by their place (policy, direction, index), so
// that a peer that joins or leaves a rule changes the peer's class, not the rule's entries. Thread:
// the agent's.
#pragma once
#include <string>
#include <vector>

#include "control/bpf/policy_state.h"
#include "control/policy/numbers.h"
#include "xds/model/snapshot.h"

namespace weft::rules {

// An enrolled workload.
struct Subject {
  uint32_t id = 0;
  std::string uid;  // empty, or one that the snapshot does not have: it may do nothing
  std::string identity;
  std::vector<IpAddress> addresses;
};

// What must mean the same from one compilation to the next.
struct CompilerNumbers {
  Numbers& rules;            // what events and `weft why` print
  Numbers classes;           // not kept over a restart of the agent
  uint32_t first_class = 0;  // numbers up to this are an earlier agent's
  Numbers arguments;         // of process rules; number - 1 is the kernel's bit
};

// A service whose endpoint the proxy picks, as the kernel numbers it.
struct L7Service {
  uint32_t id = 0;
  std::vector<SocketAddress> endpoints;
};

struct Compiled {
  bpf::PolicyState state;
  // Rules that cannot be in force as they are written, one line each.
  std::vector<std::string> problems;
  // Workloads whose authorization the kernel cannot decide: it asks for the destination's address,
  // and they have several. Their connections go to the proxy; the kernel asks no authorization.
  std::set<uint32_t> left_to_the_proxy;
};

Compiled Compile(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
                 CompilerNumbers& numbers, const std::vector<L7Service>& services = {});

// The authorization policies that apply to a workload, by key.
struct Applicable {
  std::vector<const model::Authorization*> policies;
  std::string unknown_reference;  // a policy that the workload names and nobody knows: deny
};
Applicable ApplicableTo(const model::Snapshot& snapshot, const model::Workload& workload);
// What is named where the default denies: the ALLOW policies, none of which matched.
std::string DefaultText(const Applicable& applicable);

// Port ranges as prefixes: the fewest (prefix, length) that cover first..last.
struct PortPrefix {
  uint16_t port = 0;
  uint8_t length = 0;
  bool operator==(const PortPrefix&) const = default;
};
std::vector<PortPrefix> PrefixesOf(uint16_t first, uint16_t last);

}  // namespace weft::rules
