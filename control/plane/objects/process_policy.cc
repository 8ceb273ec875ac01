// SPDX-License-Identifier: Apache-2.0
// weft.dev/v1 ProcessPolicy: which program of a workload may run, and whom it may call
// (docs/manifests.md). What it means is in model::ProcessPolicy and translate_network_policy.cc.
#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"
#include "control/plane/objects/policy_parts.h"
#include "xds/model/authorization.h"

namespace weft::plane {
namespace {

// What the kernel compares (WEFT_PATH_BYTES, WEFT_ARGUMENT_BYTES in bpf/abi.h).
constexpr size_t kMaxPathBytes = 247;
constexpr size_t kMaxArgumentBytes = 126;

std::vector<std::string> ReadPaths(Fields& fields, std::string_view name) {
  std::vector<std::string> paths;
  for (const LocatedText& text : fields.Texts(name)) {
    const std::string& path = text.value;
    const char* why = nullptr;
    if (path.empty() || path.front() != '/') {
      why = "expected an absolute path";
    } else if (path.find('*') < path.size() - 1) {
      why = "'*' may be last only";
    } else if (path.size() > kMaxPathBytes) {
      why = "longer than 247 bytes, the most that the kernel compares";
    } else if (path.find('\0') != std::string::npos) {
      why = "no path";
    }
    if (why != nullptr) {
      fields.problems()->push_back(
          {text.at, absl::StrCat(fields.PathOf(name), ": \"", path, "\": ", why), ""});
    }
    paths.push_back(path);
  }
  return paths;
}

std::vector<std::string> ReadArguments(Fields& fields) {
  std::vector<std::string> arguments;
  for (const LocatedText& text : fields.Texts("arguments")) {
    if (text.value.size() > kMaxArgumentBytes) {
      fields.problems()->push_back(
          {text.at,
           absl::StrCat(fields.PathOf("arguments"),
                        ": longer than 126 bytes, the most that the kernel compares"),
           ""});
    }
    if (text.value.empty() || text.value.find('\0') != std::string::npos) {
      fields.problems()->push_back(
          {text.at, absl::StrCat(fields.PathOf("arguments"), ": empty, or no argument"), ""});
    }
    arguments.push_back(text.value);
  }
  return arguments;
}

PolicyPeer ReadDestination(Fields& fields) {
  PolicyPeer peer;
  const size_t before = fields.problems()->size();
  peer.pods = ParseLabelSelector(fields, "podSelector");
  peer.namespaces = ParseLabelSelector(fields, "namespaceSelector");
  peer.block = ParseIpBlock(fields, "ipBlock");
  for (const LocatedText& text : fields.Texts("identities")) {
    if (!model::ParseIdentity(text.value).has_value()) {
      fields.problems()->push_back({text.at,
                                    absl::StrCat(fields.PathOf("identities"), ": \"", text.value,
                                                 "\": expected spiffe://DOMAIN/ns/NAMESPACE/sa/"
                                                 "ACCOUNT"),
                                    ""});
    }
    peer.identities.push_back(text.value);
  }
  fields.Done();
  if (fields.problems()->size() != before) return peer;
  const int kinds = (peer.pods.has_value() || peer.namespaces.has_value() ? 1 : 0) +
                    (peer.block.has_value() ? 1 : 0) + (peer.identities.empty() ? 0 : 1);
  if (kinds != 1) {
    fields.AddProblem(fields.PathOf("podSelector") +
                      ": exactly one of selectors, identities and ipBlock is needed");
  }
  return peer;
}

void ReadConnect(Fields& rule, ProcessPolicy::Rule* out) {
  const Yaml* node = rule.Find("connect");
  if (node == nullptr) return;
  out->connects = true;
  Fields fields(*node, rule.file(), rule.PathOf("connect"), rule.problems());
  const std::vector<const Yaml*> items = fields.List("to");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields item(*items[i], rule.file(), fields.PathOf("to", i), rule.problems());
    out->to.push_back(ReadDestination(item));
  }
  out->ports = ParsePolicyPorts(fields, "ports");
  fields.Done();
}

void ReadAction(Fields& rule, ProcessPolicy::Rule* out) {
  using Action = model::ProcessPolicy::Action;
  const std::string action = rule.RequiredText("action");
  if (action == "Log") {
    out->action = Action::kLog;
  } else if (action == "Deny") {
    out->action = Action::kDeny;
  } else if (action == "Kill") {
    out->action = Action::kKill;
  } else if (!action.empty()) {
    rule.AddProblem(absl::StrCat(rule.PathOf("action"), ": expected Log, Deny or Kill, found \"",
                                 action, "\""));
  }
  if (action == "Deny" && !out->connects) {
    rule.AddProblem(rule.PathOf("action") +
                    ": Deny needs connect; a program that must not run is for Kill");
  }
  // One slip of the pen, and no container of the namespace starts any more.
  if (action == "Kill" && !out->connects && out->binaries.empty() && out->not_binaries.empty() &&
      out->arguments.empty()) {
    rule.AddProblem(rule.PathOf("action") +
                    ": Kill needs binaries, notBinaries, arguments or connect");
  }
}

}  // namespace

ProcessPolicy ParseProcessPolicy(Fields& fields, Meta meta) {
  ProcessPolicy policy{.meta = std::move(meta)};
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return policy;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  policy.pods = ParseLabelSelector(spec, "selector").value_or(LabelSelector());
  const std::string mode = spec.Text("mode");
  if (!mode.empty() && mode != "Enforce" && mode != "Monitor") {
    spec.AddProblem(absl::StrCat("spec.mode: expected Enforce or Monitor, found \"", mode, "\""));
  }
  policy.enforce = mode != "Monitor";
  const std::vector<const Yaml*> items = spec.List("rules");
  if (items.empty()) spec.AddProblem("spec.rules: missing or empty");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields rule(*items[i], spec.file(), spec.PathOf("rules", i), spec.problems());
    ProcessPolicy::Rule& out = policy.rules.emplace_back();
    out.name = rule.RequiredText("name");
    out.binaries = ReadPaths(rule, "binaries");
    out.not_binaries = ReadPaths(rule, "notBinaries");
    out.arguments = ReadArguments(rule);
    ReadConnect(rule, &out);
    ReadAction(rule, &out);
    rule.Done();
    for (size_t j = 0; j < i; ++j) {
      if (out.name.empty() || policy.rules[j].name != out.name) continue;
      rule.AddProblem(absl::StrCat(rule.PathOf("name"), ": \"", out.name, "\" is given twice"));
    }
  }
  spec.Done();
  return policy;
}

}  // namespace weft::plane
