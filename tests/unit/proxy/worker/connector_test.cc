// SPDX-License-Identifier: Apache-2.0
// The way to an endpoint, over real sockets and TLS: tunnels, in place, outside; and that nothing
// falls back to plaintext.
#include <algorithm>

#include "tests/unit/proxy/worker/mesh_world.h"

namespace weft::worker {
namespace {

TEST_F(TwoNodes, TunnelAcrossNodesCarriesIdentities) {
  App& app = StartApp(b_.ip);
  ConnectResult result = ConnectFromA(app.address());
  ASSERT_NE(result.stream, nullptr) << ReasonName(result.reason);
  EXPECT_EQ(result.peer_identity, kBob);
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  Write(*result.stream, "hello");
  EXPECT_EQ(Read(*app.accepted[0], 5), "hello");
  Write(*app.accepted[0], "world!");
  EXPECT_EQ(Read(*result.stream, 6), "world!");
  result.stream->ShutdownWrite();
  EXPECT_EQ(Read(*app.accepted[0], 1), "<eof>");
  app.accepted[0]->ShutdownWrite();
  EXPECT_EQ(Read(*result.stream, 1), "<eof>");
  ASSERT_TRUE(RunUntil([&] { return b_.state.telemetry.flows.last_sequence() == 1; }));
  telemetry::FlowRecord flow = b_.state.telemetry.flows.Since(0)[0];
  EXPECT_EQ(flow.source_identity, kAlice);
  EXPECT_EQ(flow.destination_identity, kBob);
  EXPECT_EQ(flow.source, (SocketAddress{a_.ip, 40000}));
  EXPECT_EQ(flow.sent_bytes, 5u);
  EXPECT_EQ(flow.received_bytes, 6u);
  EXPECT_EQ(flow.reason, WEFT_R_CLOSED);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], 2);  // one to ask for permits with
  EXPECT_EQ(b_.sockets.taken[net::SocketKind::kToApp], 1);
}

TEST_F(TwoNodes, TunnelIsPooled) {
  App& app = StartApp(b_.ip);
  ConnectResult first = ConnectFromA(app.address());
  ConnectResult second = ConnectFromA(app.address());
  EXPECT_NE(second.stream, nullptr);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], 2);  // one to ask for permits with
  EXPECT_EQ(a_.tunnels.List().size(), 1u);
}

TEST_F(TwoNodes, PeersPolicyIsNamed) {
  App& app = StartApp(b_.ip);
  DenyPort(app.address().port);
  Publish();
  ConnectResult result = ConnectFromA(app.address());
  EXPECT_EQ(result.stream, nullptr);
  EXPECT_EQ(result.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(result.policy, "prod/deny-" + std::to_string(app.address().port));
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(TwoNodes, ClosedPortOfTheApplicationIsConnectFailed) {
  SocketAddress gone = StartApp(b_.ip).address();
  apps_.clear();
  EXPECT_EQ(ConnectFromA(gone).reason, WEFT_R_CONNECT_FAILED);
}

TEST_F(TwoNodes, OwnWorkloadIsReachedInPlaceUnderPolicy) {
  App& app = StartApp(a_.ip);
  ConnectResult result = ConnectFromA(app.address());
  ASSERT_NE(result.stream, nullptr) << ReasonName(result.reason);
  EXPECT_EQ(result.peer_identity, kAlice);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], 0);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kToApp], 1);
  DenyPort(app.address().port);
  Publish();
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_POLICY_DENIED);
}

TEST_F(TwoNodes, UnknownAddressIsPlain) {
  App& app = StartApp(TestIp(9));
  ConnectResult result = ConnectFromA(app.address());
  ASSERT_NE(result.stream, nullptr) << ReasonName(result.reason);
  EXPECT_EQ(result.peer_identity, "");
  Write(*result.stream, "plain");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], 5), "plain");
}

TEST_F(TwoNodes, RenewedCertificateServesNewTunnels) {
  App& app = StartApp(b_.ip);
  ConnectResult before = ConnectFromA(app.address());
  ASSERT_NE(before.stream, nullptr);
  AddCertificate(b_, kBob, 7);
  Publish();
  // The tunnel that stands goes on; a new one is made with the new certificate.
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  Write(*before.stream, "old");
  EXPECT_EQ(Read(*app.accepted[0], 3), "old");
  a_.tunnels.DrainSource(kAlice, a_.ip);
  ConnectResult after = ConnectFromA(app.address());
  EXPECT_NE(after.stream, nullptr) << ReasonName(after.reason);
}

// A workload that comes back under its address must not get tunnels of the netns before.
TEST_F(TwoNodes, TunnelsOfASourceThatLeftTakeNothingNewAndEnd) {
  App& app = StartApp(b_.ip);
  ConnectResult before = ConnectFromA(app.address());
  ASSERT_NE(before.stream, nullptr);
  a_.tunnels.DrainSource(kAlice, a_.ip);
  ConnectResult after = ConnectFromA(app.address());
  ASSERT_NE(after.stream, nullptr) << ReasonName(after.reason);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], 3);  // and one to ask for permits with
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 2; }));
  Write(*before.stream, "old");
  EXPECT_EQ(Read(*app.accepted[0], 3), "old");
  a_.tunnels.CloseDrained(kAlice, a_.ip, WEFT_R_DRAINING);
  EXPECT_EQ(Read(*before.stream, 1), "<draining>");
  Write(*after.stream, "new");
  EXPECT_EQ(Read(*app.accepted[1], 3), "new");
}

TEST_F(TwoNodes, APolicyThatComesLaterEndsStreamsOfATunnel) {
  App& denied = StartApp(b_.ip);
  App& allowed = StartApp(b_.ip);
  ConnectResult first = ConnectFromA(denied.address());
  ConnectResult second = ConnectFromA(allowed.address());
  ASSERT_TRUE(first.stream != nullptr && second.stream != nullptr);
  ASSERT_TRUE(RunUntil([&] { return !denied.accepted.empty() && !allowed.accepted.empty(); }));
  DenyPort(denied.address().port);
  Publish();
  EXPECT_EQ(Read(*first.stream, 1).front(), '<');
  EXPECT_EQ(Read(*denied.accepted[0], 1).front(), '<');
  ASSERT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_POLICY_DENIED) == 1; }));
  telemetry::FlowRecord flow = b_.state.telemetry.flows.Since(0).back();
  EXPECT_EQ(flow.policy, "prod/deny-" + std::to_string(denied.address().port));
  Write(*second.stream, "still");
  EXPECT_EQ(Read(*allowed.accepted[0], 5), "still");
}

// A pooled connection, too: who has one must not keep a right that is gone.
TEST_F(TwoNodes, APolicyThatComesLaterEndsConnectionsInPlace) {
  App& denied = StartApp(a_.ip);
  App& allowed = StartApp(a_.ip);
  ConnectResult first = ConnectFromA(denied.address());
  ConnectResult second = ConnectFromA(allowed.address());
  ASSERT_TRUE(first.stream != nullptr && second.stream != nullptr);
  DenyPort(denied.address().port);
  Publish();
  EXPECT_EQ(Read(*first.stream, 1), "<policy_denied>");
  Write(*second.stream, "still");
  ASSERT_TRUE(RunUntil([&] { return allowed.accepted.size() == 1; }));
  EXPECT_EQ(Read(*allowed.accepted[0], 5), "still");
}

// Network policy is the kernel's, which knows nothing of a tunnel's streams unless it is asked.
TEST_F(TwoNodes, NetworkPolicyIsAskedForEachStreamOfATunnel) {
  App& denied = StartApp(b_.ip);
  App& allowed = StartApp(b_.ip);
  a_.sockets.denied = {denied.address()};
  EXPECT_EQ(ConnectFromA(denied.address()).reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(a_.tunnels.List().size(), 0u);
  EXPECT_NE(ConnectFromA(allowed.address()).stream, nullptr);
  EXPECT_EQ(ConnectFromA(denied.address()).reason, WEFT_R_POLICY_DENIED);
  EXPECT_TRUE(denied.accepted.empty());
}

TEST_F(TwoNodes, ANetworkPolicyThatComesLaterEndsStreamsOfATunnel) {
  App& denied = StartApp(b_.ip);
  App& allowed = StartApp(b_.ip);
  ConnectResult first = ConnectFromA(denied.address());
  ConnectResult second = ConnectFromA(allowed.address());
  ASSERT_TRUE(first.stream != nullptr && second.stream != nullptr);
  ASSERT_TRUE(RunUntil([&] { return !denied.accepted.empty() && !allowed.accepted.empty(); }));
  a_.sockets.denied = {denied.address()};
  PolicyChanged(a_);
  EXPECT_EQ(Read(*first.stream, 1), "<policy_denied>");
  EXPECT_EQ(Read(*denied.accepted[0], 1).front(), '<');
  Write(*second.stream, "still");
  EXPECT_EQ(Read(*allowed.accepted[0], 5), "still");
}

// Between the first question and the stream's being one that is asked again.
TEST_F(TwoNodes, ANetworkPolicyThatChangesWhileAStreamOpensHolds) {
  App& app = StartApp(b_.ip);
  ConnectFromA(app.address());
  a_.sockets.on_permit = [this, &app] { a_.sockets.denied = {app.address()}; };
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_POLICY_DENIED);
}

// A proxy that no agent with kernel programs looks after.
TEST_F(TwoNodes, WithoutKernelProgramsNobodyIsAsked) {
  App& app = StartApp(b_.ip);
  auto unjudged = std::make_shared<model::LocalWorkload>(*a_.local);
  unjudged->policy_epoch = 0;
  a_.local = unjudged;
  Publish();
  a_.sockets.denied = {app.address()};
  EXPECT_NE(ConnectFromA(app.address()).stream, nullptr);
  EXPECT_EQ(a_.state.permits.size(), 0u);
}

TEST_F(TwoNodes, TheSocketToAskWithGoesWithItsWorkload) {
  App& app = StartApp(b_.ip);
  ConnectResult open = ConnectFromA(app.address());
  ASSERT_NE(open.stream, nullptr);
  EXPECT_EQ(a_.state.permits.size(), 1u);
  auto again = std::make_shared<model::LocalWorkload>(*a_.local);
  again->generation += 1;
  a_.local = again;
  Publish();
  EXPECT_EQ(a_.state.permits.size(), 0u);
  Write(*open.stream, "drains");
  ASSERT_TRUE(RunUntil([&] { return !app.accepted.empty(); }));
  EXPECT_EQ(Read(*app.accepted[0], 6), "drains");
  ConnectResult next = ConnectFromA(app.address());
  EXPECT_NE(next.stream, nullptr) << ReasonName(next.reason);
  EXPECT_EQ(a_.state.permits.size(), 1u);
}

// Either side's: open streams go on, new ones need a new certificate.
TEST_F(TwoNodes, TunnelsTakeNothingNewOnceTheCertificateIsOver) {
  App& app = StartApp(b_.ip);
  ConnectFromA(app.address());  // takes the socket to ask for permits with
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  for (TestNode* node : {&a_, &b_}) {
    SCOPED_TRACE(node->identity);
    AddCertificate(*node, node->identity, 11, 4);
    Publish();
    a_.tunnels.DrainSource(kAlice, a_.ip);
    int tunnels = a_.sockets.taken[net::SocketKind::kTunnel];
    size_t accepted = app.accepted.size();
    ConnectResult before = ConnectFromA(app.address());
    ASSERT_NE(before.stream, nullptr) << ReasonName(before.reason);
    AddCertificate(*node, node->identity, 12);
    Publish();
    EXPECT_EQ(a_.tunnels.List().back().draining, false);
    ASSERT_TRUE(RunUntil([&] {
      auto all = a_.tunnels.List();
      return std::all_of(all.begin(), all.end(), [](const auto& t) { return t.draining; });
    }));
    ConnectResult after = ConnectFromA(app.address());
    EXPECT_NE(after.stream, nullptr) << ReasonName(after.reason);
    EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], tunnels + 2);
    ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == accepted + 2; }));
    Write(*before.stream, "still");
    EXPECT_EQ(Read(*app.accepted[accepted], 5), "still");
  }
}

TEST_F(TwoNodes, AnOwnCertificateThatIsOverMakesNoTunnel) {
  App& app = StartApp(b_.ip);
  ConnectResult before = ConnectFromA(app.address());
  ASSERT_NE(before.stream, nullptr);
  EXPECT_GT(before.expiry, std::chrono::system_clock::now());
  a_.tunnels.DrainSource(kAlice, a_.ip);
  AddCertificate(a_, kAlice, 13, -1);
  Publish();
  const int sockets = a_.sockets.taken[net::SocketKind::kTunnel];
  ConnectResult after = ConnectFromA(app.address());
  EXPECT_EQ(after.stream, nullptr);
  EXPECT_EQ(after.reason, WEFT_R_CERT_EXPIRED);
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], sockets);
}

// Everything that may go wrong with a tunnel: the application must never be reached in another way.
using NoPlaintext = MeshWorld;

TEST_F(NoPlaintext, WithoutACertificate) {
  AddCertificate(b_, kBob, 2);
  AddWorkload(a_, "alice");
  AddWorkload(b_, "bob");
  Publish();
  Listen();
  App& app = StartApp(b_.ip);
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_NO_CERTIFICATE);
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(NoPlaintext, WhenThePeerIsSomebodyElse) {
  AddCertificate(a_, kAlice, 1);
  AddCertificate(b_, kMallory, 2);
  AddWorkload(a_, "alice");
  AddWorkload(b_, "bob");
  Publish();
  Listen();
  App& app = StartApp(b_.ip);
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_IDENTITY_MISMATCH);
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(NoPlaintext, WhenThePeerIsOfAnotherRoot) {
  AddCertificate(a_, kAlice, 1);
  test::TestCert real = std::move(root_);
  root_ = test::MakeRoot();
  AddCertificate(b_, kBob, 2);
  root_ = std::move(real);
  AddWorkload(a_, "alice");
  AddWorkload(b_, "bob");
  Publish();
  Listen();
  App& app = StartApp(b_.ip);
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_CERT_UNTRUSTED);
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(NoPlaintext, WhenNobodyListensAtThePeersTunnelPort) {
  AddCertificate(a_, kAlice, 1);
  auto workload = AddWorkload(b_, "bob");
  workload->addresses = {TestIp(3)};
  Publish();
  App& app = StartApp(TestIp(3));
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_CONNECT_FAILED);
  EXPECT_TRUE(app.accepted.empty());
}

// EDS says that the endpoint is of the mesh; what to expect there has not come, or was refused.
class MarkedEndpoint : public MeshWorld {
 protected:
  MarkedEndpoint() {
    AddCertificate(a_, kAlice, 1);
    AddCertificate(b_, kBob, 2);
    AddWorkload(a_, "alice");
  }
  void Mark(SocketAddress address) {
    auto assignment = std::make_shared<model::Endpoints>();
    assignment->cluster = "web";
    assignment->endpoints = {{.address = address, .in_mesh = true}};
    endpoints_["web"] = assignment;
  }
  void ExpectRefused(const App& app, SocketAddress destination) {
    ConnectResult result = ConnectFromA(destination);
    EXPECT_EQ(result.stream, nullptr);
    EXPECT_EQ(result.reason, WEFT_R_PLAINTEXT_REFUSED);
    EXPECT_EQ(a_.sockets.taken[net::SocketKind::kTunnel], 0);
    EXPECT_TRUE(app.accepted.empty());
  }
};

TEST_F(MarkedEndpoint, IsNotReachedBeforeItsWorkloadIsKnown) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  Publish();
  Listen();
  ExpectRefused(app, app.address());
  AddWorkload(b_, "bob");
  Publish();
  ConnectResult result = ConnectFromA(app.address());
  ASSERT_NE(result.stream, nullptr) << ReasonName(result.reason);
  EXPECT_EQ(result.peer_identity, kBob);
}

// Nor its address at another port: the mark is about who is there.
TEST_F(MarkedEndpoint, IsNotReachedAtAnotherPort) {
  App& app = StartApp(b_.ip);
  Mark({b_.ip, 1});
  Publish();
  ExpectRefused(app, app.address());
}

TEST_F(MarkedEndpoint, IsNotReachedAfterItsWorkloadIsGone) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  AddWorkload(b_, "bob");
  Publish();
  Listen();
  workloads_.erase(b_.local->uid);
  Publish();
  ExpectRefused(app, app.address());
}

TEST_F(MarkedEndpoint, IsNotReachedWhereTheWorkloadSaysNoTunnel) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  AddWorkload(b_, "bob")->hbone = false;
  Publish();
  ExpectRefused(app, app.address());
}

TEST_F(MarkedEndpoint, IsNotReachedWhereTheWorkloadIsOnTheHostsNetwork) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  AddWorkload(b_, "bob")->host_network = true;
  Publish();
  ExpectRefused(app, app.address());
}

// Whoever picked it before EDS dropped it must not get there either.
TEST_F(MarkedEndpoint, IsNotReachedWhenItLeftMeanwhile) {
  App& app = StartApp(b_.ip);
  Publish();
  ConnectResult result = Await(a_.connector.Connect({.source = a_.local,
                                                     .client = {a_.ip, 40000},
                                                     .destination = app.address(),
                                                     .cluster = nullptr,
                                                     .in_mesh = true}));
  EXPECT_EQ(result.reason, WEFT_R_PLAINTEXT_REFUSED);
  EXPECT_TRUE(app.accepted.empty());
}

// An account that nobody has: no certificate can be of that name.
TEST_F(MarkedEndpoint, IsNotReachedWhereThePeersIdentityIsUnknown) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  auto workload = AddWorkload(b_, "");
  workload->trust_domain = workload->namespace_name = "";
  Publish();
  Listen();
  EXPECT_EQ(ConnectFromA(app.address()).reason, WEFT_R_IDENTITY_MISMATCH);
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(MarkedEndpoint, AloneIsRefusedToo) {
  App& app = StartApp(b_.ip);
  Mark(app.address());
  Publish();
  ConnectResult result = Await(a_.connector.Connect({.destination = app.address()}));
  EXPECT_EQ(result.reason, WEFT_R_PLAINTEXT_REFUSED);
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(NoPlaintext, WhenTheProxyRunsAlone) {
  AddWorkload(b_, "bob");
  Publish();
  App& app = StartApp(b_.ip);
  ConnectResult result = Await(a_.connector.Connect({.destination = app.address()}));
  EXPECT_EQ(result.reason, WEFT_R_NO_CERTIFICATE);
  EXPECT_TRUE(app.accepted.empty());
}

}  // namespace
}  // namespace weft::worker
