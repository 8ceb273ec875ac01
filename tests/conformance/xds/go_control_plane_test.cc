// SPDX-License-Identifier: Apache-2.0
// Weft's client against Envoy's go-control-plane (tests/conformance/xds-server) over a unix socket,
// in both variants. What the server says on its standard output is part of what is checked: it must
// see our ACKs and the text of our NACKs.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "proxy/net/dial.h"
#include "tests/support/run_task.h"
#include "xds/client/snapshot_source.h"

namespace weft::xds {
namespace {

using std::chrono::milliseconds;

std::string ServerBinary() {
  FILE* pipe = popen(WEFT_BUILD_SH " xds-server", "r");
  if (pipe == nullptr) return "";
  char line[4096] = "";
  std::string out;
  while (fgets(line, sizeof line, pipe) != nullptr) out = line;
  if (pclose(pipe) != 0) return "";
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// The Go program: commands go in by a pipe, lines come out by another.
class GoServer {
 public:
  explicit GoServer(const std::string& socket) {
    const std::string binary = ServerBinary();
    int in[2], out[2];
    if (binary.empty() || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) return;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    const std::string flag = "-socket=" + socket;
    char* argv[] = {const_cast<char*>(binary.c_str()), const_cast<char*>(flag.c_str()), nullptr};
    if (posix_spawn(&pid_, binary.c_str(), &files, nullptr, argv, environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&files);
    close(in[0]);
    close(out[1]);
    commands_ = in[1];
    lines_ = out[0];
    fcntl(lines_, F_SETFL, O_NONBLOCK);
  }
  ~GoServer() {
    if (commands_ >= 0) close(commands_);
    if (lines_ >= 0) close(lines_);
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  bool started() const { return pid_ > 0; }
  void Publish(const std::string& version, const std::string& path) {
    const std::string line = version + " " + path + "\n";
    ASSERT_EQ(write(commands_, line.data(), line.size()), static_cast<ssize_t>(line.size()));
  }
  // Everything that it has said until now.
  const std::string& Said() {
    char buffer[4096];
    for (ssize_t n; (n = read(lines_, buffer, sizeof buffer)) > 0;) said_.append(buffer, n);
    return said_;
  }
  bool Says(const std::string& text) { return Said().find(text) != std::string::npos; }
  size_t Count(const std::string& text) {
    size_t out = 0;
    for (size_t at = Said().find(text); at != std::string::npos; at = said_.find(text, at + 1)) {
      ++out;
    }
    return out;
  }

 private:
  pid_t pid_ = -1;
  int commands_ = -1, lines_ = -1;
  std::string said_;
};

std::string ClusterJson(const std::string& name, const std::string& more = "") {
  return R"({"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":")" + name +
         R"(","type":"EDS","edsClusterConfig":{"edsConfig":{"ads":{},"resourceApiVersion":"V3"}})" +
         more + "}";
}
std::string EndpointsJson(const std::string& name, const std::string& address) {
  return R"({"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",)"
         R"("clusterName":")" +
         name +
         R"(","endpoints":[{"lbEndpoints":[{"endpoint":{"address":{"socketAddress":{"address":")" +
         address + R"(","portValue":80}}}}]}]})";
}
std::string ListenerJson(const std::string& name) {
  return R"({"@type":"type.googleapis.com/envoy.config.listener.v3.Listener","name":")" + name +
         R"(","address":{"socketAddress":{"address":"10.0.0.1","portValue":80}},"filterChains":[{)"
         R"("filters":[{"name":"hcm","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.)"
         R"(filters.network.http_connection_manager.v3.HttpConnectionManager","statPrefix":"s",)"
         R"("rds":{"routeConfigName":"r","configSource":{"ads":{}}},"httpFilters":[{"name":"router",)"
         R"("typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.)"
         R"(Router"}}]}}]}]})";
}
std::string RoutesJson(const std::string& cluster) {
  return R"({"@type":"type.googleapis.com/envoy.config.route.v3.RouteConfiguration","name":"r",)"
         R"("virtualHosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},)"
         R"("route":{"cluster":")" +
         cluster + R"("}}]}]})";
}

class GoControlPlaneTest : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    char path[] = "/tmp/weft-xds-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    dir_ = path;
    Restart();
  }
  void Restart() {
    server_.reset();
    std::filesystem::remove(dir_ + "/s");
    server_ = std::make_unique<GoServer>(dir_ + "/s");
    ASSERT_TRUE(server_->started()) << WEFT_BUILD_SH " failed: is Go installed?";
  }
  void Start() {
    ClientOptions options;
    options.variant = GetParam();
    options.node_id = "node-1";
    options.wildcard_types = StandaloneTypes();
    // In state of the world this server would leave them unanswered for ever: they must be neither
    // asked for nor waited for.
    options.policy_types = PolicyTypes();
    options.backoff_base = options.backoff_cap = milliseconds(20);
    options.connect = [this] { return Connect(); };
    source_ = std::make_unique<SnapshotSource>(
        runner_.executor(), std::move(options),
        SnapshotSource::Callbacks{
            .on_snapshot = [this](std::shared_ptr<const model::Snapshot> s) { snapshot_ = s; }});
    asio::co_spawn(runner_.io(), source_->Run(), [this](std::exception_ptr failure) {
      EXPECT_FALSE(failure);
      ended_ = true;
    });
  }
  Task<absl::StatusOr<std::unique_ptr<net::Stream>>> Connect() {
    auto stream = co_await net::DialUnix(runner_.executor(), dir_ + "/s", milliseconds(1000));
    co_return std::move(stream);
  }
  void Publish(const std::string& version, const std::vector<std::string>& resources) {
    const std::string path = dir_ + "/" + version;
    std::ofstream file(path);
    file << R"({"resources":[)";
    for (size_t i = 0; i < resources.size(); ++i) file << (i == 0 ? "" : ",") << resources[i];
    file << "]}";
    file.close();
    server_->Publish(version, path);
    ASSERT_TRUE(Until([&] { return server_->Says(R"("published","version":")" + version); }))
        << server_->Said();
  }
  template <typename F>
  bool Until(F condition) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      runner_.io().restart();
      runner_.io().run_one_for(milliseconds(10));
    }
    return true;
  }
  bool Serves(const std::string& cluster, const std::string& address) const {
    if (!snapshot_ || !snapshot_->routes.contains("r") || !snapshot_->listeners.contains("l") ||
        !snapshot_->clusters.contains(cluster) || !snapshot_->endpoints.contains(cluster)) {
      return false;
    }
    const auto& route = snapshot_->routes.at("r")->virtual_hosts[0].routes[0];
    return std::get<model::Forward>(route.action).clusters[0].cluster == cluster &&
           snapshot_->endpoints.at(cluster)->endpoints[0].address.ip.ToString() == address;
  }
  void TearDown() override {
    if (source_) {
      source_->Stop();
      EXPECT_TRUE(Until([this] { return ended_; }));
    }
    std::filesystem::remove_all(dir_);
  }

  std::string dir_;
  std::unique_ptr<GoServer> server_;
  test::TaskRunner runner_;
  bool ended_ = false;
  std::shared_ptr<const model::Snapshot> snapshot_;
  std::unique_ptr<SnapshotSource> source_;
};

INSTANTIATE_TEST_SUITE_P(Variants, GoControlPlaneTest,
                         testing::Values(Variant::kStateOfTheWorld, Variant::kDelta),
                         [](const auto& param) {
                           return param.param == Variant::kDelta ? "Delta" : "StateOfTheWorld";
                         });

TEST_P(GoControlPlaneTest, ChangesOfAllTypesAndARefusalAndItsRepair) {
  Publish("v1",
          {ClusterJson("a"), EndpointsJson("a", "10.0.0.1"), ListenerJson("l"), RoutesJson("a")});
  Start();
  ASSERT_TRUE(Until([&] { return Serves("a", "10.0.0.1"); })) << source_->status().last_error;
  ASSERT_TRUE(Until([&] { return server_->Count(R"("ack")") >= 4; })) << server_->Said();
  EXPECT_FALSE(server_->Says("nack")) << server_->Said();

  Publish("v2",
          {ClusterJson("a"), EndpointsJson("a", "10.0.0.2"), ListenerJson("l"), RoutesJson("a")});
  ASSERT_TRUE(Until([&] { return Serves("a", "10.0.0.2"); }));

  Publish("v3", {ClusterJson("a"), ClusterJson("b"), EndpointsJson("a", "10.0.0.2"),
                 EndpointsJson("b", "10.0.0.3"), ListenerJson("l"), RoutesJson("b")});
  ASSERT_TRUE(Until([&] { return Serves("b", "10.0.0.3"); }));

  // One of two clusters is bad: it alone is refused, and the server reads why.
  Publish("v4", {ClusterJson("a", R"(,"connectTimeout":"9s")"),
                 ClusterJson("b", R"(,"lbPolicy":"RING_HASH")"), EndpointsJson("a", "10.0.0.2"),
                 EndpointsJson("b", "10.0.0.3"), ListenerJson("l"), RoutesJson("b")});
  ASSERT_TRUE(Until([&] {
    return server_->Says(R"("error":"cluster b: lb_policy: RING_HASH is not supported")");
  })) << server_->Said();
  ASSERT_TRUE(
      Until([&] { return snapshot_->clusters.at("a")->connect_timeout == milliseconds(9000); }));
  EXPECT_TRUE(Serves("b", "10.0.0.3")) << "the last good version stays";

  // Repaired, and cluster a is gone. No storm of refusals in between.
  Publish("v5", {ClusterJson("b", R"(,"connectTimeout":"7s")"), EndpointsJson("b", "10.0.0.3"),
                 ListenerJson("l"), RoutesJson("b")});
  ASSERT_TRUE(Until([&] {
    return snapshot_->clusters.at("b")->connect_timeout == milliseconds(7000) &&
           !snapshot_->clusters.contains("a");
  })) << server_->Said();
  EXPECT_LE(server_->Count(R"("nack")"), 8u) << server_->Said();
}

TEST_P(GoControlPlaneTest, TheServerIsKilledAndComesBackWithAnotherState) {
  Publish("v1",
          {ClusterJson("a"), EndpointsJson("a", "10.0.0.1"), ListenerJson("l"), RoutesJson("a")});
  Start();
  ASSERT_TRUE(Until([&] { return Serves("a", "10.0.0.1"); }));
  server_.reset();
  ASSERT_TRUE(Until([&] { return !source_->status().connected; }));
  EXPECT_TRUE(Serves("a", "10.0.0.1")) << "kept while nobody is there";
  Restart();
  Publish("v2",
          {ClusterJson("b"), EndpointsJson("b", "10.0.0.2"), ListenerJson("l"), RoutesJson("b")});
  ASSERT_TRUE(Until([&] { return Serves("b", "10.0.0.2") && !snapshot_->clusters.contains("a"); }))
      << server_->Said() << source_->status().last_error;
}

}  // namespace
}  // namespace weft::xds
