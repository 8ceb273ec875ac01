// SPDX-License-Identifier: Apache-2.0
#include "control/agent/why.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bpf/verdict.h"
#include "control/agent/agent.h"
#include "control/agent/kernel_writer.h"
#include "control/bpf/address.h"
#include "control/policy/compile.h"
#include "proxy/base/reason.h"
#include "xds/model/authorization.h"

namespace weft::agent {
namespace {

using nlohmann::json;

constexpr size_t kMaxEndpoints = 16;  // of a service that are shown

// One end of the question.
struct End {
  std::string name;
  IpAddress ip;
  const model::Workload* known = nullptr;
  const KernelPeer* peer = nullptr;         // what the kernel knows of the address
  const KernelWorkload* local = nullptr;    // of this node
  const model::Service* service = nullptr;  // asked for by its name or VIP
  const KernelService* kernel_service = nullptr;
};

absl::StatusOr<uint8_t> ProtocolOf(const std::string& name) {
  if (name == "tcp") return uint8_t{WEFT_PROTOCOL_TCP};
  if (name == "udp") return uint8_t{WEFT_PROTOCOL_UDP};
  if (name == "sctp") return uint8_t{WEFT_PROTOCOL_SCTP};
  if (name == "icmp" || name == "other") return uint8_t{WEFT_PROTOCOL_OTHER};
  return absl::InvalidArgumentError("protocol: tcp, udp, sctp or icmp, not \"" + name + "\"");
}

class Explainer {
 public:
  Explainer(const WhyRequest& request, const WhySources& sources, uint8_t protocol)
      : request_(request), sources_(sources), protocol_(protocol) {}

  absl::StatusOr<json> Run() {
    WEFT_ASSIGN_OR_RETURN(const End source, Find(request_.source));
    WEFT_ASSIGN_OR_RETURN(const End destination, Find(request_.destination));
    json out = {{"port", request_.port}, {"protocol", request_.protocol}};
    if (destination.service != nullptr) return OfService(source, destination, std::move(out));
    if (source.local == nullptr && destination.local == nullptr) {
      return absl::NotFoundError("neither " + request_.source + " nor " + request_.destination +
                                 " is a workload of this node");
    }
    out.update(OfPair(source, destination, request_.port, nullptr, destination.ip));
    return out;
  }

 private:
  absl::StatusOr<End> Find(const std::string& name) const;
  End At(const IpAddress& ip) const;
  json Describe(const End& end) const;
  absl::StatusOr<json> OfService(const End& source, const End& destination, json out) const;
  json OfPair(const End& source, const End& destination, uint16_t port, const End* service,
              const IpAddress& asked) const;
  json Layers(const End& source, const End& destination, uint16_t port, bool* allowed) const;
  json ByTheProxy(const End& source, const End& destination, uint16_t port, bool* allowed) const;
  json Way(const End& source, const End& destination, uint16_t port, const End* service,
           const IpAddress& asked) const;
  std::string RuleName(uint32_t rule) const {
    return std::string(sources_.numbers.rules.NameOf(rule));
  }

  const WhyRequest& request_;
  const WhySources& sources_;
  const uint8_t protocol_;
};

End Explainer::At(const IpAddress& ip) const {
  End end{.name = ip.ToString(), .ip = ip};
  end.known = sources_.snapshot.FindWorkload(ip);
  if (end.known != nullptr) end.name = end.known->namespace_name + "/" + end.known->name;
  auto peer = sources_.written.peers.find(ip);
  if (peer == sources_.written.peers.end()) return end;
  end.peer = &peer->second;
  auto local = sources_.written.workloads.find(peer->second.netns_cookie);
  if (local != sources_.written.workloads.end()) end.local = &local->second;
  return end;
}

absl::StatusOr<End> Explainer::Find(const std::string& name) const {
  const auto vip = IpAddress::Parse(name);
  for (const auto& [key, service] : sources_.snapshot.services) {
    const bool named = key == name || service->namespace_name + "/" + service->name == name;
    if (!named && !(vip && std::ranges::count(service->addresses, *vip) > 0)) continue;
    End end{.name = key, .service = service.get()};
    if (!service->addresses.empty()) end.ip = service->addresses[0];
    for (const auto& [number, written] : sources_.written.services) {
      const SocketAddress at{end.ip, request_.port};
      if (std::ranges::count(written.vips, at) > 0) end.kernel_service = &written;
    }
    // A workload may have the same name; only a service has the port.
    if (end.kernel_service != nullptr) return end;
  }
  if (vip) return At(*vip);
  for (const auto& [uid, workload] : sources_.snapshot.workloads) {
    if (workload->namespace_name + "/" + workload->name == name && !workload->addresses.empty()) {
      return At(workload->addresses[0]);
    }
  }
  return absl::NotFoundError("there is no workload, and no service at port " +
                             std::to_string(request_.port) + ", called " + name);
}

json Explainer::Describe(const End& end) const {
  json out = {{"name", end.name}, {"address", end.ip.ToString()}, {"local", end.local != nullptr}};
  if (end.known != nullptr) out["identity"] = end.known->Identity();
  return out;
}

// Authorization of a connection that does not come directly: the proxy's, which has the identity
// that the peer proved.
json Explainer::ByTheProxy(const End& source, const End& destination, uint16_t port,
                           bool* allowed) const {
  json out = {{"layer", "authorization"}, {"asked_at", "proxy"}};
  const rules::Applicable applicable = rules::ApplicableTo(sources_.snapshot, *destination.known);
  const std::string identity = source.known != nullptr ? source.known->Identity() : "";
  const model::L4Decision decision = model::Evaluate(
      applicable.policies, applicable.unknown_reference,
      {.source_identity = identity, .source_ip = source.ip, .destination = {destination.ip, port}});
  out["active"] = !applicable.policies.empty() || !applicable.unknown_reference.empty();
  out["allowed"] = decision.allowed;
  out["by_default"] = decision.by_default;
  out["rule"] =
      decision.allowed || !decision.by_default ? decision.policy : rules::DefaultText(applicable);
  *allowed = *allowed && decision.allowed;
  return out;
}

json Explainer::Layers(const End& source, const End& destination, uint16_t port,
                       bool* allowed) const {
  static constexpr const char* kNames[] = {"egress", "ingress", "authorization"};
  const bpf::PolicyAnswer answer =
      sources_.ask({.source_subject = source.local != nullptr ? source.local->id : 0,
                    .destination_subject = destination.local != nullptr ? destination.local->id : 0,
                    .source = source.ip,
                    .destination = destination.ip,
                    .port = port,
                    .protocol = protocol_});
  json out = json::array();
  for (uint32_t i = 0; i < WEFT_LAYERS; ++i) {
    const bpf::LayerAnswer& layer = answer.layers[i];
    const bool at_proxy =
        i == WEFT_LAYER_AUTHORIZATION && destination.local != nullptr && layer.asked &&
        destination.known != nullptr &&
        (source.local == nullptr || (destination.local->flags & WEFT_WL_L7_INBOUND) != 0);
    if (at_proxy) {
      out.push_back(ByTheProxy(source, destination, port, allowed));
      continue;
    }
    json one = {{"layer", kNames[i]}};
    one["asked_at"] = layer.asked ? "kernel"
                      : protocol_ != WEFT_PROTOCOL_TCP && i == WEFT_LAYER_AUTHORIZATION
                          ? "nowhere: TCP only"
                      : i == WEFT_LAYER_EGRESS ? "the source's node"
                                               : "the destination's node";
    if (layer.asked) {
      one["active"] = layer.active;
      one["allowed"] = layer.allowed;
      one["by_default"] = layer.by_default;
      one["rule"] = RuleName(layer.rule);
      if (layer.audit != 0) one["audit"] = RuleName(layer.audit);
      *allowed = *allowed && layer.allowed;
    }
    out.push_back(std::move(one));
  }
  return out;
}

weft_workload ToKernelWorkload(const KernelWorkload& workload) {
  weft_workload out{.id = workload.id,
                    .generation = workload.generation,
                    .identity = workload.identity,
                    .flags = workload.flags};
  const bpf::WorkloadConfig config = ToConfig(workload);
  if (config.ipv4) memcpy(out.ipv4, config.ipv4->bytes.data(), sizeof out.ipv4);
  if (config.ipv6) memcpy(out.ipv6, config.ipv6->bytes.data(), sizeof out.ipv6);
  return out;
}

// The decision of connect.bpf.c, by its header.
json Explainer::Way(const End& source, const End& destination, uint16_t port, const End* service,
                    const IpAddress& asked) const {
  if (protocol_ != WEFT_PROTOCOL_TCP) return {{"way", "network"}, {"splice", false}};
  if (source.local == nullptr) return {{"way", "proxy"}, {"splice", false}};
  const weft_workload workload = ToKernelWorkload(*source.local);
  const uint16_t asked_port = service != nullptr ? request_.port : port;
  const weft_addr asked_at = bpf::ToKernel(SocketAddress{asked, asked_port});
  const weft_addr target = bpf::ToKernel(SocketAddress{destination.ip, port});
  weft_service kernel_service{};
  weft_peer peer{};
  weft_facts facts{.asked = &asked_at, .workload = &workload, .target = &target};
  if (service != nullptr) {
    kernel_service.flags = service->kernel_service->flags;
    facts.service = &kernel_service;
    facts.picked = 1;
  }
  if (destination.peer != nullptr) {
    peer.netns_cookie = destination.peer->netns_cookie;
    peer.workload = destination.peer->workload;
    peer.flags = destination.peer->flags;
    peer.wl_flags = destination.peer->workload_flags;
    facts.peer = &peer;
  }
  const weft_decision decision = weft_decide(&facts);
  static constexpr const char* kWays[] = {"pass",        "denied", "refused",
                                          "unreachable", "direct", "proxy"};
  return {{"way", kWays[decision.action]},
          {"reason", std::string(ReasonName(static_cast<Reason>(decision.reason)))},
          {"splice", decision.splice != 0}};
}

json Explainer::OfPair(const End& source, const End& destination, uint16_t port, const End* service,
                       const IpAddress& asked) const {
  bool allowed = true;
  json out = {{"source", Describe(source)}, {"destination", Describe(destination)}};
  out["destination"]["port"] = port;
  out["layers"] = Layers(source, destination, port, &allowed);
  out["allowed"] = allowed;
  out.update(Way(source, destination, port, service, asked));
  return out;
}

absl::StatusOr<json> Explainer::OfService(const End& source, const End& destination,
                                          json out) const {
  if (source.local == nullptr) {
    return absl::NotFoundError(request_.source + " is not a workload of this node");
  }
  out["service"] = destination.name;
  out["source"] = Describe(source);
  out["destination"] = Describe(destination);
  json endpoints = json::array();
  bool all = true;
  for (const bpf::ServiceBackend& backend : destination.kernel_service->backends) {
    if (endpoints.size() == kMaxEndpoints) break;
    const SocketAddress& at = backend.address;
    endpoints.push_back(OfPair(source, At(at.ip), at.port, &destination, destination.ip));
    all = all && endpoints.back()["allowed"].get<bool>();
  }
  out["allowed"] = all && !endpoints.empty();
  out["endpoints"] = std::move(endpoints);
  return out;
}

}  // namespace

absl::StatusOr<std::string> Why(const WhyRequest& request, const WhySources& sources) {
  WEFT_ASSIGN_OR_RETURN(const uint8_t protocol, ProtocolOf(request.protocol));
  WEFT_ASSIGN_OR_RETURN(const json out, Explainer(request, sources, protocol).Run());
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::string> Agent::ExplainWhy(const WhyRequest& request) {
  if (!snapshot_) return absl::UnavailableError("nothing was heard from the control plane yet");
  return Why(request, {*snapshot_, writer_->written(), numbers_,
                       [this](const bpf::PolicyQuestion& q) { return kernel_->AskPolicy(q); }});
}

}  // namespace weft::agent
