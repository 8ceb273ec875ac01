// SPDX-License-Identifier: Apache-2.0
// Kubernetes NetworkPolicy and Weft's ProcessPolicy as the agent gets them: selectors, namespaces
// and named ports are resolved by the control plane, so only workloads and blocks are left. Plain
// values shared by shared_ptr<const>; no thread.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/address.h"

namespace weft::model {

struct NetworkPolicy {
  struct Prefix {
    IpAddress address;
    uint32_t length = 0;  // in the address's own family
    bool operator==(const Prefix&) const = default;
  };
  struct Block {  // ipBlock
    Prefix cidr;
    std::vector<Prefix> except;
    bool operator==(const Block&) const = default;
  };
  enum class Protocol : uint8_t { kTcp, kUdp, kSctp };
  struct Port {
    Protocol protocol = Protocol::kTcp;
    uint16_t first = 0, last = 65535;  // inclusive
    bool operator==(const Port&) const = default;
  };
  // Allows if one of the peers and one of the ports match.
  struct Rule {
    uint32_t index = 0;     // position in the manifest's ingress or egress list, from 0
    bool any_peer = false;  // no `from` or `to`: everybody, also outside the mesh
    std::vector<std::string> workloads;  // uids
    std::vector<Block> blocks;
    bool any_port = false;  // no `ports`: every port of every protocol, ICMP too
    std::vector<Port> ports;
    bool operator==(const Rule&) const = default;
  };
  std::string name, namespace_name;
  std::vector<std::string> subjects;                       // uids it selects, sorted
  bool isolates_ingress = false, isolates_egress = false;  // policyTypes
  std::vector<Rule> ingress, egress;
  std::string Key() const { return namespace_name + "/" + name; }
  bool operator==(const NetworkPolicy&) const = default;
};

// Which program of a workload may do what. Every list: empty means any.
struct ProcessPolicy {
  enum class Action : uint8_t { kLog, kDeny, kKill };
  struct Rule {
    std::string name;
    std::vector<std::string> binaries;      // absolute paths as the workload's mount namespace sees
                                            // them; a trailing '*' matches a prefix
    std::vector<std::string> not_binaries;  // all but these
    std::vector<std::string> arguments;     // each must be one of the program's arguments
    // Connections: the rule is asked at connect(). All empty: the rule is asked at exec.
    std::vector<std::string> destinations;  // uids of workloads
    std::vector<std::string> identities;    // SPIFFE ids of destinations
    std::vector<NetworkPolicy::Block> blocks;
    std::vector<NetworkPolicy::Port> ports;
    bool connects = false;  // the manifest has a `connect` part, even an empty one
    Action action = Action::kLog;
    bool operator==(const Rule&) const = default;
  };
  std::string name, namespace_name;
  std::vector<std::string> subjects;  // uids it selects, sorted
  bool enforce = true;                // false: monitor; deny and kill only log
  std::vector<Rule> rules;            // the strongest action of all that match counts
  std::string Key() const { return namespace_name + "/" + name; }
  bool operator==(const ProcessPolicy&) const = default;
};

}  // namespace weft::model
