// SPDX-License-Identifier: Apache-2.0
// Who is where (Istio's workload API) and who may talk to whom on L4 (Istio's authorization API),
// decoded.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "xds/model/cluster.h"

namespace weft::model {

struct Workload {
  std::string uid;  // cluster/group/kind/namespace/name
  std::string name, namespace_name, service_account, trust_domain, node, cluster_id, network;
  std::string canonical_name, canonical_revision, workload_name;
  std::vector<IpAddress> addresses;
  bool hbone = false;  // tunnel_protocol HBONE: reached at pod:15008
  bool healthy = true;
  bool host_network = false;
  Locality locality;
  uint32_t capacity = 1;                            // weight among the endpoints of a service
  std::vector<std::string> authorization_policies;  // selector-based only: namespace/name
  struct ServicePort {
    uint16_t service_port, target_port;
    bool operator==(const ServicePort&) const = default;
  };
  std::map<std::string, std::vector<ServicePort>> services;  // "namespace/hostname" -> ports

  // spiffe://TD/ns/NS/sa/SA
  std::string Identity() const;
  bool operator==(const Workload&) const = default;
};

struct Service {
  std::string name, namespace_name, hostname;
  std::vector<IpAddress> addresses;
  struct Port {
    uint16_t service_port, target_port;
    enum class App : uint8_t { kUnknown, kHttp1, kHttp2, kGrpc, kTcp, kTls } app = App::kUnknown;
    bool operator==(const Port&) const = default;
  };
  std::vector<Port> ports;
  std::vector<std::string> subject_alt_names;
  // Endpoints of the client's node, then of its zone, get its connections as long as there are any.
  bool prefers_same_node = false, prefers_same_zone = false;
  uint32_t affinity_s = 0;  // a client workload keeps its endpoint for so long; 0: it does not
  // "namespace/hostname"
  std::string Key() const { return namespace_name + "/" + hostname; }
  bool operator==(const Service&) const = default;
};

// Istio's L4 Authorization. Rules OR'd in groups AND'd ... see Evaluate() in authorization.h.
struct Authorization {
  struct Text {
    enum class Kind : uint8_t { kExact, kPrefix, kSuffix, kPresence } kind = Kind::kExact;
    std::string value;
    bool operator==(const Text&) const = default;
  };
  struct Prefix {
    IpAddress address;
    uint32_t length = 0;  // in the address's own family
    bool operator==(const Prefix&) const = default;
  };
  struct ServiceAccount {
    std::string namespace_name, name;
    bool operator==(const ServiceAccount&) const = default;
  };
  struct Match {
    std::vector<Text> namespaces, not_namespaces, principals, not_principals;
    std::vector<ServiceAccount> service_accounts, not_service_accounts;
    std::vector<Prefix> source_ips, not_source_ips, destination_ips, not_destination_ips;
    std::vector<uint32_t> destination_ports, not_destination_ports;
    bool operator==(const Match&) const = default;
  };
  enum class Scope : uint8_t { kGlobal, kNamespace, kWorkload } scope = Scope::kGlobal;
  enum class Action : uint8_t { kAllow, kDeny } action = Action::kAllow;
  bool dry_run = false;
  std::string name, namespace_name;
  // OR of groups; a group is an AND of rules; a rule is an OR of matches; fields of a match are
  // AND'd, values OR'd.
  std::vector<std::vector<std::vector<Match>>> groups;
  std::string Key() const { return namespace_name + "/" + name; }
  bool operator==(const Authorization&) const = default;
};

// From weft-agent (xds/wire/node.proto).
struct LocalWorkload {
  std::string uid;
  uint32_t id = 0;
  uint32_t generation = 0;
  std::string identity;
  std::vector<IpAddress> addresses;
  std::string namespace_name, name, tenant;
  // Differs: the kernel's network policy of the workload has changed. 0: the kernel has none.
  uint64_t policy_epoch = 0;
  std::vector<IpAddress> resolvers;  // its programs', in their order; what they ask comes to us
  bool operator==(const LocalWorkload&) const = default;
};

struct Certificate {
  std::string identity;
  uint64_t key_id = 0;
  std::vector<std::string> chain;         // DER, leaf first
  int64_t not_before = 0, not_after = 0;  // seconds since the epoch
  bool operator==(const Certificate&) const = default;
};

struct TrustBundle {
  std::string trust_domain;
  std::vector<std::string> roots;  // DER
  bool operator==(const TrustBundle&) const = default;
};

}  // namespace weft::model
