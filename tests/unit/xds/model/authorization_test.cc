// SPDX-License-Identifier: Apache-2.0
// Evaluate() against examples, and against a second evaluator written the slow way, over generated
// policies and requests.
#include "xds/model/authorization.h"

#include <random>

#include "gtest/gtest.h"

namespace weft::model {
namespace {

using Text = Authorization::Text;
using Match = Authorization::Match;
using Kind = Text::Kind;

constexpr std::string_view kWeb = "spiffe://td/ns/shop/sa/web";

IpAddress Ip(std::string_view text) { return *IpAddress::Parse(text); }

Authorization Policy(Authorization::Action action, std::vector<std::vector<std::vector<Match>>> g) {
  Authorization out;
  out.action = action;
  out.name = "p";
  out.namespace_name = "shop";
  out.groups = std::move(g);
  return out;
}
Authorization Allow(Match m) { return Policy(Authorization::Action::kAllow, {{{m}}}); }
Authorization Deny(Match m) { return Policy(Authorization::Action::kDeny, {{{m}}}); }

L4Decision Ask(const std::vector<Authorization>& policies, std::string_view identity,
               uint16_t port = 80) {
  std::vector<const Authorization*> pointers;
  for (const Authorization& p : policies) pointers.push_back(&p);
  return Evaluate(pointers, "",
                  {.source_identity = identity,
                   .source_ip = Ip("10.0.0.9"),
                   .destination = {Ip("10.1.0.1"), port}});
}

TEST(Evaluate, NoPolicyAllows) {
  const L4Decision decision = Ask({}, "");
  EXPECT_TRUE(decision.allowed);
  EXPECT_TRUE(decision.by_default);
}

TEST(Evaluate, AnAllowPolicyMakesTheRestDenied) {
  const Authorization allow = Allow({.principals = {{Kind::kExact, "td/ns/shop/sa/web"}}});
  EXPECT_TRUE(Ask({allow}, kWeb).allowed);
  EXPECT_EQ(Ask({allow}, kWeb).policy, "shop/p");
  const L4Decision other = Ask({allow}, "spiffe://td/ns/shop/sa/other");
  EXPECT_FALSE(other.allowed);
  EXPECT_TRUE(other.by_default);
}

TEST(Evaluate, DenyWinsOverAllow) {
  const Match web{.service_accounts = {{"shop", "web"}}};
  EXPECT_FALSE(Ask({Allow(web), Deny(web)}, kWeb).allowed);
  EXPECT_TRUE(Ask({Allow(web), Deny({.destination_ports = {81}})}, kWeb).allowed);
  EXPECT_FALSE(Ask({Allow(web), Deny({.destination_ports = {81}})}, kWeb, 81).allowed);
}

TEST(Evaluate, StrictIsADenyOfWhoeverHasNoPrincipal) {
  const Authorization strict = Deny({.not_principals = {{Kind::kPresence, ""}}});
  EXPECT_FALSE(Ask({strict}, "").allowed);
  EXPECT_TRUE(Ask({strict}, kWeb).allowed);
}

TEST(Evaluate, EmptyMatchMatchesNothingButEmptyRuleAndGroupMatchAll) {
  EXPECT_TRUE(Ask({Deny({})}, kWeb).allowed);
  EXPECT_FALSE(Ask({Allow({})}, kWeb).allowed);
  EXPECT_TRUE(Ask({Policy(Authorization::Action::kDeny, {})}, kWeb).allowed);
  EXPECT_FALSE(Ask({Policy(Authorization::Action::kAllow, {})}, kWeb).allowed) << "allow nothing";
  EXPECT_FALSE(Ask({Policy(Authorization::Action::kDeny, {{}})}, kWeb).allowed) << "deny all";
  EXPECT_FALSE(Ask({Policy(Authorization::Action::kDeny, {{{}}})}, kWeb).allowed);
}

TEST(Evaluate, DryRunDoesNotCount) {
  Authorization deny = Deny({.destination_ports = {80}});
  Authorization allow = Allow({.destination_ports = {99}});
  deny.dry_run = allow.dry_run = true;
  EXPECT_TRUE(Ask({deny, allow}, kWeb).allowed);
  EXPECT_FALSE(HasAllow({&allow}));
  allow.dry_run = false;
  EXPECT_TRUE(HasAllow({&deny, &allow}));
}

TEST(Evaluate, AnUnknownReferenceDenies) {
  const Authorization allow = Allow({.destination_ports = {80}});
  const L4Decision decision =
      Evaluate({&allow}, "shop/gone", {.source_identity = kWeb, .destination = {Ip("::1"), 80}});
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.policy, "shop/gone");
}

TEST(Evaluate, WithoutASourceAddressOnlyTheNegationHolds) {
  const L4Request request{.destination = {Ip("10.1.0.1"), 80}};
  const Authorization from = Deny({.source_ips = {{Ip("0.0.0.0"), 0}}});
  const Authorization not_from = Deny({.not_source_ips = {{Ip("0.0.0.0"), 0}}});
  EXPECT_TRUE(Evaluate({&from}, "", request).allowed);
  EXPECT_FALSE(Evaluate({&not_from}, "", request).allowed);
}

TEST(ParseIdentity, TakesOnlyTheIstioForm) {
  const auto parts = ParseIdentity(kWeb);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->trust_domain, "td");
  EXPECT_EQ(parts->namespace_name, "shop");
  EXPECT_EQ(parts->service_account, "web");
  for (std::string_view text :
       {"", "spiffe://", "td/ns/shop/sa/web", "spiffe://td/ns/shop/sa/", "spiffe://td/ns/shop/sa",
        "spiffe:///ns/shop/sa/web", "spiffe://td/ns//sa/web", "spiffe://td/ns/shop/sa/web/x",
        "spiffe://td/sa/shop/ns/web", "spiffe://td/weft/node/n1", "spiffe://td/ns/shop/sa/web/"}) {
    EXPECT_FALSE(ParseIdentity(text)) << text;
  }
}

// --- The reference: spelled out, with loops and flags, sharing nothing with the code under test
// but the data types.

struct Reference {
  std::string principal, ns, account;
  bool has_parts = false;
  const L4Request& request;

  explicit Reference(const L4Request& r) : request(r) {
    std::string id(r.source_identity);
    if (id.rfind("spiffe://", 0) == 0) principal = id.substr(9);
    char td[64], n[64], sa[64];
    int used = 0;
    if (sscanf(id.c_str(), "spiffe://%63[^/]/ns/%63[^/]/sa/%63[^/]%n", td, n, sa, &used) == 3 &&
        used == static_cast<int>(id.size())) {
      has_parts = true;
      ns = n;
      account = sa;
    }
  }
  static bool TextHolds(const Text& t, const std::string& v) {
    if (t.kind == Kind::kExact) return t.value == v;
    if (t.kind == Kind::kPresence) return v != "";
    if (t.value.size() > v.size()) return false;
    const size_t from = t.kind == Kind::kPrefix ? 0 : v.size() - t.value.size();
    return v.substr(from, t.value.size()) == t.value;
  }
  static bool Inside(const IpAddress& ip, const Authorization::Prefix& p) {
    if (ip.is_v4() != p.address.is_v4()) return false;
    const unsigned skip = ip.is_v4() ? 96 : 0;
    for (unsigned bit = skip; bit < skip + p.length; ++bit) {
      const int a = ip.bytes[bit / 8] >> (7 - bit % 8) & 1;
      const int b = p.address.bytes[bit / 8] >> (7 - bit % 8) & 1;
      if (a != b) return false;
    }
    return true;
  }
  bool MatchHolds(const Match& m) const {
    int fields = 0;
    bool all = true;
    const auto field = [&](size_t wanted, size_t hits, size_t unwanted, size_t bad) {
      if (wanted > 0) fields++;
      if (unwanted > 0) fields++;
      if (wanted > 0 && hits == 0) all = false;
      if (unwanted > 0 && bad > 0) all = false;
    };
    const auto texts = [&](const std::vector<Text>& list, const std::string& v, bool need) {
      size_t n = 0;
      for (const Text& t : list) n += (!need || !v.empty()) && TextHolds(t, v);
      return n;
    };
    const auto accounts = [&](const std::vector<Authorization::ServiceAccount>& list) {
      size_t n = 0;
      for (const auto& a : list) n += has_parts && a.namespace_name == ns && a.name == account;
      return n;
    };
    const auto ips = [&](const std::vector<Authorization::Prefix>& list,
                         std::optional<IpAddress> ip) {
      size_t n = 0;
      for (const auto& p : list) n += ip && Inside(*ip, p);
      return n;
    };
    const auto ports = [&](const std::vector<uint32_t>& list) {
      size_t n = 0;
      for (uint32_t p : list) n += p == request.destination.port;
      return n;
    };
    field(m.namespaces.size(), texts(m.namespaces, ns, false), m.not_namespaces.size(),
          texts(m.not_namespaces, ns, false));
    field(m.principals.size(), texts(m.principals, principal, true), m.not_principals.size(),
          texts(m.not_principals, principal, true));
    field(m.service_accounts.size(), accounts(m.service_accounts), m.not_service_accounts.size(),
          accounts(m.not_service_accounts));
    field(m.source_ips.size(), ips(m.source_ips, request.source_ip), m.not_source_ips.size(),
          ips(m.not_source_ips, request.source_ip));
    field(m.destination_ips.size(), ips(m.destination_ips, request.destination.ip),
          m.not_destination_ips.size(), ips(m.not_destination_ips, request.destination.ip));
    field(m.destination_ports.size(), ports(m.destination_ports), m.not_destination_ports.size(),
          ports(m.not_destination_ports));
    return fields > 0 && all;
  }
  bool PolicyHolds(const Authorization& p) const {
    for (const auto& group : p.groups) {
      bool group_holds = true;
      for (const auto& rule : group) {
        bool rule_holds = rule.empty();
        for (const Match& m : rule) rule_holds |= MatchHolds(m);
        group_holds &= rule_holds;
      }
      if (group_holds) return true;
    }
    return false;
  }
  bool Allowed(const std::vector<const Authorization*>& policies) const {
    bool allow_exists = false, allow_holds = false;
    for (const Authorization* p : policies) {
      if (p->dry_run) continue;
      const bool holds = PolicyHolds(*p);
      if (p->action == Authorization::Action::kDeny && holds) return false;
      if (p->action == Authorization::Action::kAllow) {
        allow_exists = true;
        allow_holds |= holds;
      }
    }
    return !allow_exists || allow_holds;
  }
};

// Small alphabets, so that values meet each other often.
class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t n) { return random_() % n; }
  template <typename T, size_t N>
  T Pick(const T (&from)[N]) {
    return from[Below(N)];
  }
  // Empty more often than not; at most two values.
  template <typename F>
  auto Some(F make) {
    std::vector<decltype(make())> out;
    static constexpr size_t kCounts[] = {0, 0, 0, 0, 0, 1, 1, 2};
    for (size_t n = Pick(kCounts); n > 0; --n) out.push_back(make());
    return out;
  }
  Text AnyText(bool principal) {
    static const char* const kNamespaces[] = {"shop", "sh", "op", "", "bank"};
    static const char* const kPrincipals[] = {"td/ns/shop/sa/web", "td/", "/sa/web",
                                              "td/weft/node/n1", ""};
    return {static_cast<Kind>(Below(4)), principal ? Pick(kPrincipals) : Pick(kNamespaces)};
  }
  Authorization::Prefix AnyPrefix() {
    const IpAddress ip = AnyIp();
    return {ip, static_cast<uint32_t>(Below(ip.is_v4() ? 33 : 129))};
  }
  IpAddress AnyIp() {
    static const char* const kIps[] = {"10.0.0.1", "10.0.0.2", "10.128.0.1", "fd00::1", "fd00::2"};
    return Ip(Pick(kIps));
  }
  Match AnyMatch() {
    static const char* const kNames[] = {"shop", "web", "bank"};
    const auto ns = [this] { return AnyText(false); };
    const auto principal = [this] { return AnyText(true); };
    const auto account = [this] {
      return Authorization::ServiceAccount{Pick(kNames), Pick(kNames)};
    };
    const auto prefix = [this] { return AnyPrefix(); };
    const auto port = [this] { return static_cast<uint32_t>(80 + Below(2)); };
    Match m;
    m.namespaces = Some(ns);
    m.not_namespaces = Some(ns);
    m.principals = Some(principal);
    m.not_principals = Some(principal);
    m.service_accounts = Some(account);
    m.not_service_accounts = Some(account);
    m.source_ips = Some(prefix);
    m.not_source_ips = Some(prefix);
    m.destination_ips = Some(prefix);
    m.not_destination_ips = Some(prefix);
    m.destination_ports = Some(port);
    m.not_destination_ports = Some(port);
    // Most generated matches would have many fields and never hold: keep a few of them.
    if (Below(2) == 0) m = Match{.namespaces = m.namespaces, .not_principals = m.not_principals};
    return m;
  }
  Authorization AnyPolicy() {
    Authorization out =
        Policy(Below(3) == 0 ? Authorization::Action::kDeny : Authorization::Action::kAllow, {});
    out.dry_run = Below(8) == 0;
    for (size_t g = Below(3); g > 0; --g) {
      auto& group = out.groups.emplace_back();
      for (size_t r = Below(3); r > 0; --r) {
        auto& rule = group.emplace_back();
        for (size_t m = Below(3); m > 0; --m) rule.push_back(AnyMatch());
      }
    }
    return out;
  }
  L4Request AnyRequest() {
    static constexpr std::string_view kIdentities[] = {"", kWeb, "spiffe://td/ns/bank/sa/web",
                                                       "spiffe://td/weft/node/n1", "garbage"};
    L4Request out{.source_identity = Pick(kIdentities),
                  .destination = {AnyIp(), static_cast<uint16_t>(80 + Below(2))}};
    if (Below(5) != 0) out.source_ip = AnyIp();
    return out;
  }

 private:
  std::mt19937 random_;
};

TEST(Evaluate, AgreesWithTheReferenceOnGeneratedCases) {
  Generator generator(20260828);
  int allowed = 0, denied = 0, decided = 0;
  for (int i = 0; i < 200000; ++i) {
    std::vector<Authorization> policies;
    for (size_t n = generator.Below(4); n > 0; --n) policies.push_back(generator.AnyPolicy());
    std::vector<const Authorization*> pointers;
    for (const Authorization& p : policies) pointers.push_back(&p);
    const L4Request request = generator.AnyRequest();
    const L4Decision decision = Evaluate(pointers, "", request);
    ASSERT_EQ(decision.allowed, Reference(request).Allowed(pointers)) << "case " << i;
    ASSERT_EQ(decision.by_default, decision.policy.empty());
    (decision.allowed ? allowed : denied)++;
    decided += !decision.by_default;
  }
  // The cases are worth something only if each outcome is frequent.
  EXPECT_GT(allowed, 20000);
  EXPECT_GT(denied, 20000);
  EXPECT_GT(decided, 20000);
}

}  // namespace
}  // namespace weft::model
