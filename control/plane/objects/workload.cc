// SPDX-License-Identifier: Apache-2.0
// Pods, and workloads outside Kubernetes.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

void AddAddress(Fields& fields, const LocatedText& text, std::string_view path,
                Workload* workload) {
  const auto address = ParseAddress(fields, text, path);
  if (!address.has_value()) return;
  for (const IpAddress& known : workload->addresses) {
    if (known == *address) return;
  }
  workload->addresses.push_back(*address);
}

void ReadAccount(Fields& fields, std::string_view name, Workload* workload) {
  const std::string account = fields.Text(name);
  if (account.empty()) return;
  if (!IsObjectName(account)) {
    fields.AddProblem(absl::StrCat(fields.PathOf(name), ": \"", account, "\" is no object name"));
  }
  workload->service_account = account;
}

void ReadNode(Fields& fields, std::string_view name, Workload* workload) {
  workload->node = fields.Text(name);
  if (workload->node.empty() || IsObjectName(workload->node)) return;
  fields.AddProblem(
      absl::StrCat(fields.PathOf(name), ": \"", workload->node, "\" is no object name"));
}

std::optional<model::NetworkPolicy::Protocol> ProtocolOf(std::string_view text) {
  using Protocol = model::NetworkPolicy::Protocol;
  if (text.empty() || text == "TCP") return Protocol::kTcp;
  if (text == "UDP") return Protocol::kUdp;
  if (text == "SCTP") return Protocol::kSctp;
  return std::nullopt;
}

void AddNamedPort(const std::string& name, model::NetworkPolicy::Protocol protocol, uint16_t port,
                  Workload* workload) {
  if (protocol == model::NetworkPolicy::Protocol::kTcp) workload->named_ports[name] = port;
  workload->container_ports.push_back({name, protocol, port});
}

// Only the names of ports: what a Service's named targetPort and policies refer to.
void ReadContainerPorts(const Fields& fields, const Yaml& container, Workload* workload) {
  const Yaml* ports = container.Find("ports");
  if (ports == nullptr || ports->kind != Yaml::Kind::kList) return;
  for (const Yaml& item : ports->items) {
    Fields port(item, fields.file(), "spec.containers[].ports[]", fields.problems());
    const std::string name = port.Text("name");
    const auto number = port.Integer("containerPort", 1, 65535);
    const std::string protocol = port.Text("protocol");
    port.Ignore({"hostPort", "hostIP"});
    port.Done();
    const auto known = ProtocolOf(protocol);
    if (!known.has_value()) {
      port.AddProblem(absl::StrCat(port.PathOf("protocol"), ": expected TCP, UDP or SCTP, found \"",
                                   protocol, "\""));
    } else if (!name.empty() && number.has_value()) {
      AddNamedPort(name, *known, static_cast<uint16_t>(*number), workload);
    }
  }
}

void ReadPodSpec(Fields& fields, Workload* workload) {
  const Yaml* node = fields.Find("spec");
  if (node == nullptr) return;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  ReadNode(spec, "nodeName", workload);
  ReadAccount(spec, "serviceAccountName", workload);
  workload->host_network = spec.Boolean("hostNetwork").value_or(false);
  for (const Yaml* container : spec.List("containers"))
    ReadContainerPorts(spec, *container, workload);
  // How the pod runs, which is not the mesh's business.
  spec.Ignore({"activeDeadlineSeconds",
               "affinity",
               "automountServiceAccountToken",
               "dnsConfig",
               "dnsPolicy",
               "enableServiceLinks",
               "ephemeralContainers",
               "hostAliases",
               "hostIPC",
               "hostPID",
               "hostUsers",
               "hostname",
               "imagePullSecrets",
               "initContainers",
               "nodeSelector",
               "os",
               "overhead",
               "preemptionPolicy",
               "priority",
               "priorityClassName",
               "readinessGates",
               "resourceClaims",
               "resources",
               "restartPolicy",
               "runtimeClassName",
               "schedulerName",
               "schedulingGates",
               "securityContext",
               "serviceAccount",
               "setHostnameAsFQDN",
               "shareProcessNamespace",
               "subdomain",
               "terminationGracePeriodSeconds",
               "tolerations",
               "topologySpreadConstraints",
               "volumes"});
  spec.Done();
}

void ReadPodConditions(Fields& status, Workload* workload) {
  for (const Yaml* item : status.List("conditions")) {
    Fields condition(*item, status.file(), "status.conditions[]", status.problems());
    if (condition.Text("type") == "Ready") workload->ready = condition.Text("status") == "True";
    condition.Ignore({"status", "lastProbeTime", "lastTransitionTime", "message",
                      "observedGeneration", "reason"});
    condition.Done();
  }
}

void ReadPodStatus(Fields& fields, Workload* workload) {
  const Yaml* node = fields.Find("status");
  if (node == nullptr) return;
  Fields status(*node, fields.file(), "status", fields.problems());
  const LocatedText pod_ip{status.Text("podIP"), status.origin()};
  if (!pod_ip.value.empty()) AddAddress(fields, pod_ip, "status.podIP", workload);
  for (const Yaml* item : status.List("podIPs")) {
    Fields entry(*item, fields.file(), "status.podIPs[]", fields.problems());
    const LocatedText ip{entry.RequiredText("ip"), entry.origin()};
    if (!ip.value.empty()) AddAddress(fields, ip, "status.podIPs[].ip", workload);
    entry.Done();
  }
  const std::string phase = status.Text("phase");
  workload->finished = phase == "Succeeded" || phase == "Failed";
  ReadPodConditions(status, workload);
  status.Ignore({"containerStatuses", "ephemeralContainerStatuses", "hostIP", "hostIPs",
                 "initContainerStatuses", "message", "nominatedNodeName", "observedGeneration",
                 "qosClass", "reason", "resize", "resourceClaimStatuses", "startTime"});
  status.Done();
}

void ReadWorkloadFields(Fields& fields, Workload* workload) {
  ReadAccount(fields, "serviceAccount", workload);
  ReadNode(fields, "node", workload);
  for (const LocatedText& text : fields.Texts("addresses")) {
    AddAddress(fields, text, fields.PathOf("addresses"), workload);
  }
  if (workload->addresses.empty())
    fields.AddProblem(fields.PathOf("addresses") + ": missing or empty");
  workload->netns = fields.Text("netns");
  if (!workload->netns.empty() && workload->netns.front() != '/') {
    fields.AddProblem(fields.PathOf("netns") + ": expected an absolute path");
  }
  workload->ready = fields.Boolean("ready").value_or(true);
  const auto ports = fields.TextMap("ports");
  for (const auto& [name, number] : ports) {
    // "8080" or "53/UDP".
    const std::string_view text = number.value;
    const size_t slash = std::min(text.find('/'), text.size());
    const auto value = ParseInteger(text.substr(0, slash), 1, 65535);
    const auto protocol = slash == text.size()       ? ProtocolOf("TCP")
                          : slash + 1 == text.size() ? std::nullopt
                                                     : ProtocolOf(text.substr(slash + 1));
    if (value.has_value() && protocol.has_value()) {
      AddNamedPort(name, *protocol, static_cast<uint16_t>(*value), workload);
    } else {
      fields.problems()->push_back(
          {number.at,
           absl::StrCat(fields.PathOf("ports"), ".", name, ": expected a port number, found \"",
                        number.value, "\""),
           ""});
    }
  }
}

}  // namespace

Workload ParsePod(Fields& fields, Meta meta) {
  Workload workload{.meta = std::move(meta), .is_pod = true};
  ReadPodSpec(fields, &workload);
  ReadPodStatus(fields, &workload);
  return workload;
}

Workload ParseWorkloadEntry(Fields& fields, Meta meta) {
  Workload workload{.meta = std::move(meta)};
  ReadWorkloadFields(fields, &workload);
  return workload;
}

Workload ParseWorkload(Fields& fields, Meta meta) {
  Workload workload{.meta = std::move(meta)};
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return workload;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  ReadWorkloadFields(spec, &workload);
  spec.Done();
  return workload;
}

}  // namespace weft::plane
