// SPDX-License-Identifier: Apache-2.0
// Peers that come to the inbound tunnel port (15008) with certificates that are no good: each is
// refused, the flow names the cause, and tunnels of good peers go on.
#include "tests/integration/proxy/mesh_fixture.h"

namespace weft::test {
namespace {

struct BadCertificate {
  const char* name;
  CertOptions options;
  bool of_our_root = true;
  const char* reason;
};

std::vector<BadCertificate> BadCertificates() {
  const std::string other = "spiffe://other.domain/ns/prod/sa/alice";
  return {
      {"expired",
       {.uris = {kAlice}, .not_before_seconds = -3600, .not_after_seconds = -60},
       true,
       "cert_expired"},
      {"not yet valid",
       {.uris = {kAlice}, .not_before_seconds = 600, .not_after_seconds = 3600},
       true,
       "cert_expired"},
      {"another authority", {.uris = {kAlice}}, false, "cert_untrusted"},
      {"another trust domain", {.uris = {other}}, true, "cert_untrusted"},
      {"another trust domain and authority", {.uris = {other}}, false, "cert_untrusted"},
      {"no identity", {.dns = {"alice"}}, true, "cert_bad_spiffe"},
      {"two identities", {.uris = {kAlice, kBob}}, true, "cert_bad_spiffe"},
      {"no SPIFFE id",
       {.uris = {"https://cluster.local/ns/prod/sa/alice"}},
       true,
       "cert_bad_spiffe"},
      {"an authority's",
       {.uris = {kAlice},
        .ca = true,
        .key_usage = "critical,digitalSignature,keyCertSign",
        .basic_constraints = "critical,CA:TRUE"},
       true,
       "cert_bad_spiffe"},
      {"a broken signature", {.uris = {kAlice}, .break_signature = true}, true, "cert_untrusted"},
  };
}

class HostileCertificates : public Mesh {
 protected:
  // What the proxy's newest flow says, once there are more than `before`.
  nlohmann::json NewFlow(size_t before) {
    nlohmann::json flows;
    EXPECT_TRUE(RunUntil([&] {
      flows = AdminJson("/flows");
      return flows.size() > before;
    }));
    for (const auto& flow : flows) {
      if (flow["reason"] != "closed") last_ = flow;
    }
    return flows.size() > before ? last_ : nlohmann::json::object();
  }
  void Knock(const TestCert& certificate) {
    auto signer = *tls::LocalSigner::Create(io_.get_executor(), certificate.key_pem());
    auto context = tls::TlsContext::Mesh({.identity = kAlice,
                                          .chain_der = {certificate.der()},
                                          .trust = {{"cluster.local", {root_.der()}}},
                                          .signer = signer.get()});
    ASSERT_TRUE(context.ok()) << context.status();
    PeerDialer dialer(io_, *context);
    tunnel::DialResult result = Await(dialer.Dial(
        {.destination_identity = kBob, .destination = ip_}, source_, std::chrono::seconds(5)));
    // In TLS 1.3 the client is done before the server has judged it; then comes the alert.
    if (result.stream != nullptr) {
      const std::string read = Read(*result.stream, 1);
      EXPECT_EQ(read.front(), '<') << read;
    }
  }

 private:
  nlohmann::json last_ = nlohmann::json::object();
};

TEST_F(HostileCertificates, AreRefusedByCauseWhileOthersAreServed) {
  Put(local_, workload_, certificate_, bundle_);
  StartMesh();
  ASSERT_TRUE(Listening());
  App app(io_, {ip_, 0});
  tunnel::TunnelResult open = Connect(app.address());
  ASSERT_NE(open.stream, nullptr) << ReasonName(open.reason);
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  const TestCert other_root = MakeRoot("other root");
  for (const BadCertificate& bad : BadCertificates()) {
    SCOPED_TRACE(bad.name);
    const size_t before = AdminJson("/flows").size();
    Knock(MakeCert(bad.options, bad.of_our_root ? &root_ : &other_root));
    const nlohmann::json flow = NewFlow(before);
    EXPECT_EQ(flow.value("reason", ""), bad.reason) << flow.dump(2);
    EXPECT_EQ(flow.value("source_identity", "?"), "") << flow.dump(2);
    EXPECT_EQ(flow.value("destination_identity", ""), kBob);
    EXPECT_EQ(app.accepted.size(), 1u) << "the application saw a connection";
    Write(*app.accepted[0], "x");
    EXPECT_EQ(Read(*open.stream, 1), "x") << "an open tunnel was disturbed";
  }
  tunnel::TunnelResult good = Connect(app.address());
  EXPECT_NE(good.stream, nullptr) << ReasonName(good.reason);
}

}  // namespace
}  // namespace weft::test
