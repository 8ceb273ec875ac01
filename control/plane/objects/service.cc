// SPDX-License-Identifier: Apache-2.0
// Services and their EndpointSlices.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

using App = model::Service::Port::App;

struct AppName {
  std::string_view name;
  App app;
};
// appProtocol, or the part of the port's name before its first '-' (the rule Istio's users know).
constexpr AppName kAppNames[] = {
    {"http", App::kHttp1}, {"http2", App::kHttp2},
    {"h2c", App::kHttp2},  {"kubernetes.io/h2c", App::kHttp2},
    {"grpc", App::kGrpc},  {"tcp", App::kTcp},
    {"redis", App::kTcp},  {"mysql", App::kTcp},
    {"mongo", App::kTcp},  {"postgres", App::kTcp},
    {"tls", App::kTls},    {"https", App::kTls},
};

App AppOf(std::string_view name) {
  for (const AppName& known : kAppNames) {
    if (name == known.name) return known.app;
  }
  return App::kUnknown;
}

void ReadTargetPort(Fields& port, Service::Port* out) {
  const Yaml* node = port.Find("targetPort");
  out->target_port = out->port;
  if (node == nullptr) return;
  if (node->kind == Yaml::Kind::kScalar) {
    if (const auto number = ParseInteger(node->scalar, 1, 65535); number.has_value()) {
      out->target_port = static_cast<uint16_t>(*number);
      return;
    }
    if (IsObjectName(node->scalar) &&
        node->scalar.find_first_not_of("0123456789") != std::string::npos) {
      out->target_name = node->scalar;
      out->target_port = 0;
      return;
    }
  }
  port.AddProblem(*node, port.PathOf("targetPort") +
                             ": expected a port number or the name of a container's port");
}

// False: not TCP, the mesh leaves it alone.
bool ReadPort(Fields& port, Service::Port* out) {
  out->origin = port.origin();
  out->name = port.Text("name");
  const auto number = port.Integer("port", 1, 65535);
  if (!number.has_value() && port.Find("port") == nullptr)
    port.AddProblem(port.PathOf("port") + ": missing");
  out->port = static_cast<uint16_t>(number.value_or(0));
  ReadTargetPort(port, out);
  const std::string app_protocol = port.Text("appProtocol");
  out->app = AppOf(app_protocol.empty() ? std::string_view(out->name).substr(0, out->name.find('-'))
                                        : app_protocol);
  const std::string protocol = port.Text("protocol");
  if (!protocol.empty() && protocol != "TCP" && protocol != "UDP") {
    port.AddProblem(
        absl::StrCat(port.PathOf("protocol"), ": expected TCP or UDP, found \"", protocol, "\""));
  }
  port.Ignore({"nodePort"});
  port.Done();
  return protocol != "UDP";
}

void ReadPorts(Fields& spec, Service* service) {
  const std::vector<const Yaml*> items = spec.List("ports");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields fields(*items[i], spec.file(), spec.PathOf("ports", i), spec.problems());
    Service::Port port;
    if (!ReadPort(fields, &port)) continue;
    for (const Service::Port& other : service->ports) {
      if (other.port != port.port) continue;
      fields.AddProblem(absl::StrCat(fields.PathOf("port"), ": ", port.port, " is given twice"));
    }
    service->ports.push_back(std::move(port));
  }
}

void ReadAddresses(Fields& spec, Service* service) {
  std::vector<LocatedText> texts = spec.Texts("clusterIPs");
  if (const Yaml* single = spec.Find("clusterIP"); single != nullptr) {
    texts.insert(texts.begin(), {spec.Text("clusterIP"), spec.OriginOf(*single)});
  }
  for (const LocatedText& text : texts) {
    if (text.value == "None" || text.value.empty()) continue;
    const auto address = ParseAddress(spec, text, spec.PathOf("clusterIP"));
    if (!address.has_value()) continue;
    bool known = false;
    for (const IpAddress& other : service->addresses) known |= other == *address;
    if (!known) service->addresses.push_back(*address);
  }
}

void CheckProtocol(Fields& spec, const Service& service) {
  if (service.traffic.protocol == DeclaredProtocol::kNone) return;
  for (const Service::Port& port : service.ports) {
    const bool says_tcp = port.app == App::kTcp || port.app == App::kTls;
    const bool says_http =
        port.app == App::kHttp1 || port.app == App::kHttp2 || port.app == App::kGrpc;
    const bool wants_http = service.traffic.protocol == DeclaredProtocol::kHttp;
    if (!(wants_http ? says_tcp : says_http)) continue;
    spec.problems()->push_back(
        {port.origin,
         absl::StrCat("port ", port.port, " (", port.name, ") declares ", says_tcp ? "TCP" : "HTTP",
                      ", but weft.dev/protocol says ", wants_http ? "http" : "tcp"),
         ""});
  }
}

constexpr int64_t kDefaultAffinity = 10800;  // Kubernetes'
constexpr int64_t kMaxAffinity = 86400;

// What sessionAffinityConfig says; nullopt: nothing.
std::optional<int64_t> ReadAffinityTimeout(Fields& spec) {
  const Yaml* node = spec.Find("sessionAffinityConfig");
  if (node == nullptr) return std::nullopt;
  Fields config(*node, spec.file(), spec.PathOf("sessionAffinityConfig"), spec.problems());
  std::optional<int64_t> timeout;
  if (const Yaml* client = config.Find("clientIP"); client != nullptr) {
    Fields fields(*client, spec.file(), config.PathOf("clientIP"), spec.problems());
    timeout = fields.Integer("timeoutSeconds", 1, kMaxAffinity);
    fields.Done();
  }
  config.Done();
  return timeout;
}

void ReadAffinity(Fields& spec, Service* service) {
  const std::string affinity = spec.Text("sessionAffinity");
  const std::optional<int64_t> timeout = ReadAffinityTimeout(spec);
  if (affinity == "ClientIP") {
    service->affinity_s = static_cast<uint32_t>(timeout.value_or(kDefaultAffinity));
  } else if (!affinity.empty() && affinity != "None") {
    spec.AddProblem("spec.sessionAffinity: expected ClientIP or None, found \"" + affinity + "\"");
  } else if (timeout) {
    spec.AddProblem("spec.sessionAffinityConfig: needs sessionAffinity: ClientIP");
  }
}

void ReadDistribution(Fields& spec, Service* service) {
  const std::string text = spec.Text("trafficDistribution");
  if (text.empty()) return;
  service->prefers_same_node = text == "PreferSameNode";
  service->prefers_same_zone =
      text == "PreferClose" || text == "PreferSameZone" || text == "PreferSameNode";
  if (service->prefers_same_zone) return;
  spec.AddProblem(
      "spec.trafficDistribution: expected PreferSameNode, PreferSameZone or PreferClose, "
      "found \"" +
      text + "\"");
}

}  // namespace

Service ParseService(Fields& fields, Meta meta, const LocatedMap& annotations) {
  Service service{.meta = std::move(meta)};
  service.traffic = ParseTrafficOptions(annotations, fields.problems());
  if (service.meta.name.size() > 63 || service.meta.name.find('.') != std::string::npos) {
    fields.AddProblem("metadata.name: a Service's name is at most 63 characters without '.'");
  }
  fields.Ignore({"status"});
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return service;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  const std::string type = spec.Text("type");
  if (!type.empty() && type != "ClusterIP" && type != "NodePort" && type != "LoadBalancer") {
    spec.AddProblem(absl::StrCat("spec.type: \"", type, "\" is not supported, only ClusterIP"));
  }
  ReadAddresses(spec, &service);
  ReadPorts(spec, &service);
  service.selector = Values(spec.TextMap("selector"));
  ReadAffinity(spec, &service);
  ReadDistribution(spec, &service);
  const std::string internal = spec.Text("internalTrafficPolicy");
  if (!internal.empty() && internal != "Cluster") {
    spec.AddProblem("spec.internalTrafficPolicy: \"" + internal +
                    "\" is not supported yet, only Cluster");
  }
  spec.Refuse({"externalName", "publishNotReadyAddresses"}, "not supported yet");
  spec.Ignore({"allocateLoadBalancerNodePorts", "externalIPs", "externalTrafficPolicy",
               "healthCheckNodePort", "ipFamilies", "ipFamilyPolicy", "loadBalancerClass",
               "loadBalancerIP", "loadBalancerSourceRanges"});
  spec.Done();
  CheckProtocol(spec, service);
  return service;
}

namespace {

// Whose clients the endpoint is meant for: its own zone if that is among them, else the first.
void ReadHints(Fields& fields, EndpointSlice::Endpoint* endpoint) {
  const Yaml* node = fields.Find("hints");
  if (node == nullptr) return;
  Fields hints(*node, fields.file(), fields.PathOf("hints"), fields.problems());
  std::vector<std::string> zones;
  const std::vector<const Yaml*> items = hints.List("forZones");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields zone(*items[i], fields.file(), hints.PathOf("forZones", i), fields.problems());
    zones.push_back(zone.RequiredText("name"));
    zone.Done();
  }
  hints.Ignore({"forNodes"});  // who is on which node is known
  hints.Done();
  if (zones.empty() || std::find(zones.begin(), zones.end(), endpoint->zone) != zones.end()) return;
  endpoint->zone = zones.front();
}

EndpointSlice::Endpoint ReadEndpoint(Fields& fields) {
  EndpointSlice::Endpoint endpoint;
  for (const LocatedText& text : fields.Texts("addresses")) {
    const auto address = ParseAddress(fields, text, fields.PathOf("addresses"));
    if (address.has_value()) endpoint.addresses.push_back(*address);
  }
  if (endpoint.addresses.empty())
    fields.AddProblem(fields.PathOf("addresses") + ": missing or empty");
  if (const Yaml* node = fields.Find("conditions"); node != nullptr) {
    Fields conditions(*node, fields.file(), fields.PathOf("conditions"), fields.problems());
    endpoint.ready = conditions.Boolean("ready").value_or(true);
    endpoint.serving = conditions.Boolean("serving").value_or(endpoint.ready);
    endpoint.terminating = conditions.Boolean("terminating").value_or(false);
    conditions.Done();
  }
  endpoint.zone = fields.Text("zone");
  endpoint.node = fields.Text("nodeName");
  ReadHints(fields, &endpoint);
  fields.Ignore({"hostname", "targetRef", "deprecatedTopology"});
  fields.Done();
  return endpoint;
}

}  // namespace

EndpointSlice ParseEndpointSlice(Fields& fields, Meta meta) {
  EndpointSlice slice{.meta = std::move(meta)};
  const auto label = slice.meta.labels.find("kubernetes.io/service-name");
  if (label == slice.meta.labels.end() || label->second.empty()) {
    fields.AddProblem(
        "metadata.labels: kubernetes.io/service-name is missing: whose endpoints are these?");
  } else {
    slice.service = label->second;
  }
  const std::string type = fields.RequiredText("addressType");
  if (!type.empty() && type != "IPv4" && type != "IPv6") {
    fields.AddProblem(
        absl::StrCat("addressType: \"", type, "\" is not supported, only IPv4 and IPv6"));
  }
  const std::vector<const Yaml*> endpoints = fields.List("endpoints");
  for (size_t i = 0; i < endpoints.size(); ++i) {
    Fields endpoint(*endpoints[i], fields.file(), fields.PathOf("endpoints", i), fields.problems());
    slice.endpoints.push_back(ReadEndpoint(endpoint));
  }
  const std::vector<const Yaml*> ports = fields.List("ports");
  for (size_t i = 0; i < ports.size(); ++i) {
    Fields port(*ports[i], fields.file(), fields.PathOf("ports", i), fields.problems());
    const std::string name = port.Text("name");
    const auto number = port.Integer("port", 1, 65535);
    if (!number.has_value()) port.AddProblem(port.PathOf("port") + ": a port number is needed");
    const std::string protocol = port.Text("protocol");
    port.Ignore({"appProtocol"});
    port.Done();
    if (protocol.empty() || protocol == "TCP")
      slice.ports[name] = static_cast<uint16_t>(number.value_or(0));
  }
  return slice;
}

}  // namespace weft::plane
