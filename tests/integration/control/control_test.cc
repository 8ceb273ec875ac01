// SPDX-License-Identifier: Apache-2.0
// weft-control from outside: a folder that changes, nodes that join, xDS over its ports, and what
// it refuses.
#include <gmock/gmock.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <random>

#include "control/agent/grpc_call.h"
#include "control/identity/ca.h"
#include "proxy/net/dial.h"
#include "proxy/tls/tls_stream.h"
#include "tests/integration/control/control_process.h"
#include "tests/support/test_csr.h"
#include "xds/client/snapshot_source.h"
#include "xds/decode/ca_messages.h"

namespace weft::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kNodeA[] = "spiffe://cluster.local/weft/node/node-a";
constexpr char kWeb[] = "spiffe://cluster.local/ns/demo/sa/web";
constexpr char kWebRoutes[] = "outbound|80||web.demo.svc.cluster.local";
constexpr std::chrono::milliseconds kDialTimeout{5000};

struct Credentials {
  std::string chain_pem, key_pem;  // empty: none
};

Task<net::StatusOrStream> ConnectPlain(asio::any_io_executor executor, SocketAddress address) {
  auto stream = co_await net::DialTcp(executor, address, kDialTimeout);
  co_return stream;
}

Task<net::StatusOrStream> ConnectTls(asio::any_io_executor executor, SocketAddress address,
                                     std::string roots, Credentials credentials) {
  auto context = tls::TlsContext::Client({.roots_pem = roots,
                                          .server_name = "127.0.0.1",
                                          .chain_pem = credentials.chain_pem,
                                          .key_pem = credentials.key_pem});
  if (!context.ok()) co_return context.status();
  auto transport = co_await net::DialTcp(executor, address, kDialTimeout);
  if (!transport.ok()) co_return transport.status();
  auto result =
      co_await tls::TlsConnect(executor, *std::move(transport), *context, tls::TlsClientOptions{});
  if (result.stream == nullptr)
    co_return absl::UnavailableError("TLS: " + std::string(ReasonName(result.reason)));
  co_return std::move(result.stream);
}

class ControlTest : public ::testing::Test {
 protected:
  bool RunUntil(const std::function<bool()>& condition) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(10));
    }
    return true;
  }

  // One xDS client, with everything it was told.
  struct Node {
    std::unique_ptr<xds::SnapshotSource> source;
    std::shared_ptr<const model::Snapshot> snapshot;
    std::vector<std::string> changed, removed;  // names, in the order of their arrival
    bool ended = false;
  };
  std::unique_ptr<Node> Connect(xds::ConnectFunction connect,
                                xds::Variant variant = xds::Variant::kDelta,
                                xds::DecodeOptions decode = {}) {
    auto node = std::make_unique<Node>();
    Node* const raw = node.get();
    xds::ClientOptions options{
        .variant = variant, .connect = std::move(connect), .node_id = "test-node"};
    options.wildcard_types = xds::AgentTypes();
    options.policy_types = xds::PolicyTypes();
    options.decode = std::move(decode);
    options.backoff_base = std::chrono::milliseconds(20);
    node->source = std::make_unique<xds::SnapshotSource>(
        io_.get_executor(), std::move(options),
        xds::SnapshotSource::Callbacks{.on_snapshot =
                                           [raw](std::shared_ptr<const model::Snapshot> next) {
                                             raw->snapshot = std::move(next);
                                           },
                                       .on_update =
                                           [raw](const xds::Update& update) {
                                             for (const auto& each : update.changed)
                                               raw->changed.push_back(each.name);
                                             for (const auto& each : update.removed)
                                               raw->removed.push_back(each);
                                           }});
    asio::co_spawn(io_, node->source->Run(), [raw](std::exception_ptr) { raw->ended = true; });
    return node;
  }
  std::unique_ptr<Node> ConnectPlaintext(xds::Variant variant = xds::Variant::kDelta,
                                         xds::DecodeOptions decode = {}) {
    return Connect([this] { return ConnectPlain(io_.get_executor(), control_.plaintext()); },
                   variant, std::move(decode));
  }
  std::unique_ptr<Node> ConnectAs(const Credentials& credentials) {
    return Connect([this, credentials] {
      return ConnectTls(io_.get_executor(), control_.tls(), Root(), credentials);
    });
  }
  void Disconnect(Node& node) {
    node.source->Stop();
    EXPECT_TRUE(RunUntil([&] { return node.ended; }));
  }

  std::string Root() const { return ReadFile(control_.state() + "/root.pem"); }

  // CreateCertificate over TLS. An error carries the server's words.
  absl::StatusOr<Credentials> Ask(const Credentials& as, const std::string& token,
                                  const std::string& identity) {
    const TestCsr csr = MakeTestCsr(identity);
    std::optional<absl::StatusOr<std::string>> answer;
    asio::co_spawn(io_, CallCreate(this, as, token, identity, csr.csr_pem),
                   [&](std::exception_ptr, absl::StatusOr<std::string> result) {
                     answer = std::move(result);
                   });
    if (!RunUntil([&] { return answer.has_value(); }))
      return absl::DeadlineExceededError("no answer");
    WEFT_RETURN_IF_ERROR(answer->status());
    WEFT_ASSIGN_OR_RETURN(const auto response, xds::DecodeCertificateResponse(**answer));
    Credentials out{.key_pem = csr.key_pem};
    for (const std::string& pem : response.chain_pem) out.chain_pem += pem;
    return out;
  }
  static Task<absl::StatusOr<std::string>> CallCreate(ControlTest* self, Credentials as,
                                                      std::string token, std::string identity,
                                                      std::string csr) {
    auto stream =
        co_await ConnectTls(self->io_.get_executor(), self->control_.tls(), self->Root(), as);
    if (!stream.ok()) co_return stream.status();
    agent::GrpcCall call{.authority = "control", .path = std::string(xds::kCreateCertificatePath)};
    if (!token.empty()) call.metadata.emplace_back("authorization", "Bearer " + token);
    call.message =
        xds::EncodeCertificateRequest({.csr_pem = csr, .impersonated_identity = identity});
    auto answer =
        co_await agent::CallUnary(self->io_.get_executor(), *std::move(stream), std::move(call));
    co_return answer;
  }

  boost::asio::io_context io_{1};
  ControlProcess control_;
};

uint32_t WeightOf(const model::Snapshot& snapshot, size_t cluster) {
  for (const model::Route& route : snapshot.routes.at(kWebRoutes)->virtual_hosts.at(0).routes) {
    const auto* forward = std::get_if<model::Forward>(&route.action);
    if (forward != nullptr && forward->clusters.size() == 2)
      return forward->clusters[cluster].weight;
  }
  return 0;
}

class VariantTest : public ControlTest, public ::testing::WithParamInterface<xds::Variant> {};

TEST_P(VariantTest, TheDemosConfigurationArrivesAndFollowsTheFolder) {
  control_.Start();
  const auto node = ConnectPlaintext(GetParam());
  ASSERT_TRUE(RunUntil([&] {
    return node->snapshot && node->snapshot->routes.contains(kWebRoutes);
  })) << control_.Log();
  EXPECT_EQ(node->snapshot->listeners.size(), 5u);
  EXPECT_EQ(node->snapshot->clusters.size(), 5u);
  EXPECT_EQ(node->snapshot->endpoints.size(), 5u);
  EXPECT_EQ(node->snapshot->workloads.size(), 7u);
  EXPECT_EQ(node->snapshot->services.size(), 5u);
  EXPECT_EQ(node->snapshot->authorizations.size(), 2u);
  EXPECT_EQ(WeightOf(*node->snapshot, 0), 90u);

  // A change reaches us, and in the delta variant nothing else does.
  node->changed.clear();
  const auto start = std::chrono::steady_clock::now();
  control_.Replace("30-routes.yaml", "weight: 90", "weight: 50");
  ASSERT_TRUE(RunUntil([&] { return WeightOf(*node->snapshot, 0) == 50; })) << control_.Log();
  const auto took = std::chrono::steady_clock::now() - start;
  RecordProperty("file_to_snapshot_ms", static_cast<int>(took / std::chrono::milliseconds(1)));
  EXPECT_LT(took, std::chrono::seconds(2));
  if (GetParam() == xds::Variant::kDelta) {
    EXPECT_THAT(node->changed, ElementsAre(kWebRoutes));
  }

  // Broken: refused with file and line, and what was good stays; another object of the same change
  // applies.
  control_.Replace("30-routes.yaml", "weight: 50", "weight: fifty");
  ASSERT_TRUE(WaitUntil([&] { return !control_.Status().at("problems").empty(); }));
  EXPECT_EQ(control_.Status()["problems"][0]["message"],
            control_.manifests() +
                "/30-routes.yaml:19: spec.rules[1].backendRefs[0].weight: expected a number from 0 "
                "to 1000000, "
                "found \"fifty\"");
  control_.Replace("20-services.yaml", "clusterIP: 10.96.0.20", "clusterIP: 10.96.0.21");
  ASSERT_TRUE(RunUntil([&] {
    return node->snapshot->listeners.at("outbound|6379||redis.demo.svc.cluster.local")
               ->address->ip.ToString() == "10.96.0.21";
  }));
  EXPECT_EQ(WeightOf(*node->snapshot, 0), 50u);
  EXPECT_EQ(WeightOf(*node->snapshot, 1), 10u);

  // What is deleted goes.
  std::filesystem::remove(control_.manifests() + "/40-policies.yaml");
  ASSERT_TRUE(RunUntil([&] { return node->snapshot->authorizations.empty(); }));
  Disconnect(*node);
}

constexpr char kPodPolicies[] = R"(apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: demo}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: weft.dev/v1
kind: ProcessPolicy
metadata: {name: watch, namespace: demo}
spec: {mode: Monitor, rules: [{name: calls, connect: {}, action: Log}]}
)";

TEST_P(VariantTest, PoliciesForTheKernelArriveAndGo) {
  control_.Start();
  control_.Write("60-kernel.yaml", kPodPolicies);
  const auto node = ConnectPlaintext(GetParam());
  ASSERT_TRUE(RunUntil([&] {
    return node->snapshot && node->snapshot->network_policies.contains("demo/closed") &&
           node->snapshot->process_policies.contains("demo/watch");
  })) << control_.Log();
  const model::NetworkPolicy& closed = *node->snapshot->network_policies.at("demo/closed");
  EXPECT_EQ(closed.subjects.size(), 7u);
  for (const std::string& uid : closed.subjects) {
    EXPECT_TRUE(node->snapshot->workloads.contains(uid)) << uid;
  }
  EXPECT_TRUE(closed.isolates_ingress && closed.isolates_egress);
  EXPECT_FALSE(node->snapshot->process_policies.at("demo/watch")->enforce);
  std::filesystem::remove(control_.manifests() + "/60-kernel.yaml");
  ASSERT_TRUE(RunUntil([&] {
    return node->snapshot->network_policies.empty() && node->snapshot->process_policies.empty();
  }));
  Disconnect(*node);
}

INSTANTIATE_TEST_SUITE_P(Both, VariantTest,
                         ::testing::Values(xds::Variant::kDelta, xds::Variant::kStateOfTheWorld),
                         [](const auto& each) {
                           return each.param == xds::Variant::kDelta ? "Delta" : "StateOfTheWorld";
                         });

TEST_F(ControlTest, ANodeJoinsAndSpeaksForItsWorkloadsOnly) {
  control_.Start();
  const auto node = Ask({}, "0123456789abcdef-a", kNodeA);
  ASSERT_TRUE(node.ok()) << node.status();
  const auto web = Ask(*node, "", kWeb);
  ASSERT_TRUE(web.ok()) << web.status();
  const auto renewed = Ask(*node, "", kNodeA);
  EXPECT_TRUE(renewed.ok()) << renewed.status();

  const auto refusal = [](const absl::StatusOr<Credentials>& answer) {
    return std::string(answer.status().message());
  };
  EXPECT_THAT(refusal(Ask({}, "", kNodeA)),
              HasSubstr("neither a node's certificate nor a join token"));
  EXPECT_THAT(refusal(Ask({}, "0123456789abcdef-x", kNodeA)), HasSubstr("join token is not known"));
  EXPECT_THAT(refusal(Ask({}, "0123456789abcdef-a", kWeb)),
              HasSubstr("a join token gives the node's own certificate"));
  EXPECT_THAT(refusal(Ask({}, "0123456789abcdef-b", kNodeA)), HasSubstr("weft/node/node-b) only"));
  EXPECT_THAT(refusal(Ask(*web, "", kWeb)), HasSubstr("is not a node"));
  const auto node_b = Ask({}, "0123456789abcdef-b", "spiffe://cluster.local/weft/node/node-b");
  ASSERT_TRUE(node_b.ok()) << node_b.status();
  EXPECT_THAT(refusal(Ask(*node_b, "", "spiffe://cluster.local/ns/demo/sa/client")),
              HasSubstr("runs on node node-b"));
  // A workload moves: the right to speak for it moves too.
  control_.Replace("10-workloads.yaml", "node: node-a",
                   "node: node-b");  // the first one is the client
  ASSERT_TRUE(WaitUntil([&] { return control_.Status().at("updates") == 2; }));
  EXPECT_TRUE(Ask(*node_b, "", "spiffe://cluster.local/ns/demo/sa/client").ok());
  EXPECT_THAT(refusal(Ask(*node, "", "spiffe://cluster.local/ns/demo/sa/client")),
              HasSubstr("runs on node node-a"));
}

TEST_F(ControlTest, XdsOverTlsIsForNodes) {
  control_.Start();
  const auto credentials = Ask({}, "0123456789abcdef-a", kNodeA);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto web = Ask(*credentials, "", kWeb);
  ASSERT_TRUE(web.ok()) << web.status();

  const auto node = ConnectAs(*credentials);
  ASSERT_TRUE(RunUntil([&] { return node->snapshot && node->snapshot->workloads.size() == 7; }))
      << control_.Log();
  ASSERT_TRUE(WaitUntil([&] { return !control_.Status().at("nodes").empty(); }));
  const auto status = control_.Status();
  EXPECT_EQ(status["nodes"][0]["identity"], kNodeA);
  EXPECT_EQ(status["nodes"][0]["id"], "test-node");
  EXPECT_EQ(status["nodes"][0]["connected"], true);
  Disconnect(*node);
  EXPECT_TRUE(WaitUntil([&] { return control_.Status()["nodes"][0]["connected"] == false; }));

  for (const Credentials& who : {Credentials{}, *web}) {
    const auto stranger = ConnectAs(who);
    ASSERT_TRUE(RunUntil([&] {
      const std::string error = stranger->source->status().last_error;
      return !error.empty() && error != "not connected yet";
    }));
    EXPECT_THAT(stranger->source->status().last_error,
                HasSubstr(who.chain_pem.empty() ? "xDS needs a node's certificate"
                                                : "is not a node of the trust domain"));
    EXPECT_EQ(stranger->snapshot, nullptr);
    Disconnect(*stranger);
  }
}

TEST_F(ControlTest, ACertificateOfAnotherAuthorityIsRefused) {
  control_.Start();
  const auto other = identity::CertificateAuthority::Create("cluster.local");
  ASSERT_TRUE(other.ok());
  const TestCsr csr = MakeTestCsr(kNodeA);
  const auto chain = (*other)->SignCsr(csr.csr_pem, kNodeA, std::chrono::hours(1));
  ASSERT_TRUE(chain.ok()) << chain.status();
  const auto answer =
      Ask({.chain_pem = chain->pem[0] + chain->pem[1], .key_pem = csr.key_pem}, "", kNodeA);
  EXPECT_FALSE(answer.ok());
}

TEST_F(ControlTest, TheLastNackOfANodeIsShown) {
  control_.Start();
  const auto node =
      ConnectPlaintext(xds::Variant::kDelta, {.check_routes = [](const model::RouteConfiguration&) {
                         return absl::InvalidArgumentError("not to my taste");
                       }});
  ASSERT_TRUE(RunUntil([&] {
    const auto status = control_.Status();
    return !status["nodes"].empty() && !status["nodes"][0]["lastNacks"].empty();
  })) << control_.Log();
  const auto nack = control_.Status()["nodes"][0]["lastNacks"][0];
  EXPECT_EQ(nack["type"], "type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
  EXPECT_THAT(nack["error"].get<std::string>(), HasSubstr("not to my taste"));
  Disconnect(*node);
}

TEST_F(ControlTest, HalfWrittenAndRenamedFilesNeverShow) {
  control_.Start();
  const auto node = ConnectPlaintext();
  ASSERT_TRUE(
      RunUntil([&] { return node->snapshot && node->snapshot->routes.contains(kWebRoutes); }));
  const std::string path = control_.manifests() + "/30-routes.yaml";
  const std::string whole = ReadFile(path);
  const std::string next = std::string(whole).replace(whole.find("weight: 90"), 10, "weight: 70");
  const int fd = open(path.c_str(), O_WRONLY | O_TRUNC);
  ASSERT_GE(fd, 0);
  const size_t half = next.find("weight: 70") + 9;  // "weight: 7": a valid number, the wrong one
  ASSERT_EQ(write(fd, next.data(), half), static_cast<ssize_t>(half));
  control_.Write("50-new.yaml",
                 "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: new, namespace: demo}\n");
  ASSERT_TRUE(WaitUntil([&] { return control_.Status()["objects"].size() == 21; }));
  EXPECT_THAT(control_.Status()["problems"], IsEmpty());
  EXPECT_EQ(WeightOf(*node->snapshot, 0), 90u);
  ASSERT_EQ(write(fd, next.data() + half, next.size() - half),
            static_cast<ssize_t>(next.size() - half));
  close(fd);
  ASSERT_TRUE(RunUntil([&] { return WeightOf(*node->snapshot, 0) == 70; }));
  // As editors do it: beside, then over.
  std::ofstream(control_.manifests() + "/.30-routes.yaml.swp") << "garbage: [";
  std::ofstream(control_.manifests() + "/30-routes.yaml~") << whole;
  std::filesystem::rename(control_.manifests() + "/30-routes.yaml~", path);
  ASSERT_TRUE(RunUntil([&] { return WeightOf(*node->snapshot, 0) == 90; }));
  EXPECT_THAT(control_.Status()["problems"], IsEmpty());
  Disconnect(*node);
}

Task<void> SendGarbage(asio::any_io_executor executor, SocketAddress address, std::string bytes,
                       int* done) {
  auto stream = co_await net::DialTcp(executor, address, kDialTimeout);
  if (stream.ok()) {
    const iovec data{bytes.data(), bytes.size()};
    (void)(*stream)->TryWrite({&data, 1});
    (*stream)->ShutdownWrite();
    std::vector<uint8_t> buffer(
        4096);  // not in the frame: g++ 12 then warns of a mismatched delete
    for (int i = 0; i < 100; ++i) {
      co_await (*stream)->Readable();
      const net::IoResult in = (*stream)->TryRead(buffer);
      if (in.status == net::IoStatus::kEof || in.status == net::IoStatus::kError) break;
    }
    (*stream)->Close(WEFT_R_CLOSED);
  }
  ++*done;
}

TEST_F(ControlTest, GarbageHurtsNobody) {
  control_.Start();
  const auto node = ConnectPlaintext();
  ASSERT_TRUE(RunUntil([&] { return node->snapshot != nullptr; }));
  std::mt19937 random(1);
  int started = 0;
  int done = 0;
  for (const SocketAddress& address : {control_.tls(), control_.plaintext()}) {
    for (int i = 0; i < 40; ++i) {
      std::string bytes = i % 2 ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" : "";
      for (size_t n = random() % 2000; n > 0; --n) bytes.push_back(static_cast<char>(random()));
      ++started;
      asio::co_spawn(io_, SendGarbage(io_.get_executor(), address, bytes, &done), asio::detached);
    }
  }
  ASSERT_TRUE(RunUntil([&] { return done == started; })) << done << " of " << started;
  control_.Replace("30-routes.yaml", "weight: 90", "weight: 60");
  ASSERT_TRUE(RunUntil([&] {
    return node->snapshot->routes.contains(kWebRoutes) && WeightOf(*node->snapshot, 0) == 60;
  })) << control_.Log();
  Disconnect(*node);
}

TEST_F(ControlTest, RestartKeepsTheAuthorityAndNodesReconnect) {
  control_.Start();
  const std::string root = Root();
  const auto credentials = Ask({}, "0123456789abcdef-a", kNodeA);
  ASSERT_TRUE(credentials.ok());
  const auto node = ConnectAs(*credentials);
  ASSERT_TRUE(RunUntil([&] { return node->snapshot != nullptr; }));
  EXPECT_EQ(control_.Stop(), 0) << control_.Log();
  ASSERT_TRUE(RunUntil([&] { return !node->source->status().connected; }));
  control_.Start();
  EXPECT_EQ(Root(), root);
  ASSERT_TRUE(RunUntil([&] { return node->source->status().connected; }))
      << node->source->status().last_error;
  Disconnect(*node);
}

TEST_F(ControlTest, CommandLineErrorsHaveTheirExitCodes) {
  struct Case {
    std::vector<std::string> arguments;
    int code;
    std::string text;
  };
  const std::string m = control_.manifests();
  std::ofstream(control_.dir() + "/file") << "x";
  std::filesystem::create_directory(control_.dir() + "/open");
  chmod((control_.dir() + "/open").c_str(), 0777);
  const Case cases[] = {
      {{"--help"}, 0, "--join-tokens FILE"},
      {{"--version"}, 0, "weft-control"},
      {{}, 64, "--manifests: missing"},
      {{"--manifests", m, "--state-dir", "x", "--plaintext", "10.0.0.1:1"},
       64,
       "--plaintext: \"10.0.0.1:1\" is not a loopback address"},
      {{"--check", "--manifests", m}, 0, "5 listeners, 5 clusters, 7 workloads, 2 policies"},
      {{"--check", "--manifests", m + "/nowhere"}, 65, "No such file or directory"},
      {{"--manifests", m, "--state-dir", control_.dir() + "/file"}, 1, "is no folder"},
      {{"--manifests", m, "--state-dir", control_.dir() + "/open"}, 1, "may be written by others"},
      {{"--manifests", m, "--state-dir", control_.dir() + "/a/b"}, 1, "No such file or directory"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(control_.Run(c.arguments), c.code) << c.text;
    EXPECT_THAT(control_.Log(), HasSubstr(c.text));
  }
  control_.Write("bad.yaml",
                 "kind: Nonsense\napiVersion: v1\n---\napiVersion: v1\nkind: Service\nmetadata: "
                 "{name: x}\nspek: {}\n");
  EXPECT_EQ(control_.Run({"--check", "--manifests", m}), 65);
  EXPECT_THAT(
      control_.Log(),
      HasSubstr(
          m + "/bad.yaml:1: kind: \"Nonsense\" (v1) is not accepted; accepted are Namespace (v1)"));
  EXPECT_THAT(control_.Log(), HasSubstr(m + "/bad.yaml:7: spek: unknown field"));
}

TEST_F(ControlTest, APortInUseSaysWhichAndWhomToAsk) {
  control_.Start();
  ControlProcess second;
  const std::string address = control_.tls().ToString();
  EXPECT_EQ(second.Run({"--manifests", second.manifests(), "--state-dir", second.state(),
                        "--listen", address}),
            1);
  EXPECT_THAT(second.Log(),
              HasSubstr("address " + address +
                        " is in use: by another weft-control, or another program; \"ss -ltnp"));
}

}  // namespace
}  // namespace weft::test
