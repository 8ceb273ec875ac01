// SPDX-License-Identifier: Apache-2.0
// weft-proxy as in the mesh: no socket of its own, no key, system calls filtered; this process
// plays weft-sockets, weft-keyd and weft-agent, and a peer node that comes with HBONE.
#include "tests/integration/proxy/mesh_fixture.h"

namespace weft::test {
namespace {

TEST_F(Mesh, TunnelsArriveAtASandboxedProxy) {
  Put(local_, workload_, certificate_, bundle_);
  StartMesh();
  ASSERT_TRUE(Ready());
  ASSERT_TRUE(Listening());
  EXPECT_EQ(sockets_[0]->listeners_asked, 1);
  EXPECT_EQ(sockets_[1]->listeners_asked, 0);  // it shares the leader's
  App app(io_, {ip_, 0});
  tunnel::TunnelResult result = Connect(app.address());
  ASSERT_NE(result.stream, nullptr) << ReasonName(result.reason);
  EXPECT_EQ(result.peer_identity, kBob);
  EXPECT_EQ(keyds_[0]->signatures + keyds_[1]->signatures, 1);
  std::string block(1 << 20, 'z');
  std::optional<net::IoResult> written;
  asio::co_spawn(io_, net::WriteAll(*result.stream, std::string_view(block)),
                 [&](std::exception_ptr, net::IoResult r) { written = r; });
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], block.size()), block);
  result.stream->ShutdownWrite();
  app.accepted[0]->ShutdownWrite();
  EXPECT_EQ(Read(*result.stream, 1), "<eof>");
  ASSERT_TRUE(RunUntil([&] { return AdminJson("/flows").size() == 1; }));
  auto flow = AdminJson("/flows")[0];
  EXPECT_EQ(flow["source_identity"], kAlice);
  EXPECT_EQ(flow["destination_identity"], kBob);
  EXPECT_EQ(flow["source"], "127.0.0.1:4242");
  EXPECT_EQ(flow["sent_bytes"], block.size());
  EXPECT_EQ(flow["reason"], "closed");
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitForExit(), 0);
}

TEST_F(Mesh, PolicyArrivesAndDenies) {
  Put(local_, workload_, certificate_, bundle_);
  StartMesh();
  ASSERT_TRUE(Listening());
  App app(io_, {ip_, 0});
  tunnel::TunnelResult open = Connect(app.address());
  ASSERT_NE(open.stream, nullptr) << ReasonName(open.reason);
  model::Authorization::Match match;
  match.principals = {{.kind = model::Authorization::Text::Kind::kExact,
                       .value = "cluster.local/ns/prod/sa/alice"}};
  model::Authorization deny{.scope = model::Authorization::Scope::kNamespace,
                            .action = model::Authorization::Action::kDeny,
                            .name = "no-alice",
                            .namespace_name = "prod",
                            .groups = {{{match}}}};
  Put(deny);
  // A call that is let in just before the policy arrives may be cut while it is being answered.
  tunnel::TunnelResult denied;
  EXPECT_TRUE(RunUntil([&] {
    denied = Connect(app.address());
    return denied.stream == nullptr && denied.reason != WEFT_R_UPSTREAM_RESET;
  }));
  EXPECT_EQ(denied.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(denied.policy, "prod/no-alice");
  // What was let in before is not any more.
  EXPECT_EQ(Read(*open.stream, 1).front(), '<');
}

TEST_F(Mesh, WorkloadThatLeavesIsLetGo) {
  Put(local_, workload_, certificate_, bundle_);
  StartMesh();
  ASSERT_TRUE(Listening());
  App app(io_, {ip_, 0});
  tunnel::TunnelResult open = Connect(app.address());
  ASSERT_NE(open.stream, nullptr) << ReasonName(open.reason);
  auto removed_at = std::chrono::steady_clock::now();
  xds::CacheBatch batch;
  batch.Remove(xds::kLocalWorkloadType, local_.uid);
  cache_.Apply(std::move(batch));
  EXPECT_EQ(Read(*open.stream, 1).front(), '<');
  EXPECT_LT(std::chrono::steady_clock::now() - removed_at, 5s);
  EXPECT_EQ(AdminJson("/listeners").size(), 0u);
}

TEST_F(Mesh, ReconnectsToARestartedAgentFromTheSandbox) {
  Put(local_, workload_, certificate_, bundle_);
  StartMesh();
  ASSERT_TRUE(Listening());
  for (net::Stream* stream : xds_streams_) stream->Close(WEFT_R_IO_ERROR);
  EXPECT_TRUE(RunUntil([&] {
    auto status = AdminJson("/status");
    return status["xds"]["connects"] == 2 && status["xds"]["connected"] == true;
  }));
  App app(io_, {ip_, 0});
  EXPECT_NE(Connect(app.address()).stream, nullptr);
}

}  // namespace
}  // namespace weft::test
