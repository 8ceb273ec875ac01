// SPDX-License-Identifier: Apache-2.0
// Istio's AuthorizationPolicy, L4 fields only, and PeerAuthentication. What Weft cannot enforce is
// refused by name: a policy that would silently mean less than it says is worse than none.
#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"
#include "proxy/base/status.h"

namespace weft::plane {
namespace {

using Match = model::Authorization::Match;
using Text = model::Authorization::Text;

constexpr char kNeedsL7[] = "an L7 attribute, which policies do not support yet; L4 fields only";

// "*": present; "abc*": prefix; "*abc": suffix; else exact (Istio's rules for string fields).
std::optional<Text> ReadPattern(Fields& fields, const LocatedText& text, std::string_view path) {
  const std::string& value = text.value;
  const auto refuse = [&](const char* why) -> std::optional<Text> {
    fields.problems()->push_back(
        {text.at, absl::StrCat(AbslView(path), ": \"", value, "\": ", why), ""});
    return std::nullopt;
  };
  if (value.empty()) return refuse("empty");
  if (value == "*") return Text{Text::Kind::kPresence, ""};
  const size_t star = value.find('*');
  if (star == std::string::npos) return Text{Text::Kind::kExact, value};
  if (value.find('*', star + 1) != std::string::npos) return refuse("only one '*', first or last");
  if (star == 0) return Text{Text::Kind::kSuffix, value.substr(1)};
  if (star == value.size() - 1) return Text{Text::Kind::kPrefix, value.substr(0, star)};
  return refuse("'*' may be first or last only");
}

std::vector<Text> ReadPatterns(Fields& fields, std::string_view name) {
  std::vector<Text> patterns;
  for (const LocatedText& text : fields.Texts(name)) {
    const auto pattern = ReadPattern(fields, text, fields.PathOf(name));
    if (pattern.has_value()) patterns.push_back(*pattern);
  }
  return patterns;
}

std::vector<Text> ReadPrincipals(Fields& fields, std::string_view name) {
  for (const LocatedText& text : fields.Texts(name)) {
    if (!text.value.starts_with("spiffe://")) continue;
    fields.problems()->push_back({text.at,
                                  absl::StrCat(fields.PathOf(name), ": \"", text.value,
                                               "\": principals are written without spiffe://"),
                                  ""});
  }
  return ReadPatterns(fields, name);
}

std::vector<model::Authorization::Prefix> ReadBlocks(Fields& fields, std::string_view name) {
  std::vector<model::Authorization::Prefix> blocks;
  for (const LocatedText& text : fields.Texts(name)) {
    const size_t slash = text.value.find('/');
    const auto address = IpAddress::Parse(text.value.substr(0, slash));
    const int64_t width = address.has_value() && address->is_v4() ? 32 : 128;
    const auto length =
        slash == std::string::npos
            ? std::optional<int64_t>(width)
            : ParseInteger(std::string_view(text.value).substr(slash + 1), 0, width);
    if (!address.has_value() || !length.has_value()) {
      fields.problems()->push_back(
          {text.at,
           absl::StrCat(fields.PathOf(name), ": \"", text.value, "\" is no address or CIDR block"),
           ""});
      continue;
    }
    blocks.push_back({*address, static_cast<uint32_t>(*length)});
  }
  return blocks;
}

std::vector<model::Authorization::ServiceAccount> ReadAccounts(Fields& fields,
                                                               std::string_view name,
                                                               const std::string& namespace_name) {
  std::vector<model::Authorization::ServiceAccount> accounts;
  for (const LocatedText& text : fields.Texts(name)) {
    const size_t slash = text.value.find('/');
    const std::string space =
        slash == std::string::npos ? namespace_name : text.value.substr(0, slash);
    const std::string account =
        slash == std::string::npos ? text.value : text.value.substr(slash + 1);
    if (!IsObjectName(space) || !IsObjectName(account)) {
      fields.problems()->push_back({text.at,
                                    absl::StrCat(fields.PathOf(name), ": \"", text.value,
                                                 "\": expected NAMESPACE/ACCOUNT or ACCOUNT"),
                                    ""});
      continue;
    }
    accounts.push_back({space, account});
  }
  return accounts;
}

std::vector<uint32_t> ReadPorts(Fields& fields, std::string_view name) {
  std::vector<uint32_t> ports;
  for (const LocatedText& text : fields.Texts(name)) {
    const auto port = ParseInteger(text.value, 1, 65535);
    if (!port.has_value()) {
      fields.problems()->push_back(
          {text.at, absl::StrCat(fields.PathOf(name), ": \"", text.value, "\" is no port number"),
           ""});
      continue;
    }
    ports.push_back(static_cast<uint32_t>(*port));
  }
  return ports;
}

bool IsEmpty(const Match& match) { return match == Match{}; }

Match ReadSource(Fields& source, const std::string& namespace_name) {
  Match match;
  match.principals = ReadPrincipals(source, "principals");
  match.not_principals = ReadPrincipals(source, "notPrincipals");
  match.namespaces = ReadPatterns(source, "namespaces");
  match.not_namespaces = ReadPatterns(source, "notNamespaces");
  match.source_ips = ReadBlocks(source, "ipBlocks");
  match.not_source_ips = ReadBlocks(source, "notIpBlocks");
  match.service_accounts = ReadAccounts(source, "serviceAccounts", namespace_name);
  match.not_service_accounts = ReadAccounts(source, "notServiceAccounts", namespace_name);
  source.Refuse(
      {"requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"},
      kNeedsL7);
  source.Done();
  return match;
}

Match ReadOperation(Fields& operation) {
  Match match;
  match.destination_ports = ReadPorts(operation, "ports");
  match.not_destination_ports = ReadPorts(operation, "notPorts");
  operation.Refuse({"hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"}, kNeedsL7);
  operation.Done();
  return match;
}

// One clause: "from" with its "source"s, or "to" with its "operation"s. An empty match would match
// nothing, so it is refused rather than guessed at.
void ReadClause(Fields& rule, const char* clause, const char* inner,
                const std::string& namespace_name, std::vector<Match>* matches) {
  const std::vector<const Yaml*> items = rule.List(clause);
  for (size_t i = 0; i < items.size(); ++i) {
    Fields item(*items[i], rule.file(), rule.PathOf(clause, i), rule.problems());
    const Yaml* node = item.Require(inner);
    item.Done();
    if (node == nullptr) continue;
    const size_t before = rule.problems()->size();
    Fields fields(*node, rule.file(), item.PathOf(inner), rule.problems());
    Match match = std::string_view(clause) == "from" ? ReadSource(fields, namespace_name)
                                                     : ReadOperation(fields);
    if (IsEmpty(match) && rule.problems()->size() == before) {
      fields.AddProblem(item.PathOf(inner) + ": names nothing, so it would match nothing");
    }
    matches->push_back(std::move(match));
  }
  if (items.empty() && rule.Find(clause) != nullptr)
    rule.AddProblem(rule.PathOf(clause) + ": empty");
}

// A condition of `when` is a clause of its own: one of `values` and none of `notValues`.
Match ReadCondition(Fields& fields, const std::string& namespace_name) {
  Match match;
  const std::string key = fields.RequiredText("key");
  if (key == "source.principal") {
    match.principals = ReadPrincipals(fields, "values");
    match.not_principals = ReadPrincipals(fields, "notValues");
  } else if (key == "source.namespace") {
    match.namespaces = ReadPatterns(fields, "values");
    match.not_namespaces = ReadPatterns(fields, "notValues");
  } else if (key == "source.serviceAccount") {
    match.service_accounts = ReadAccounts(fields, "values", namespace_name);
    match.not_service_accounts = ReadAccounts(fields, "notValues", namespace_name);
  } else if (key == "source.ip") {
    match.source_ips = ReadBlocks(fields, "values");
    match.not_source_ips = ReadBlocks(fields, "notValues");
  } else if (key == "destination.ip") {
    match.destination_ips = ReadBlocks(fields, "values");
    match.not_destination_ips = ReadBlocks(fields, "notValues");
  } else if (key == "destination.port") {
    match.destination_ports = ReadPorts(fields, "values");
    match.not_destination_ports = ReadPorts(fields, "notValues");
  } else {
    fields.Ignore({"values", "notValues"});
    if (!key.empty()) {
      fields.AddProblem(
          absl::StrCat(fields.PathOf("key"), ": \"", key,
                       "\" is not supported; supported are source.principal, source.namespace, "
                       "source.serviceAccount, source.ip, destination.ip and destination.port"));
    }
  }
  fields.Done();
  return match;
}

void ReadConditions(Fields& rule, const std::string& namespace_name, std::vector<Match>* matches) {
  const std::vector<const Yaml*> items = rule.List("when");
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t before = rule.problems()->size();
    Fields fields(*items[i], rule.file(), rule.PathOf("when", i), rule.problems());
    Match match = ReadCondition(fields, namespace_name);
    if (IsEmpty(match) && rule.problems()->size() == before) {
      fields.AddProblem(fields.PathOf("values") + ": values or notValues are needed");
    }
    matches->push_back(std::move(match));
  }
}

void ReadRules(Fields& spec, AuthorizationPolicy* policy) {
  const std::vector<const Yaml*> items = spec.List("rules");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields fields(*items[i], spec.file(), spec.PathOf("rules", i), spec.problems());
    AuthorizationPolicy::Rule rule;
    ReadClause(fields, "from", "source", policy->meta.namespace_name, &rule.from);
    ReadClause(fields, "to", "operation", policy->meta.namespace_name, &rule.to);
    ReadConditions(fields, policy->meta.namespace_name, &rule.when);
    fields.Done();
    policy->rules.push_back(std::move(rule));
  }
}

}  // namespace

AuthorizationPolicy ParseAuthorizationPolicy(Fields& fields, Meta meta) {
  AuthorizationPolicy policy{.meta = std::move(meta)};
  const auto dry_run = policy.meta.annotations.find("istio.io/dry-run");
  policy.dry_run = dry_run != policy.meta.annotations.end() && dry_run->second == "true";
  fields.Ignore({"status"});
  static const Yaml kNothing;
  const Yaml* node = fields.Find("spec");
  Fields spec(node == nullptr ? kNothing : *node, fields.file(), "spec", fields.problems());
  policy.selector = ParseMatchLabels(spec, "selector");
  const std::string action = spec.Text("action");
  if (action == "DENY") {
    policy.action = model::Authorization::Action::kDeny;
  } else if (action == "AUDIT") {
    // Changes no decision; who matches is reported. The same as a denial that is only tried.
    policy.action = model::Authorization::Action::kDeny;
    policy.dry_run = true;
  } else if (!action.empty() && action != "ALLOW") {
    spec.AddProblem(
        *node->Find("action"),
        absl::StrCat("spec.action: \"", action, "\" is not supported, only ALLOW, DENY and AUDIT"));
  }
  ReadRules(spec, &policy);
  spec.Refuse({"targetRef", "targetRefs"}, "not supported yet; use selector");
  spec.Refuse({"provider"}, "not supported: there is no external authorizer");
  spec.Done();
  return policy;
}

PeerAuthentication ParsePeerAuthentication(Fields& fields, Meta meta) {
  PeerAuthentication peer{.meta = std::move(meta)};
  fields.Ignore({"status"});
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return peer;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  peer.selector = ParseMatchLabels(spec, "selector");
  if (const Yaml* mtls_node = spec.Require("mtls"); mtls_node != nullptr) {
    Fields mtls(*mtls_node, fields.file(), "spec.mtls", fields.problems());
    const std::string mode = mtls.RequiredText("mode");
    if (!mode.empty() && mode != "STRICT" && mode != "PERMISSIVE") {
      mtls.AddProblem(absl::StrCat("spec.mtls.mode: \"", mode,
                                   "\" is not supported, only STRICT and PERMISSIVE"));
    }
    peer.strict = mode == "STRICT";
    mtls.Done();
  }
  spec.Refuse({"portLevelMtls"}, "not supported yet");
  spec.Done();
  return peer;
}

}  // namespace weft::plane
