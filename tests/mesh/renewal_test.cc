// SPDX-License-Identifier: Apache-2.0
// Certificates that live for seconds: renewed under load without a failed request, and what happens
// when the authority is away until they end.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/mesh/world.h"

namespace weft::mesh_test {

cli::MeshOptions WorldOptions() { return {.cert_ttl = "8s"}; }

namespace {

using std::chrono::seconds;

constexpr const char* kWebOnB = "10.244.2.13";
constexpr const char* kUrl = "http://10.96.0.12/renewal/";  // web-canary: only web-3, on node-b

class RenewalTest : public MeshTest {
 protected:
  // Serial number of the certificate that a pod's proxy shows to whoever knocks at 15008.
  std::string SerialOf(const std::string& address) {
    auto result = mesh().In(
        "bare-client",
        {"bash", "-c",
         absl::StrCat("openssl s_client -alpn h2 -connect ", address,
                      ":15008 </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null")},
        seconds(5));
    return result.ok() ? result->out : "";
  }
  // One redis connection across the nodes that asks for its own number all the time. A second
  // connection would get another number.
  absl::StatusOr<cli::ProcessId> StartLongConnection() {
    return mesh().topology().Start(
        "long-connection",
        {"redis-cli", "-h", "10.244.2.20", "-r", "-1", "-i", "0.05", "CLIENT", "ID"},
        mesh().Netns("client"));
  }
  std::vector<std::string> LongConnectionSaid() {
    std::vector<std::string> lines;
    std::ifstream in(mesh().topology().LogFile("long-connection"));
    std::string line;
    while (std::getline(in, line)) lines.push_back(line);
    return lines;
  }
  // Of a node's certificates as its agent tells: the field of each.
  std::vector<nlohmann::json> CertificatesOf(const std::string& node) {
    auto status = story().Agent(node, "/status");
    EXPECT_TRUE(status.ok()) << status.status();
    return status.ok() ? (*status)["certificates"].get<std::vector<nlohmann::json>>()
                       : std::vector<nlohmann::json>{};
  }
  // How node-a's proxy says its newest flow to `destination` ended.
  std::string ReasonOfLastFlowTo(const std::string& destination) {
    auto flows = story().Proxy("node-a", "/flows");
    EXPECT_TRUE(flows.ok()) << flows.status();
    std::string reason;
    if (!flows.ok()) return reason;
    for (const auto& flow : *flows) {
      if (flow.value("destination", "") == destination) reason = flow.value("reason", "");
    }
    return reason;
  }
  int64_t LastExpiry() {
    int64_t last = 0;
    for (const std::string& node : cli::kDemoNodes) {
      for (const auto& c : CertificatesOf(node)) last = std::max<int64_t>(last, c["not_after"]);
    }
    return last;
  }
};

TEST_F(RenewalTest, SeveralRenewalsWithoutAFailedRequest) {
  auto connection = StartLongConnection();
  ASSERT_TRUE(connection.ok()) << connection.status();
  int sent = 0, good = 0;
  std::string failed;
  std::set<std::string> serials;
  const bool renewed = cli::WaitFor(seconds(30), [&] {
    for (const char* url :
         {"http://10.96.0.10/renewal/[1-10]", "http://10.96.0.12/renewal/[1-5]"}) {
      auto answers = story().Fetch({.url = url});
      EXPECT_TRUE(answers.ok()) << answers.status();
      if (!answers.ok()) continue;
      for (const cli::HttpAnswer& answer : *answers) {
        ++sent;
        good += answer.status == 200 ? 1 : 0;
        if (answer.status != 200) absl::StrAppend(&failed, answer.status, " ", answer.reason, "\n");
      }
    }
    if (std::string serial = SerialOf(kWebOnB); !serial.empty()) serials.insert(serial);
    return serials.size() >= 4;
  });
  EXPECT_TRUE(renewed) << serials.size() << " serial numbers";
  EXPECT_EQ(good, sent) << failed;
  EXPECT_GT(sent, 30);
  const std::vector<std::string> said = LongConnectionSaid();
  EXPECT_GT(said.size(), 50u);
  EXPECT_EQ(std::set<std::string>(said.begin(), said.end()).size(), 1u)
      << "the connection was lost";
  EXPECT_NE(cli::ProcessStartTime(connection->pid), 0u);
  mesh().topology().Stop(*connection);
}

TEST_F(RenewalTest, WithoutTheAuthorityTheyServeUntilTheyEndAndThenNothingPasses) {
  mesh().StopControl();
  const int64_t end = LastExpiry();
  ASSERT_GT(end, time(nullptr));
  // All of them are good now; from the first that ends, calls between the two may fail.
  int64_t first = end;
  for (const std::string& node : cli::kDemoNodes) {
    for (const auto& c : CertificatesOf(node)) first = std::min<int64_t>(first, c["not_after"]);
  }
  while (time(nullptr) + 1 < first) {
    EXPECT_EQ(Answered200("client", kUrl, 5), 5) << first - time(nullptr) << " s before expiry";
  }
  // The agent says what is wrong.
  ASSERT_TRUE(cli::WaitFor(seconds(10), [&] {
    const auto certificates = CertificatesOf("node-b");
    return std::any_of(certificates.begin(), certificates.end(), [](const nlohmann::json& c) {
      return c["alarm"] == true && !c["error"].get<std::string>().empty();
    });
  }));
  ASSERT_TRUE(cli::WaitFor(seconds(15), [&] { return time(nullptr) > end; }));

  auto capture = CaptureFabric();
  ASSERT_NE(capture, nullptr);
  // Whoever opens a connection now is refused, and the flow says why.
  std::string reason;
  EXPECT_TRUE(cli::WaitFor(seconds(5), [&] {
    EXPECT_EQ(Redis("client", {"-h", "10.244.2.20", "SET", "x", kCanary}).find("OK"),
              std::string::npos);
    reason = ReasonOfLastFlowTo("10.244.2.20:6379");
    return reason == "cert_expired" || reason == "no_certificate";
  })) << reason;
  const cli::CaptureCounts counts = capture->counts();
  EXPECT_EQ(counts.canary_packets, 0u);
  EXPECT_EQ(counts.clear_bytes, 0u) << counts.clear_stream;

  ASSERT_TRUE(mesh().StartControl().ok());
  EXPECT_TRUE(cli::WaitFor(seconds(8), [&] { return Answered200("client", kUrl, 3) == 3; }));
  EXPECT_TRUE(cli::WaitFor(
      seconds(15), [&] { return Redis("client", {"-h", "10.244.2.20", "ping"}) == "PONG\n"; }));
}

// The proxy's pool keeps HTTP/1.1 connections to the other node, each of them one stream of a
// tunnel that takes no new ones: they must not carry requests of new clients either.
TEST_F(RenewalTest, PooledHttpConnectionsEndWithTheCertificates) {
  ASSERT_EQ(Answered200("client", kUrl, 3), 3);
  mesh().StopControl();
  const int64_t end = LastExpiry();
  ASSERT_TRUE(cli::WaitFor(seconds(15), [&] { return time(nullptr) > end; }));
  cli::HttpAnswer last;
  EXPECT_TRUE(cli::WaitFor(seconds(5), [&] {
    auto answers = story().Fetch({.url = kUrl});
    if (!answers.ok()) return false;
    last = (*answers)[0];
    return last.status == 503;
  })) << last.status;
  EXPECT_TRUE(last.reason == "cert_expired" || last.reason == "no_certificate") << last.reason;
  ASSERT_TRUE(mesh().StartControl().ok());
  EXPECT_TRUE(cli::WaitFor(seconds(8), [&] { return Answered200("client", kUrl, 3) == 3; }));
}

}  // namespace
}  // namespace weft::mesh_test
