// SPDX-License-Identifier: Apache-2.0
// The objects that manifests declare, typed and validated one by one; what they say about each
// other is checked later (manifest_set.h, translate.h). Kubernetes' shapes and names, so that the
// Kubernetes API can feed the same types. Plain values.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "control/plane/annotations.h"
#include "control/plane/problem.h"
#include "control/plane/selectors.h"
#include "proxy/base/address.h"
#include "xds/model/network_policy.h"
#include "xds/model/route.h"
#include "xds/model/workload.h"

namespace weft::plane {

struct Meta {
  std::string name;
  std::string namespace_name;  // empty for a Namespace
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  Origin origin;  // of the object
};

struct Namespace {
  Meta meta;
};

struct ServiceAccount {
  Meta meta;
};

// A Pod, or an entry of a WorkloadList.
struct Workload {
  Meta meta;
  bool is_pod = false;
  std::string service_account = "default";
  std::string node;                  // empty: not placed yet
  std::vector<IpAddress> addresses;  // empty: not known yet
  std::string netns;                 // a path for the agent; not sent anywhere
  bool host_network = false;
  bool ready = true;
  bool finished = false;  // a Pod that succeeded or failed: no endpoint any more
  std::map<std::string, uint16_t> named_ports;  // TCP only: what Services refer to
  struct ContainerPort {
    std::string name;
    model::NetworkPolicy::Protocol protocol = model::NetworkPolicy::Protocol::kTcp;
    uint16_t port = 0;
  };
  std::vector<ContainerPort> container_ports;  // all named ones: what policies refer to
};

struct Service {
  Meta meta;
  std::vector<IpAddress> addresses;  // empty: headless
  struct Port {
    std::string name;
    uint16_t port = 0;
    std::string target_name;  // named targetPort; else empty
    uint16_t target_port = 0;
    model::Service::Port::App app = model::Service::Port::App::kUnknown;
    Origin origin;
  };
  std::vector<Port> ports;  // TCP only
  std::map<std::string, std::string> selector;
  uint32_t affinity_s = 0;  // sessionAffinity: ClientIP and its timeout; 0: None
  bool prefers_same_node = false, prefers_same_zone = false;  // trafficDistribution
  TrafficOptions traffic;
};

struct EndpointSlice {
  Meta meta;
  std::string service;  // label kubernetes.io/service-name
  struct Endpoint {
    std::vector<IpAddress> addresses;
    bool ready = true;
    bool serving = true;
    bool terminating = false;
    std::string zone, node;
  };
  std::vector<Endpoint> endpoints;
  std::map<std::string, uint16_t> ports;  // by name, "" for the unnamed one; TCP only
};

struct HttpRoute {
  Meta meta;
  struct Parent {
    std::string service;
    std::optional<uint16_t> port;  // none: every port
    std::string section;           // port name; empty: not given
    Origin origin;
  };
  struct Match {
    model::PathMatch
        path;  // kSeparatedPrefix for PathPrefix, value without a trailing slash; "/" as kPrefix
    std::string method;
    std::vector<model::HeaderMatch> headers;
    std::vector<model::QueryMatch> query;
  };
  struct PathRewrite {
    bool whole = false;  // ReplaceFullPath; else ReplacePrefixMatch
    std::string value;
  };
  struct Redirect {
    int status = 302;
    std::string scheme, host;
    std::optional<uint16_t> port;
    std::optional<PathRewrite> path;
  };
  struct Backend {
    std::string service;
    uint16_t port = 0;
    uint32_t weight = 1;
    std::vector<model::HeaderChange> request_headers, response_headers;
    Origin origin;
  };
  struct Retry {
    std::vector<uint32_t> codes;
    std::optional<uint32_t> attempts;
    std::optional<model::Milliseconds> backoff;
  };
  struct Rule {
    std::string name;
    std::vector<Match> matches;  // at least one
    std::vector<model::HeaderChange> request_headers, response_headers;
    std::optional<Redirect> redirect;
    std::optional<std::string> host_rewrite;
    std::optional<PathRewrite> path_rewrite;
    std::vector<Backend> backends;
    std::optional<model::Milliseconds> timeout, try_timeout;
    std::optional<Retry> retry;
    Origin origin;
  };
  std::vector<Parent> parents;
  std::vector<Rule> rules;
};

struct AuthorizationPolicy {
  Meta meta;
  std::map<std::string, std::string> selector;  // empty: the whole namespace
  model::Authorization::Action action = model::Authorization::Action::kAllow;
  bool dry_run = false;
  struct Rule {
    // Empty: no such clause, anything matches. Fields of a Match that the clause does not name are
    // empty.
    std::vector<model::Authorization::Match> from, to;
    std::vector<model::Authorization::Match> when;  // each must hold
  };
  std::vector<Rule> rules;
};

struct PeerAuthentication {
  Meta meta;
  std::map<std::string, std::string>
      selector;  // empty: namespace, or the mesh in the root namespace
  bool strict = false;
};

// Whom a rule of a policy means: pods, a block, or (ProcessPolicy) identities.
struct PolicyPeer {
  std::optional<LabelSelector> pods;        // none, but namespaces: all pods of those
  std::optional<LabelSelector> namespaces;  // none, but pods: those of the policy's namespace
  std::optional<model::NetworkPolicy::Block> block;
  std::vector<std::string> identities;  // SPIFFE ids
};

struct PolicyPort {
  model::NetworkPolicy::Port port;  // of a named one the protocol alone counts
  std::string name;                 // empty: by number
};

struct NetworkPolicy {
  Meta meta;
  LabelSelector pods;
  bool isolates_ingress = false, isolates_egress = false;
  struct Rule {
    std::vector<PolicyPeer> peers;  // empty: everybody
    std::vector<PolicyPort> ports;  // empty: everything
  };
  std::vector<Rule> ingress, egress;
};

struct ProcessPolicy {
  Meta meta;
  LabelSelector pods;
  bool enforce = true;
  struct Rule {  // lists: empty means any
    std::string name;
    std::vector<std::string> binaries, not_binaries, arguments;
    bool connects = false;
    std::vector<PolicyPeer> to;
    std::vector<PolicyPort> ports;
    model::ProcessPolicy::Action action = model::ProcessPolicy::Action::kLog;
  };
  std::vector<Rule> rules;
};

using Object = std::variant<Namespace, ServiceAccount, Workload, Service, EndpointSlice, HttpRoute,
                            AuthorizationPolicy, PeerAuthentication, NetworkPolicy, ProcessPolicy>;

enum class ObjectKind : uint8_t {  // the order of the status page
  kNamespace,
  kServiceAccount,
  kWorkload,
  kPod,
  kService,
  kEndpointSlice,
  kHttpRoute,
  kAuthorizationPolicy,
  kPeerAuthentication,
  kNetworkPolicy,
  kProcessPolicy,
};
const char* KindName(ObjectKind kind);

struct ObjectKey {
  ObjectKind kind;
  std::string namespace_name, name;
  auto operator<=>(const ObjectKey&) const = default;
  // "HTTPRoute demo/web", "Namespace demo".
  std::string ToString() const;
};

const Meta& MetaOf(const Object& object);
// True if every pair of `selector` is among `labels`. An empty selector selects nothing here.
bool Selects(const std::map<std::string, std::string>& selector,
             const std::map<std::string, std::string>& labels);

}  // namespace weft::plane
