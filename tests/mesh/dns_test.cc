// SPDX-License-Identifier: Apache-2.0
// DNS of pods with real resolver libraries: names of the mesh, which the cluster's resolver does
// not know, and everybody else's, which it answers to the pod itself.
#include <gmock/gmock.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http.h"
#include "tests/mesh/world.h"

namespace weft::mesh_test {

constexpr const char* kResolver = "172.30.0.10";  // in weft-control's namespace

cli::MeshOptions WorldOptions() { return {.resolver = kResolver}; }

namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kWeb = "web.demo.svc.cluster.local";
constexpr const char* kResolverPort = "172.30.0.10:53";

class DnsTest : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (HasFatalFailure() || started_) return;
    started_ = true;
    auto server = mesh().topology().Start(
        "dns-server", {"python3", WEFT_MESH_TEST_DIR "/dns_server.py", kResolver, LogFile()},
        mesh().Netns("control"));
    ASSERT_TRUE(server.ok()) << server.status();
    ASSERT_TRUE(cli::WaitFor(seconds(10), [&] {
      return Ask("bare-client", "connected", "up.example", "A").value("rcode", -1) == 3;
    }));
  }
  std::string LogFile() { return mesh().options().dir + "/dns-queries"; }
  // What the resolver was asked, "udp 10.244.1.10 name" a line.
  std::string Asked() { return cli::ReadFile(LogFile()).value_or(""); }

  json Ask(const std::string& pod, const std::string& how, const std::string& name,
           const std::string& type) {
    auto result = mesh().In(
        pod, {"python3", WEFT_MESH_TEST_DIR "/dns_client.py", how, kResolver, name, type});
    if (!result.ok() || !result->ok()) {
      last_error_ = result.ok() ? result->err : std::string(result.status().message());
      return json::object();
    }
    return json::parse(result->out, nullptr, false);
  }
  // A command in a pod whose /etc/resolv.conf names the resolver and a search list.
  std::string WithResolvConf(const std::string& pod, const std::string& command) {
    const std::string file = mesh().options().dir + "/resolv.conf";
    EXPECT_TRUE(cli::WriteFile(file, absl::StrCat("nameserver ", kResolver,
                                                  "\nsearch demo.svc.cluster.local "
                                                  "svc.cluster.local cluster.local\n"
                                                  "options ndots:5\n"))
                    .ok());
    auto result = mesh().In(pod, {"unshare", "-m", "sh", "-c",
                                  "mount --bind " + file + " /etc/resolv.conf && " + command});
    return result.ok() ? result->out + result->err : std::string(result.status().message());
  }
  uint64_t Metric(const std::string& name) {
    auto answer = ipc::HttpRequest(mesh().RunDir("node-a") + "/proxy.sock", "GET", "/metrics");
    if (!answer.ok()) return 0;
    const size_t at = answer->body.find("\n" + name + " ");
    return at == std::string::npos
               ? 0
               : strtoull(answer->body.c_str() + at + name.size() + 2, nullptr, 10);
  }
  static bool started_;
  std::string last_error_;
};
bool DnsTest::started_ = false;

TEST_F(DnsTest, LibrariesFindServicesByName) {
  EXPECT_THAT(WithResolvConf("client", absl::StrCat("getent hosts ", kWeb)),
              HasSubstr("10.96.0.10"));
  // The short name is found by the search list: its full form is the exact one.
  EXPECT_THAT(WithResolvConf("client", "getent ahostsv4 web"), HasSubstr("10.96.0.10"));
  EXPECT_THAT(
      WithResolvConf("client", absl::StrCat("python3 -c \"import socket; print(sorted({a[4][0] for "
                                            "a in socket.getaddrinfo('",
                                            kWeb, "', 80)}))\"")),
      HasSubstr("['10.96.0.10']"));
  EXPECT_THAT(WithResolvConf("client", absl::StrCat("curl -sS -o /dev/null -w '%{http_code}' "
                                                    "http://",
                                                    kWeb, "/")),
              HasSubstr("200"));
  EXPECT_THAT(Asked(), Not(HasSubstr("10.244.1.10 web.demo.svc.cluster.local\n")))
      << "the resolver was asked for a name of the mesh";
}

TEST_F(DnsTest, TheAnswerComesFromTheResolversAddress) {
  for (const char* how : {"udp", "connected", "tcp"}) {
    const json answer = Ask("client", how, "wEb.demo.SVC.cluster.local", "A");
    ASSERT_TRUE(answer.contains("bytes")) << how << ": " << last_error_;
    EXPECT_EQ(answer["source"], kResolverPort) << how;
    EXPECT_THAT(answer.value("peer", ""), AnyOf("", kResolverPort)) << how;
    EXPECT_EQ(answer["rcode"], 0) << how;
    EXPECT_EQ(answer["answers"], 1) << how;
    EXPECT_THAT(answer.value("bytes", ""), HasSubstr("0a60000a")) << how;
    EXPECT_THAT(answer.value("bytes", ""), HasSubstr("03774562")) << "wEb, as it was asked";
    const json none = Ask("client", how, kWeb, "AAAA");
    EXPECT_EQ(none.value("rcode", -1), 0) << how << ": " << last_error_;
    EXPECT_EQ(none.value("answers", -1), 0) << how;
  }
}

TEST_F(DnsTest, OtherNamesAreTheResolversUnchanged) {
  for (const char* how : {"udp", "connected", "tcp"}) {
    for (const char* name : {"outside.example", "nobody.example", "web.other.svc.cluster.local"}) {
      const json direct = Ask("bare-client", how, name, "A");
      const json forwarded = Ask("client", how, name, "A");
      ASSERT_TRUE(direct.contains("bytes") && forwarded.contains("bytes")) << how << last_error_;
      EXPECT_EQ(forwarded["bytes"], direct["bytes"]) << how << " " << name;
      EXPECT_EQ(forwarded["source"], kResolverPort) << how;
    }
    // The resolver sees who asks.
    EXPECT_THAT(Ask("client", how, "who.example", "TXT").value("text", ""),
                HasSubstr("10.244.1.10"))
        << how << last_error_;
    EXPECT_THAT(Asked(), HasSubstr(absl::StrCat(std::string(how) == "tcp" ? "tcp" : "udp",
                                                " 10.244.1.10 who.example")));
  }
}

TEST_F(DnsTest, WhatIsTooLargeComesByTcp) {
  const json cut = Ask("client", "connected", "big.example", "TXT");
  EXPECT_TRUE(cut.value("truncated", false)) << last_error_;
  const json whole = Ask("client", "tcp", "big.example", "TXT");
  EXPECT_FALSE(whole.value("truncated", true)) << last_error_;
  EXPECT_GT(whole.value("bytes", "").size(), 6000u);
}

TEST_F(DnsTest, ASilentResolverEndsInServfail) {
  const json answer = Ask("client", "connected", "silent.example", "A");
  EXPECT_EQ(answer.value("rcode", -1), 2) << last_error_;
}

TEST_F(DnsTest, APodOutsideTheMeshIsUntouched) {
  for (const char* how : {"udp", "connected", "tcp"}) {
    EXPECT_EQ(Ask("bare-client", how, kWeb, "A").value("rcode", -1), 3) << how;
    EXPECT_THAT(Ask("bare-client", how, "who.example", "TXT").value("text", ""),
                HasSubstr("10.244.1.30"));
  }
}

// weft-sockets keeps the sockets: what is asked meanwhile waits in them for the next proxy, or goes
// to the resolver once the agent has given this one up.
TEST_F(DnsTest, NamesResolveAgainAfterTheProxyDied) {
  const pid_t before = PidOf("node-a", "weft-proxy");
  ASSERT_GT(before, 0);
  ASSERT_EQ(kill(before, SIGKILL), 0);
  EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
    const pid_t now = PidOf("node-a", "weft-proxy");
    if (now == 0 || now == before) return false;
    return Ask("client", "connected", kWeb, "A").value("rcode", -1) == 0;
  })) << last_error_;
  EXPECT_EQ(Ask("client", "udp", "outside.example", "A").value("answers", -1), 2) << last_error_;
  EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
    return Ask("client", "tcp", kWeb, "A").value("rcode", -1) == 0;
  })) << last_error_;
}

TEST_F(DnsTest, WhatWasDoneIsCounted) {
  const uint64_t answered = Metric("weft_dns_answered_total");
  const uint64_t forwarded = Metric("weft_dns_forwarded_total");
  ASSERT_EQ(Ask("client", "udp", kWeb, "A").value("rcode", -1), 0);
  ASSERT_EQ(Ask("client", "udp", "outside.example", "A").value("rcode", -1), 0);
  EXPECT_EQ(Metric("weft_dns_answered_total"), answered + 1);
  EXPECT_EQ(Metric("weft_dns_forwarded_total"), forwarded + 1);
}

}  // namespace
}  // namespace weft::mesh_test
