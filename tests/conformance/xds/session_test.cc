// SPDX-License-Identifier: Apache-2.0
// The client against the server half over in-memory streams, in both variants: changes, refusals, a
// server that vanishes, sends garbage or says no.
#include <algorithm>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proxy/net/stream_pair.h"
#include "tests/support/run_task.h"
#include "xds/client/snapshot_source.h"
#include "xds/server/server.h"

namespace weft::xds {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

model::Cluster EdsCluster(const std::string& name) {
  return {.name = name, .type = model::DiscoveryType::kEds, .eds_name = name};
}
model::Endpoints OneEndpoint(const std::string& cluster, const std::string& address) {
  return {.cluster = cluster, .endpoints = {{.address = *SocketAddress::Parse(address)}}};
}
model::Listener HttpListener(const std::string& name) {
  model::Listener out{.name = name, .address = SocketAddress::Parse("10.0.0.1:80")};
  out.http.emplace().rds_name = name;
  return out;
}
model::RouteConfiguration RouteTo(const std::string& name, const std::string& cluster) {
  model::RouteConfiguration out{.name = name};
  model::Route route;
  route.action = model::Forward{.clusters = {{.cluster = cluster, .weight = 1}}};
  out.virtual_hosts.push_back({.name = "v", .domains = {"*"}, .routes = {route}});
  return out;
}
// A cluster that decodes as protobuf and is refused.
Encoded BadCluster(const std::string& name) {
  envoy::config::cluster::v3::Cluster proto;
  proto.set_name(name);
  proto.set_type(envoy::config::cluster::v3::Cluster::STRICT_DNS);
  return {std::string(kClusterType), name, proto.SerializeAsString()};
}

// Breaks once the server has written `left` bytes.
class CutStream final : public net::Stream {
 public:
  CutStream(std::unique_ptr<net::Stream> inner, size_t left)
      : inner_(std::move(inner)), left_(left) {}
  net::IoResult TryRead(std::span<uint8_t> into) override { return inner_->TryRead(into); }
  net::IoResult TryWrite(std::span<const iovec> from) override {
    if (left_ == 0) {
      inner_->Close(WEFT_R_PEER_RESET);
      return {.status = net::IoStatus::kError, .reason = WEFT_R_PEER_RESET};
    }
    const iovec some{from[0].iov_base, std::min(from[0].iov_len, left_)};
    const net::IoResult out = inner_->TryWrite({&some, 1});
    left_ -= out.bytes;
    return out;
  }
  Task<void> Readable() override { return inner_->Readable(); }
  Task<void> Writable() override { return inner_->Writable(); }
  void ShutdownWrite() override { inner_->ShutdownWrite(); }
  void Close(Reason reason) override { inner_->Close(reason); }
  int native_handle() const override { return inner_->native_handle(); }

 private:
  std::unique_ptr<net::Stream> inner_;
  size_t left_;
};

class SessionTest : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    server_options_->cache = &cache_;
    server_options_->on_nack = [this](const AdsNack& nack) { nacks_.push_back(nack); };
    server_options_->on_stream = [this](const GrpcPeer&, const AdsNode&, bool connected) {
      streams_ += connected ? 1 : -1;
    };
    client_options_.variant = GetParam();
    client_options_.node_id = "node-1";
    client_options_.node_metadata = {{"ROLE", "test"}};
    client_options_.wildcard_types = StandaloneTypes();
    client_options_.backoff_base = milliseconds(1);
    client_options_.backoff_cap = milliseconds(2);
    client_options_.connect = [this] { return Connect(); };
  }

  Task<absl::StatusOr<std::unique_ptr<net::Stream>>> Connect() {
    ++connects_;
    if (!server_up_) co_return absl::UnavailableError("connection refused");
    auto [near, far] = net::MakeStreamPair(runner_.executor(), pair_);
    far_ = far.get();
    if (cut_step_ > 0) far = std::make_unique<CutStream>(std::move(far), cut_step_ * connects_);
    if (serve_) {
      runner_.Spawn(
          ServeGrpc(std::move(far), {.identity = "id", .address = "test"}, server_options_));
    } else {
      raw_ = std::move(far);
    }
    co_return std::move(near);
  }

  void Put(std::initializer_list<Encoded> resources) {
    CacheBatch batch;
    for (const Encoded& resource : resources) batch.Put(resource);
    cache_.Apply(std::move(batch));
  }
  void Remove(std::string_view type, const std::string& name) {
    CacheBatch batch;
    batch.Remove(type, name);
    cache_.Apply(std::move(batch));
  }
  void PutAll(const std::string& name) {
    Put({Encode(EdsCluster(name)), Encode(OneEndpoint(name, "10.0.0.5:80")),
         Encode(HttpListener(name)), Encode(RouteTo(name, name))});
  }

  void Start() {
    source_ = std::make_unique<SnapshotSource>(
        runner_.executor(), client_options_,
        SnapshotSource::Callbacks{
            .on_snapshot = [this](std::shared_ptr<const model::Snapshot> s) { snapshot_ = s; },
            .on_update = [this](const Update& update) { updates_.push_back(update); }});
    asio::co_spawn(runner_.io(), source_->Run(), [this](std::exception_ptr failure) {
      EXPECT_FALSE(failure);
      client_ended_ = true;
    });
  }
  // Runs the loop until `condition` holds.
  template <typename F>
  ::testing::AssertionResult Until(F condition) {
    runner_.io().restart();
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) {
        return ::testing::AssertionFailure()
               << "20 s passed; the client says: " << source_->status().last_error;
      }
      runner_.io().restart();
      runner_.io().run_one_for(milliseconds(100));
    }
    return ::testing::AssertionSuccess();
  }
  void TearDown() override {
    if (source_) {
      source_->Stop();
      EXPECT_TRUE(Until([this] { return client_ended_; }));
    }
    raw_.reset();
    // The server's coroutines end when they see the client's end close.
    runner_.io().restart();
    runner_.io().run_for(milliseconds(200));
  }
  bool HasCluster(const std::string& name) const {
    return snapshot_ != nullptr && snapshot_->clusters.contains(name);
  }
  const TypeStatus& Status(std::string_view type) {
    status_ = source_->status();
    return *std::find_if(status_.types.begin(), status_.types.end(),
                         [&](const TypeStatus& t) { return t.type_url == type; });
  }

  ResourceCache cache_;
  std::shared_ptr<ServerOptions> server_options_ = std::make_shared<ServerOptions>();
  ClientOptions client_options_;
  net::StreamPairOptions pair_;
  test::TaskRunner runner_;
  bool server_up_ = true, serve_ = true, client_ended_ = false;
  net::Stream* far_ = nullptr;        // the server's end of the last connection
  std::unique_ptr<net::Stream> raw_;  // the same, ours, if !serve_
  size_t cut_step_ = 0;  // if not 0: the n-th connection breaks after n times that many bytes
  int connects_ = 0, streams_ = 0;
  std::vector<AdsNack> nacks_;
  std::vector<Update> updates_;
  std::shared_ptr<const model::Snapshot> snapshot_;
  ClientStatus status_;
  std::unique_ptr<SnapshotSource> source_;
};

INSTANTIATE_TEST_SUITE_P(Variants, SessionTest,
                         testing::Values(Variant::kStateOfTheWorld, Variant::kDelta),
                         [](const auto& param) {
                           return param.param == Variant::kDelta ? "Delta" : "StateOfTheWorld";
                         });

// It accepted and says nothing: left, with the cause, and tried again.
TEST_P(SessionTest, ASilentServerIsLeft) {
  serve_ = false;
  client_options_.first_byte_limit = milliseconds(20);
  Start();
  ASSERT_TRUE(Until([&] { return connects_ >= 2; }));
  EXPECT_THAT(source_->status().last_error, HasSubstr("says nothing"));
  serve_ = true;
  PutAll("web");
  EXPECT_TRUE(Until([&] { return HasCluster("web"); }));
}

TEST_P(SessionTest, AllFourTypesBecomeOneSnapshot) {
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
  EXPECT_EQ(*snapshot_->clusters.at("web"), EdsCluster("web"));
  EXPECT_EQ(*snapshot_->endpoints.at("web"), OneEndpoint("web", "10.0.0.5:80"));
  EXPECT_EQ(*snapshot_->routes.at("web"), RouteTo("web", "web"));
  EXPECT_EQ(*snapshot_->listeners.at("web"), HttpListener("web"));
  EXPECT_TRUE(source_->status().connected);
  EXPECT_EQ(streams_, 1);
  EXPECT_EQ(Status(kClusterType).resources, 1u);
  EXPECT_NE(Status(kClusterType).version, "");
  EXPECT_TRUE(source_->warming().empty());
}

TEST_P(SessionTest, AnEmptyServerGivesAnEmptySnapshot) {
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ != nullptr; }));
  EXPECT_TRUE(snapshot_->clusters.empty());
}

TEST_P(SessionTest, ChangesAndRemovalsArrive) {
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
  const auto cluster = snapshot_->clusters.at("web");
  Put({Encode(OneEndpoint("web", "10.0.0.6:80"))});
  ASSERT_TRUE(Until([&] {
    return snapshot_->endpoints.at("web")->endpoints[0].address.ToString() == "10.0.0.6:80";
  }));
  EXPECT_EQ(snapshot_->clusters.at("web"), cluster) << "unchanged parts are shared";
  PutAll("api");
  ASSERT_TRUE(Until([&] { return snapshot_->listeners.contains("api"); }));
  cache_.Replace({std::string(kClusterType), std::string(kEndpointsType),
                  std::string(kListenerType), std::string(kRouteType)},
                 {Encode(EdsCluster("api")), Encode(OneEndpoint("api", "10.0.0.5:80")),
                  Encode(HttpListener("api")), Encode(RouteTo("api", "api"))});
  ASSERT_TRUE(Until([&] { return !snapshot_->clusters.contains("web"); }));
  EXPECT_FALSE(snapshot_->listeners.contains("web"));
  EXPECT_FALSE(snapshot_->routes.contains("web"));
  EXPECT_FALSE(snapshot_->endpoints.contains("web"));
  EXPECT_TRUE(snapshot_->listeners.contains("api"));
}

TEST_P(SessionTest, ABadResourceIsRefusedByNameAndTheRestIsApplied) {
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return HasCluster("web"); }));
  const auto good = snapshot_->clusters.at("web");
  Put({BadCluster("web"), BadCluster("new"), Encode(EdsCluster("api")),
       Encode(OneEndpoint("api", "10.0.0.7:80"))});
  ASSERT_TRUE(Until([&] { return HasCluster("api") && !nacks_.empty(); }));
  EXPECT_EQ(nacks_[0].node.id, "node-1");
  EXPECT_EQ(nacks_[0].node.metadata.at("ROLE"), "test");
  EXPECT_EQ(nacks_[0].peer.identity, "id");
  EXPECT_EQ(nacks_[0].type_url, kClusterType);
  EXPECT_EQ(nacks_[0].error,
            "cluster new: type: STRICT_DNS is not supported; "
            "cluster web: type: STRICT_DNS is not supported");
  EXPECT_EQ(snapshot_->clusters.at("web"), good) << "the last good version stays";
  EXPECT_FALSE(HasCluster("new"));
  EXPECT_EQ(Status(kClusterType).last_nack, nacks_[0].error);
  EXPECT_EQ(Status(kClusterType).nacks, 1u);
  // Repaired: accepted, and the status says so.
  Remove(kClusterType, "new");
  model::Cluster repaired = EdsCluster("web");
  repaired.connect_timeout = milliseconds(77);
  Put({Encode(repaired)});
  ASSERT_TRUE(Until([&] {
    return snapshot_->clusters.at("web")->connect_timeout == milliseconds(77) &&
           Status(kClusterType).last_nack.empty();
  }));
}

TEST_P(SessionTest, KeepsWhatItHasWhileTheServerIsGoneAndCatchesUp) {
  PutAll("web");
  PutAll("old");
  Start();
  ASSERT_TRUE(Until([&] {
    return snapshot_ && snapshot_->listeners.contains("web") &&
           snapshot_->listeners.contains("old");
  }));
  const auto cluster = snapshot_->clusters.at("web");
  updates_.clear();
  server_up_ = false;
  far_->Close(WEFT_R_PEER_RESET);
  ASSERT_TRUE(Until([&] { return connects_ >= 4; }));
  EXPECT_FALSE(source_->status().connected);
  EXPECT_EQ(source_->status().last_error, "connection refused");
  EXPECT_EQ(snapshot_->clusters.size(), 2u);
  for (std::string_view type : {kClusterType, kEndpointsType, kListenerType, kRouteType}) {
    Remove(type, "old");
  }
  PutAll("new");
  server_up_ = true;
  ASSERT_TRUE(Until([&] {
    return snapshot_->listeners.contains("new") && !snapshot_->clusters.contains("old");
  }));
  EXPECT_EQ(snapshot_->clusters.at("web"), cluster);
  for (const Update& update : updates_) {
    for (const auto& changed : update.changed) EXPECT_EQ(changed.name, "new") << update.type_url;
  }
}

TEST_P(SessionTest, TheServerVanishesAtEveryPointOfItsAnswer) {
  cut_step_ = 23;
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
  EXPECT_GE(connects_, 10);
  EXPECT_EQ(*snapshot_->routes.at("web"), RouteTo("web", "web"));
}

TEST_P(SessionTest, GarbageInsteadOfHttp2IsAnErrorAndIsTriedAgain) {
  serve_ = false;
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return raw_ != nullptr; }));
  const std::string garbage = "HTTP/1.1 400 Bad Request\r\n\r\n";
  const iovec from{const_cast<char*>(garbage.data()), garbage.size()};
  ASSERT_EQ(raw_->TryWrite({&from, 1}).bytes, garbage.size());
  serve_ = true;
  ASSERT_TRUE(Until([&] { return connects_ >= 2; }));
  EXPECT_THAT(source_->status().last_error, HasSubstr("HTTP/2"));
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
}

TEST_P(SessionTest, ARefusedNodeHearsWhy) {
  server_options_->admit = [](const GrpcPeer&, const AdsNode& node, const http::HeaderList&) {
    return absl::PermissionDeniedError("node " + node.id + " is not ours: 100%");
  };
  Start();
  ASSERT_TRUE(Until([&] { return connects_ >= 2; }));
  EXPECT_EQ(source_->status().last_error,
            "the server ended the stream: status 7, node node-1 is not ours: 100%");
  EXPECT_EQ(snapshot_, nullptr);
  EXPECT_EQ(streams_, 0);
}

TEST_P(SessionTest, EachNodeSeesWhatItMay) {
  server_options_->visible = [](const GrpcPeer&, const AdsNode&, std::string_view,
                                std::string_view name) { return name != "secret"; };
  Put({Encode(EdsCluster("secret"))});
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
  EXPECT_FALSE(HasCluster("secret"));
  server_options_->visible = nullptr;
  cache_.Touch({std::string(kClusterType)});
  Put({Encode(OneEndpoint("secret", "10.0.0.9:1"))});
  ASSERT_TRUE(Until([&] { return HasCluster("secret"); }));
}

TEST_P(SessionTest, ALotOfResourcesInSmallSteps) {
  pair_.capacity_bytes = 4096;
  server_options_->max_response_bytes = 20000;
  CacheBatch batch;
  for (int i = 0; i < 2000; ++i) batch.Put(Encode(EdsCluster("c" + std::to_string(i))));
  for (int i = 0; i < 2000; ++i) {
    batch.Put(Encode(OneEndpoint("c" + std::to_string(i), "10.0.0.1:80")));
  }
  cache_.Apply(std::move(batch));
  Start();
  ASSERT_TRUE(Until([&] {
    return snapshot_ && snapshot_->clusters.size() == 2000 && snapshot_->endpoints.size() == 2000;
  }));
}

TEST_P(SessionTest, ARouteThatDoesNotCompileIsRefusedByTheCallersCheck) {
  client_options_.decode.check_routes = [](const model::RouteConfiguration& routes) {
    return routes.virtual_hosts[0].routes[0].path.value == "("
               ? absl::InvalidArgumentError("virtual host v: regex \"(\": missing )")
               : absl::OkStatus();
  };
  PutAll("web");
  Start();
  ASSERT_TRUE(Until([&] { return snapshot_ && snapshot_->listeners.contains("web"); }));
  model::RouteConfiguration bad = RouteTo("web", "web");
  bad.virtual_hosts[0].routes[0].path = {model::PathMatch::Kind::kRegex, "("};
  Put({Encode(bad)});
  ASSERT_TRUE(Until([&] { return !nacks_.empty(); }));
  EXPECT_EQ(nacks_[0].error, "routes web: virtual host v: regex \"(\": missing )");
  EXPECT_EQ(*snapshot_->routes.at("web"), RouteTo("web", "web"));
}

}  // namespace
}  // namespace weft::xds
