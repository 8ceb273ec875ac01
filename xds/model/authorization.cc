// SPDX-License-Identifier: Apache-2.0
// The shape of a policy (facts/mesh.md 4.4): groups OR'd; a group's rules AND'd; a rule's matches
// OR'd; a match's fields AND'd; a field's values OR'd. A policy without groups and a match without
// fields match nothing; an empty group or rule matches everything. Text without an identity is the
// empty text, except for principals, which then never match.
#include "xds/model/authorization.h"

#include <algorithm>

namespace weft::model {
namespace {

constexpr std::string_view kScheme = "spiffe://";

// A request with its identity taken apart once.
struct Subject {
  const L4Request& request;
  std::string_view principal;  // without spiffe://
  std::optional<IdentityParts> parts;
};

bool TextMatches(const Authorization::Text& text, std::string_view value) {
  using Kind = Authorization::Text::Kind;
  switch (text.kind) {
    case Kind::kExact:
      return value == text.value;
    case Kind::kPrefix:
      return value.starts_with(text.value);
    case Kind::kSuffix:
      return value.ends_with(text.value);
    case Kind::kPresence:
      return !value.empty();
  }
  return false;
}

// One field with its negation: `wanted` empty or one of them holds, and none of `unwanted` holds.
template <typename T, typename Predicate>
bool FieldMatches(const std::vector<T>& wanted, const std::vector<T>& unwanted, Predicate holds) {
  return (wanted.empty() || std::any_of(wanted.begin(), wanted.end(), holds)) &&
         std::none_of(unwanted.begin(), unwanted.end(), holds);
}

bool IsEmpty(const Authorization::Match& m) {
  return m.namespaces.empty() && m.not_namespaces.empty() && m.principals.empty() &&
         m.not_principals.empty() && m.service_accounts.empty() && m.not_service_accounts.empty() &&
         m.source_ips.empty() && m.not_source_ips.empty() && m.destination_ips.empty() &&
         m.not_destination_ips.empty() && m.destination_ports.empty() &&
         m.not_destination_ports.empty();
}

bool MatchMatches(const Authorization::Match& m, const Subject& who) {
  using Text = Authorization::Text;
  using Prefix = Authorization::Prefix;
  using ServiceAccount = Authorization::ServiceAccount;
  if (IsEmpty(m)) return false;
  const L4Request& request = who.request;
  const std::string_view ns = who.parts ? who.parts->namespace_name : std::string_view();
  return FieldMatches(m.destination_ips, m.not_destination_ips,
                      [&](const Prefix& p) {
                        return request.destination.ip.InPrefix(p.address, p.length);
                      }) &&
         FieldMatches(m.source_ips, m.not_source_ips,
                      [&](const Prefix& p) {
                        return request.source_ip &&
                               request.source_ip->InPrefix(p.address, p.length);
                      }) &&
         FieldMatches(m.destination_ports, m.not_destination_ports,
                      [&](uint32_t port) { return request.destination.port == port; }) &&
         FieldMatches(m.service_accounts, m.not_service_accounts,
                      [&](const ServiceAccount& a) {
                        return who.parts && who.parts->namespace_name == a.namespace_name &&
                               who.parts->service_account == a.name;
                      }) &&
         FieldMatches(m.principals, m.not_principals,
                      [&](const Text& t) {
                        return !who.principal.empty() && TextMatches(t, who.principal);
                      }) &&
         FieldMatches(m.namespaces, m.not_namespaces,
                      [&](const Text& t) { return TextMatches(t, ns); });
}

bool PolicyMatches(const Authorization& policy, const Subject& who) {
  const auto match = [&](const Authorization::Match& m) { return MatchMatches(m, who); };
  const auto rule = [&](const std::vector<Authorization::Match>& matches) {
    return matches.empty() || std::any_of(matches.begin(), matches.end(), match);
  };
  const auto group = [&](const std::vector<std::vector<Authorization::Match>>& rules) {
    return std::all_of(rules.begin(), rules.end(), rule);
  };
  return std::any_of(policy.groups.begin(), policy.groups.end(), group);
}

bool Counts(const Authorization& policy, Authorization::Action action) {
  return !policy.dry_run && policy.action == action;
}

}  // namespace

L4Decision Evaluate(const std::vector<const Authorization*>& policies,
                    std::string_view unknown_reference, const L4Request& request) {
  if (!unknown_reference.empty()) {
    return {.allowed = false, .by_default = false, .policy = std::string(unknown_reference)};
  }
  Subject who{.request = request,
              .principal = request.source_identity,
              .parts = ParseIdentity(request.source_identity)};
  who.principal = who.principal.starts_with(kScheme) ? who.principal.substr(kScheme.size()) : "";
  bool any_allow = false;
  for (const Authorization* policy : policies) {
    if (Counts(*policy, Authorization::Action::kDeny) && PolicyMatches(*policy, who)) {
      return {.allowed = false, .by_default = false, .policy = policy->Key()};
    }
  }
  for (const Authorization* policy : policies) {
    if (!Counts(*policy, Authorization::Action::kAllow)) continue;
    any_allow = true;
    if (PolicyMatches(*policy, who)) {
      return {.allowed = true, .by_default = false, .policy = policy->Key()};
    }
  }
  return {.allowed = !any_allow, .by_default = true, .policy = {}};
}

bool HasAllow(const std::vector<const Authorization*>& policies) {
  return std::any_of(policies.begin(), policies.end(), [](const Authorization* policy) {
    return Counts(*policy, Authorization::Action::kAllow);
  });
}

std::optional<IdentityParts> ParseIdentity(std::string_view spiffe_id) {
  if (!spiffe_id.starts_with(kScheme)) return std::nullopt;
  std::string_view rest = spiffe_id.substr(kScheme.size());
  std::string_view segments[5];
  for (std::string_view& segment : segments) {
    const bool last = &segment == &segments[4];
    const size_t slash = rest.find('/');
    if (last != (slash == std::string_view::npos)) return std::nullopt;
    segment = rest.substr(0, slash);
    if (segment.empty()) return std::nullopt;
    if (!last) rest.remove_prefix(slash + 1);
  }
  if (segments[1] != "ns" || segments[3] != "sa") return std::nullopt;
  return IdentityParts{segments[0], segments[2], segments[4]};
}

}  // namespace weft::model
