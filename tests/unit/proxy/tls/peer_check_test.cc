// SPDX-License-Identifier: Apache-2.0
// Every kind of bad certificate that facts/security.md B4 lists and that can be made here, in both
// roles, through a real handshake.
#include <gtest/gtest.h>

#include <functional>

#include "proxy/tls/peer_check.h"
#include "tests/unit/proxy/tls/tls_fixture.h"

namespace weft::tls {
namespace {

using test::CertOptions;
using test::IntermediateOptions;
using test::MakeCert;
using test::MakeRoot;
using test::TaskRunner;
using test::TestCert;

struct Shown {
  TestCert leaf;
  std::vector<std::string> chain_der;
};

struct World {
  TestCert root = MakeRoot();
  TestCert other_root = MakeRoot("other root");
};

struct Case {
  const char* name;
  Reason reason;
  std::function<Shown(const World&, const std::string& id)> make;
};

Shown Leaf(const World& world, CertOptions options) {
  Shown out{.leaf = MakeCert(options, &world.root), .chain_der = {}};
  out.chain_der = {out.leaf.der()};
  return out;
}

// A leaf under one intermediate.
Shown Under(const World& world, const CertOptions& intermediate_options, CertOptions leaf_options) {
  const TestCert intermediate = MakeCert(intermediate_options, &world.root);
  Shown out{.leaf = MakeCert(leaf_options, &intermediate), .chain_der = {}};
  out.chain_der = {out.leaf.der(), intermediate.der()};
  return out;
}

Shown DeepChain(const World& world, const std::string& id, int depth) {
  TestCert issuer = MakeCert(IntermediateOptions("i0"), &world.root);
  std::vector<std::string> ders = {issuer.der()};
  for (int i = 1; i < depth; ++i) {
    issuer = MakeCert(IntermediateOptions("i" + std::to_string(i)), &issuer);
    ders.insert(ders.begin(), issuer.der());
  }
  Shown out{.leaf = MakeCert({.uris = {id}}, &issuer), .chain_der = std::move(ders)};
  out.chain_der.insert(out.chain_der.begin(), out.leaf.der());
  return out;
}

const std::vector<Case>& BadCases() {
  static const std::vector<Case> cases = {
      {"expired", WEFT_R_CERT_EXPIRED,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .not_before_seconds = -7200, .not_after_seconds = -3600});
       }},
      {"not yet valid", WEFT_R_CERT_EXPIRED,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .not_before_seconds = 600});
       }},
      {"self signed", WEFT_R_CERT_UNTRUSTED,
       [](const World&, const std::string& id) {
         Shown out{.leaf = MakeCert({.uris = {id}}, nullptr), .chain_der = {}};
         out.chain_der = {out.leaf.der()};
         return out;
       }},
      {"wrong ca", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         Shown out{.leaf = MakeCert({.uris = {id}}, &w.other_root), .chain_der = {}};
         out.chain_der = {out.leaf.der()};
         return out;
       }},
      {"wrong ca that brings its root", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         Shown out{.leaf = MakeCert({.uris = {id}}, &w.other_root), .chain_der = {}};
         out.chain_der = {out.leaf.der(), w.other_root.der()};
         return out;
       }},
      {"wrong trust domain", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://other/ns/shop/sa/x"}});
       }},
      {"no uri", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) { return Leaf(w, {}); }},
      {"dns only", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) { return Leaf(w, {.dns = {"server.shop.svc"}}); }},
      {"two uris", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id, "spiffe://td/ns/shop/sa/admin"}});
       }},
      {"the same uri twice", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) { return Leaf(w, {.uris = {id, id}}); }},
      {"uri in the common name", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) { return Leaf(w, {.common_name = id}); }},
      {"nul in the uri", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id + std::string("\0.evil", 6)}});
       }},
      {"another scheme", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"https://td/ns/shop/sa/x"}});
       }},
      {"upper case trust domain", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://TD/ns/shop/sa/x"}});
       }},
      {"percent encoding", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://td/ns/sh%6fp/sa/x"}});
       }},
      {"trailing slash", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) { return Leaf(w, {.uris = {id + "/"}}); }},
      {"no path", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) { return Leaf(w, {.uris = {"spiffe://td"}}); }},
      {"user info", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://u@td/ns/shop/sa/x"}});
       }},
      {"port", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://td:1/ns/shop/sa/x"}});
       }},
      {"query", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) { return Leaf(w, {.uris = {id + "?a"}}); }},
      {"2100 bytes", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string&) {
         return Leaf(w, {.uris = {"spiffe://td/" + std::string(2088, 'a')}});
       }},
      {"ca leaf", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .basic_constraints = "critical,CA:TRUE"});
       }},
      {"no key usage", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .key_usage = ""});
       }},
      {"key usage not critical", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .key_usage = "digitalSignature"});
       }},
      {"key usage with keyCertSign", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .key_usage = "critical,digitalSignature,keyCertSign"});
       }},
      {"key usage with cRLSign", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .key_usage = "critical,digitalSignature,cRLSign"});
       }},
      {"only serverAuth", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .extended_key_usage = "serverAuth"});
       }},
      {"only clientAuth", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .extended_key_usage = "clientAuth"});
       }},
      {"other extended usage", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .extended_key_usage = "codeSigning"});
       }},
      {"name constraint violated", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         CertOptions constrained = IntermediateOptions("constrained");
         constrained.name_constraints = "critical,permitted;URI:other.example";
         return Under(w, constrained, {.uris = {id}});
       }},
      {"path length exceeded", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         CertOptions short_path = IntermediateOptions("short");
         short_path.basic_constraints = "critical,CA:TRUE,pathlen:0";
         const TestCert first = MakeCert(short_path, &w.root);
         const TestCert second = MakeCert(IntermediateOptions("second"), &first);
         Shown out{.leaf = MakeCert({.uris = {id}}, &second), .chain_der = {}};
         out.chain_der = {out.leaf.der(), second.der(), first.der()};
         return out;
       }},
      {"issuer that is no ca", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         return Under(w, {.uris = {id}}, {.uris = {id}});
       }},
      {"expired intermediate", WEFT_R_CERT_EXPIRED,
       [](const World& w, const std::string& id) {
         CertOptions expired = IntermediateOptions("expired");
         expired.not_before_seconds = -7200;
         expired.not_after_seconds = -10;
         return Under(w, expired, {.uris = {id}});
       }},
      {"sha-1", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .digest = EVP_sha1()});
       }},
      {"rsa-1024 intermediate", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         CertOptions weak = IntermediateOptions("weak");
         weak.key = CertOptions::Key::kRsa1024;
         return Under(w, weak, {.uris = {id}});
       }},
      {"ed25519 intermediate", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         CertOptions other = IntermediateOptions("ed25519");
         other.key = CertOptions::Key::kEd25519;
         return Under(w, other, {.uris = {id}});
       }},
      {"bad signature", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) {
         return Leaf(w, {.uris = {id}, .break_signature = true});
       }},
      {"chain of six", WEFT_R_CERT_UNTRUSTED,
       [](const World& w, const std::string& id) { return DeepChain(w, id, 6); }},
      {"chain of twenty", WEFT_R_CERT_BAD_SPIFFE,
       [](const World& w, const std::string& id) { return DeepChain(w, id, 20); }},
      {"100 KiB chain", WEFT_R_TLS_HANDSHAKE_FAILED,
       [](const World& w, const std::string& id) {
         Shown out = Leaf(w, {.uris = {id}});
         const TestCert large =
             MakeCert({.uris = {"spiffe://td/" + std::string(50000, 'a')}}, &w.root);
         out.chain_der.push_back(large.der());
         out.chain_der.push_back(large.der());
         return out;
       }},
  };
  return cases;
}

Side SideOf(TaskRunner& runner, const World& world, const Shown& shown, const std::string& id) {
  return MakeSide(runner.executor(), shown.leaf, shown.chain_der, id, {{"td", {world.root.der()}}});
}

TEST(PeerCheck, ServersRefuseBadClients) {
  const World world;
  for (const Case& bad : BadCases()) {
    SCOPED_TRACE(bad.name);
    TaskRunner runner;
    const Side server = GoodSide(runner.executor(), world.root, kServerId);
    const Side client = SideOf(runner, world, bad.make(world, kClientId), kClientId);
    auto result = Handshake(runner, client, server);
    EXPECT_EQ(result.server.stream, nullptr);
    EXPECT_EQ(ReasonName(result.server.reason), ReasonName(bad.reason)) << result.server.detail;
    EXPECT_TRUE(result.server.peer_identity.empty());
  }
}

TEST(PeerCheck, ClientsRefuseBadServers) {
  const World world;
  for (const Case& bad : BadCases()) {
    SCOPED_TRACE(bad.name);
    TaskRunner runner;
    const Side client = GoodSide(runner.executor(), world.root, kClientId);
    const Side server = SideOf(runner, world, bad.make(world, kServerId), kServerId);
    auto result = Handshake(runner, client, server);
    EXPECT_EQ(result.client.stream, nullptr);
    EXPECT_EQ(ReasonName(result.client.reason), ReasonName(bad.reason)) << result.client.detail;
    EXPECT_EQ(result.server.stream,
              nullptr);  // it learns of the refusal before it may send anything
  }
}

// BoringSSL itself will not show such a leaf, nor take one: asked directly.
TEST(PeerCheck, RefusesAKeyThatMayNotSign) {
  const World world;
  TaskRunner runner;
  const Side side = GoodSide(runner.executor(), world.root, kClientId);
  for (const char* usage : {"critical,keyEncipherment", "critical,digitalSignature"}) {
    const TestCert leaf = MakeCert({.uris = {kServerId}, .key_usage = usage}, &world.root);
    const std::string der = leaf.der();
    bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)> chain(sk_CRYPTO_BUFFER_new_null());
    bssl::PushToStack(chain.get(),
                      bssl::UniquePtr<CRYPTO_BUFFER>(CRYPTO_BUFFER_new(
                          reinterpret_cast<const uint8_t*>(der.data()), der.size(), nullptr)));
    const bool may_sign = std::string_view(usage).ends_with("digitalSignature");
    const Reason expected = may_sign ? WEFT_R_NONE : WEFT_R_CERT_BAD_SPIFFE;
    EXPECT_EQ(CheckPeer(side.context->core(), chain.get(), {}).reason, expected) << usage;
  }
}

TEST(PeerCheck, AcceptsWhatIsLegal) {
  const World world;
  const std::vector<std::pair<const char*, CertOptions>> good = {
      {"plain", {.uris = {kServerId}}},
      {"a dns name beside the uri", {.uris = {kServerId}, .dns = {"server.shop.svc"}}},
      {"no extended key usage", {.uris = {kServerId}, .extended_key_usage = ""}},
      {"more key usages",
       {.uris = {kServerId}, .key_usage = "critical,digitalSignature,keyEncipherment"}},
      {"no basic constraints", {.uris = {kServerId}, .basic_constraints = ""}},
  };
  for (const auto& [name, options] : good) {
    SCOPED_TRACE(name);
    TaskRunner runner;
    const Side client = GoodSide(runner.executor(), world.root, kClientId);
    const Side server = SideOf(runner, world, Leaf(world, options), kServerId);
    auto result = Handshake(runner, client, server, {kServerId});
    ASSERT_NE(result.client.stream, nullptr)
        << ReasonName(result.client.reason) << " " << result.client.detail;
    ASSERT_NE(result.server.stream, nullptr);
    EXPECT_EQ(result.client.peer_identity, kServerId);
    EXPECT_EQ(result.server.peer_identity, kClientId);
    EXPECT_EQ(result.client.alpn, "h2");
    EXPECT_EQ(result.server.alpn, "h2");
    const auto left = result.client.peer_expiry - std::chrono::system_clock::now();
    EXPECT_LE(left, std::chrono::seconds(3600));
    EXPECT_GE(left, std::chrono::seconds(3500));
  }
}

TEST(PeerCheck, AnIntermediateIsFollowed) {
  const World world;
  TaskRunner runner;
  const Side client = GoodSide(runner.executor(), world.root, kClientId);
  const Side server = SideOf(runner, world, DeepChain(world, kServerId, 3), kServerId);
  auto result = Handshake(runner, client, server, {"spiffe://td/ns/shop/sa/else", kServerId});
  EXPECT_NE(result.client.stream, nullptr) << ReasonName(result.client.reason);
}

TEST(PeerCheck, AnotherIdentityThanExpectedIsRefused) {
  const World world;
  TaskRunner runner;
  const Side client = GoodSide(runner.executor(), world.root, kClientId);
  const Side server = GoodSide(runner.executor(), world.root, "spiffe://td/ns/shop/sa/other");
  auto result = Handshake(runner, client, server, {kServerId});
  EXPECT_EQ(result.client.stream, nullptr);
  EXPECT_EQ(result.client.reason, WEFT_R_IDENTITY_MISMATCH);
}

TEST(PeerCheck, AnotherTrustDomainNeedsItsOwnBundle) {
  const World world;
  const std::string foreign_id = "spiffe://other/ns/shop/sa/server";
  const TestCert foreign = MakeCert({.uris = {foreign_id}}, &world.other_root);
  TaskRunner runner;
  const TestCert client_leaf = MakeCert({.uris = {kClientId}}, &world.root);
  const std::vector<TrustDomainRoots> both = {{"td", {world.root.der()}},
                                              {"other", {world.other_root.der()}}};
  const Side client =
      MakeSide(runner.executor(), client_leaf, {client_leaf.der()}, kClientId, both);
  const Side server = MakeSide(runner.executor(), foreign, {foreign.der()}, foreign_id, both);
  EXPECT_NE(Handshake(runner, client, server).client.stream, nullptr);
  // The other domain's root may not vouch for ours.
  const TestCert forged = MakeCert({.uris = {kServerId}}, &world.other_root);
  const Side impostor = MakeSide(runner.executor(), forged, {forged.der()}, kServerId, both);
  EXPECT_EQ(Handshake(runner, client, impostor).client.reason, WEFT_R_CERT_UNTRUSTED);
}

}  // namespace
}  // namespace weft::tls
