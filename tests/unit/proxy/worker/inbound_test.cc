// SPDX-License-Identifier: Apache-2.0
// What comes to a workload: plaintext at 15006, garbage at 15008, listeners that come and go.
#include "tests/unit/proxy/worker/mesh_world.h"

#include "proxy/tls/tls_stream.h"
#include "proxy/worker/inbound.h"

namespace weft::worker {
namespace {

// Plaintext as it comes to node B, with the destination that the kernel would have kept.
class Plaintext : public TwoNodes {
 protected:
  std::unique_ptr<net::Stream> Send(SocketAddress destination) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    b_.state.gate.Spawn(ServeInboundPlaintext(
        b_.state, {.stream = net::MakeSocketStream(io_.get_executor(), fds[0]),
                   .workload = b_.local,
                   .peer = {TestIp(9), 50000},
                   .destination = destination}));
    return net::MakeSocketStream(io_.get_executor(), fds[1]);
  }
  void SetStrict() {
    // As Istio and weft-control say STRICT.
    auto strict = std::make_shared<model::Authorization>();
    strict->name = "strict";
    strict->namespace_name = "prod";
    strict->scope = model::Authorization::Scope::kNamespace;
    strict->action = model::Authorization::Action::kDeny;
    model::Authorization::Match match;
    match.not_principals = {{model::Authorization::Text::Kind::kPresence, ""}};
    strict->groups = {{{match}}};
    policies_[strict->Key()] = strict;
    Publish();
  }
};

TEST_F(Plaintext, PermissiveReachesTheApplication) {
  App& app = StartApp(b_.ip);
  auto client = Send(app.address());
  Write(*client, "hi");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], 2), "hi");
  client->Close(WEFT_R_CLOSED);
  EXPECT_EQ(Read(*app.accepted[0], 1), "<eof>");
}

TEST_F(Plaintext, StrictRefuses) {
  App& app = StartApp(b_.ip);
  SetStrict();
  auto client = Send(app.address());
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_POLICY_DENIED) == 1; }));
  EXPECT_TRUE(app.accepted.empty());
}

// Whatever the kernel programs let through: our own ports are no applications.
TEST_F(Plaintext, OurOwnPortsAreNotReached) {
  uint64_t refused = 0;
  for (uint16_t port : {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS}) {
    SCOPED_TRACE(port);
    auto client = Send({b_.ip, port});
    EXPECT_EQ(Read(*client, 1).front(), '<');
    EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_NO_LISTENER) == refused + 1; }));
    ++refused;
    // By tunnel.
    EXPECT_EQ(ConnectFromA({b_.ip, port}).reason, WEFT_R_HBONE_REFUSED);
    EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_HBONE_BAD_REQUEST) == refused; }));
    // In place.
    EXPECT_EQ(ConnectFromA({a_.ip, port}).reason, WEFT_R_NO_LISTENER);
  }
  EXPECT_EQ(a_.sockets.taken[net::SocketKind::kToApp], 0);
  EXPECT_EQ(b_.sockets.taken[net::SocketKind::kToApp], 0);
}

TEST_F(Plaintext, PolicySeesNoIdentity) {
  App& app = StartApp(b_.ip);
  DenyPort(app.address().port);
  Publish();
  auto client = Send(app.address());
  EXPECT_EQ(Read(*client, 1).front(), '<');
  ASSERT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_POLICY_DENIED) == 1; }));
  telemetry::FlowRecord flow = b_.state.telemetry.flows.Since(0).back();
  EXPECT_EQ(flow.source_identity, "");
  EXPECT_EQ(flow.policy, "prod/deny-" + std::to_string(app.address().port));
  EXPECT_TRUE(app.accepted.empty());
}

TEST_F(Plaintext, APolicyThatComesLaterEndsTheConnection) {
  App& app = StartApp(b_.ip);
  auto client = Send(app.address());
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  DenyPort(1);
  Publish();
  Write(*client, "hi");
  EXPECT_EQ(Read(*app.accepted[0], 2), "hi");
  DenyPort(app.address().port);
  Publish();
  EXPECT_EQ(Read(*client, 1).front(), '<');
  ASSERT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_POLICY_DENIED) == 1; }));
  EXPECT_EQ(b_.state.telemetry.flows.Since(0).back().policy,
            "prod/deny-" + std::to_string(app.address().port));
}

TEST_F(Plaintext, StrictThatComesLaterEndsTheConnection) {
  App& app = StartApp(b_.ip);
  auto client = Send(app.address());
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  SetStrict();
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_POLICY_DENIED) == 1; }));
}

TEST_F(TwoNodes, GarbageInsteadOfTlsIsRefusedAndCounted) {
  auto client = Dial({b_.ip, WEFT_PORT_HBONE});
  Write(*client, "GET / HTTP/1.1\r\nHost: b\r\n\r\n");
  EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_TLS_HANDSHAKE_FAILED) == 1; }));
}

TEST_F(TwoNodes, GarbageInsteadOfHttp2EndsTheTunnel) {
  std::shared_ptr<const tls::TlsContext> context = a_.state.certs.Find(kAlice);
  tls::HandshakeResult tls =
      Await(tls::TlsConnect(io_.get_executor(), Dial({b_.ip, WEFT_PORT_HBONE}), context, {}));
  ASSERT_NE(tls.stream, nullptr);
  Write(*tls.stream, std::string(4096, 'x'));
  EXPECT_TRUE(RunUntil([&] { return Closed(b_, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR) == 1; }));
}

TEST_F(TwoNodes, CapturedConnectionWithoutOriginalDestinationIsClosed) {
  auto client = Dial({b_.ip, WEFT_PORT_OUTBOUND});
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_EQ(Closed(b_, WEFT_R_NO_ORIGINAL_DESTINATION), 1u);
}

TEST_F(TwoNodes, ListenersGoWithTheirWorkload) {
  std::vector<std::string> gone;
  auto empty = std::make_shared<model::Snapshot>();
  empty->sequence = 1000;
  empty->Finish();
  b_.state.Adopt(empty);
  b_.accepts.Adopt([&](const std::string& uid, uint32_t id) {
    EXPECT_EQ(id, b_.local->id);
    gone.push_back(uid);
  });
  EXPECT_EQ(gone, std::vector<std::string>{b_.local->uid});
  EXPECT_TRUE(b_.accepts.bound().empty());
}

TEST_F(TwoNodes, SocketsOfAnOutdatedSnapshotAreClosed) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  b_.accepts.Add(
      {.name = "gone", .is_workload = true, .id = 9, .sequence = 0, .fds = {fds[0], fds[1]}});
  EXPECT_EQ(fcntl(fds[0], F_GETFD), -1);
  EXPECT_EQ(b_.accepts.bound().size(), 4u);
}

}  // namespace
}  // namespace weft::worker
