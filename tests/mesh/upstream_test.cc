// SPDX-License-Identifier: Apache-2.0
// An agent and those who pretend to be weft-control: bad certificates are refused by cause, and
// what worked goes on. And the configuration channel without TLS, which is for tests.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http.h"
#include "tests/mesh/world.h"
#include "tests/support/cert_factory.h"

namespace weft::mesh_test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class UpstreamTest : public MeshTest {
 protected:
  std::string Dir() { return mesh().options().dir; }
  // The mesh's own authority, out of weft-control's state.
  test::TestCert Root() {
    test::TestCert root;
    const auto pem = cli::ReadFile(Dir() + "/control/root.pem");
    const auto key = cli::ReadFile(Dir() + "/control/root-key.pem");
    EXPECT_TRUE(pem.ok() && key.ok());
    const bssl::UniquePtr<BIO> pem_bio(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())));
    const bssl::UniquePtr<BIO> key_bio(BIO_new_mem_buf(key->data(), static_cast<int>(key->size())));
    root.x509.reset(PEM_read_bio_X509(pem_bio.get(), nullptr, nullptr, nullptr));
    root.key.reset(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
    EXPECT_TRUE(root.x509 != nullptr && root.key != nullptr);
    return root;
  }
  // A TLS server in weft-control's place.
  absl::StatusOr<cli::ProcessId> Pretend(const test::TestCert& certificate) {
    WEFT_RETURN_IF_ERROR(cli::WriteFile(Dir() + "/pretender.pem", certificate.pem()));
    WEFT_RETURN_IF_ERROR(cli::WriteFile(Dir() + "/pretender-key.pem", certificate.key_pem()));
    return mesh().topology().Start(
        "pretender",
        {"openssl", "s_server", "-quiet", "-alpn", "h2", "-accept", mesh().ControlTarget(), "-cert",
         Dir() + "/pretender.pem", "-key", Dir() + "/pretender-key.pem"},
        mesh().Netns("control"));
  }
  std::string XdsError(const std::string& node) {
    auto status = story().Agent(node, "/status");
    return status.ok() ? (*status)["xds"].value("error", "") : "";
  }
};

struct Pretender {
  const char* name;
  test::CertOptions options;
  bool of_our_root;
  const char* says;
};

std::vector<Pretender> Pretenders(const std::string& address) {
  const std::vector<std::string> control = {"spiffe://cluster.local/weft/control"};
  // Neighbours differ in what is said of them, so that each is seen.
  return {
      {"expired",
       {.uris = control, .ips = {address}, .not_before_seconds = -3600, .not_after_seconds = -60},
       true,
       "expired or not yet valid"},
      {"of a workload",
       {.uris = {"spiffe://cluster.local/ns/demo/sa/web"}},
       true,
       "the peer is not who the endpoint should be"},
      {"another authority", {.uris = control, .ips = {address}}, false, "no trusted root"},
      {"another address",
       {.uris = control, .ips = {"10.9.9.9"}},
       true,
       "the peer is not who the endpoint should be"},
      {"not yet valid",
       {.uris = control, .ips = {address}, .not_before_seconds = 600},
       true,
       "expired or not yet valid"},
  };
}

TEST_F(UpstreamTest, PretendersAreRefusedByCauseAndNothingIsLost) {
  const std::string address = mesh().ControlTarget().substr(0, mesh().ControlTarget().rfind(':'));
  const test::TestCert root = Root();
  const test::TestCert other = test::MakeRoot("other root");
  mesh().StopControl();
  std::string before;
  for (const Pretender& p : Pretenders(address)) {
    SCOPED_TRACE(p.name);
    auto server = Pretend(test::MakeCert(p.options, p.of_our_root ? &root : &other));
    ASSERT_TRUE(server.ok()) << server.status();
    std::string said;
    EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
      said = XdsError("node-a");
      return said != before && said.find("TLS to weft-control") != std::string::npos;
    })) << said;
    EXPECT_THAT(said, HasSubstr(p.says));
    EXPECT_THAT(said, HasSubstr(mesh().ControlTarget()));
    EXPECT_EQ(Answered200("client", "http://10.96.0.10/pretender/", 10), 10);
    EXPECT_EQ(Redis("client", {"-h", "10.244.2.20", "ping"}), "PONG\n");
    before = said;
    mesh().topology().Stop(*server);
  }
  const auto log = cli::ReadFile(mesh().topology().LogFile("agent-node-a"));
  ASSERT_TRUE(log.ok());
  EXPECT_THAT(*log, HasSubstr("expired or not yet valid"));
  EXPECT_THAT(*log, HasSubstr("no trusted root"));
  ASSERT_TRUE(mesh().StartControl().ok());
  for (const std::string& node : cli::kDemoNodes) {
    EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
      auto status = story().Agent(node, "/status");
      return status.ok() && (*status)["xds"]["connected"] == true;
    })) << node;
  }
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/pretender/", 10), 10);
}

TEST_F(UpstreamTest, PlaintextConfigurationIsForLoopback) {
  const std::string dir = Dir() + "/plain";
  const std::string run_dir = "/run/weft/" + mesh().Netns("plain");
  ASSERT_TRUE(mesh().topology().WillRemove(run_dir).ok());
  ASSERT_TRUE(mesh()
                  .topology()
                  .WillRemoveCgroup(cli::FindCgroup2() + "/weft/" + mesh().Netns("plain"))
                  .ok());
  std::filesystem::create_directories(dir);
  std::filesystem::permissions(dir, std::filesystem::perms::owner_all);
  const std::string bin = WEFT_BIN_DIR;
  const auto control = [&](const std::string& plaintext) -> std::vector<std::string> {
    return {bin + "/weft-control", "--manifests", mesh().ManifestDir(),
            "--state-dir",         dir,           "--listen",
            "127.0.0.1:25012",     "--status",    "unix:" + dir + "/status.sock",
            "--plaintext",         plaintext};
  };
  const auto agent = [&](const std::string& plaintext) -> std::vector<std::string> {
    return {bin + "/weft-agent", "--node",    "node-a",
            "--run-dir",         run_dir,     "--bpffs",
            Dir() + "/bpf",      "--cgroup2", cli::FindCgroup2(),
            "--unload-on-exit",  "--bin-dir", bin,
            "--xds-plaintext",   plaintext};
  };
  cli::RunOptions inside;
  inside.netns = mesh().Netns("node-a");
  for (const auto& argv : {control("172.30.0.1:25010"), agent("172.30.0.1:25010")}) {
    auto refused = cli::Run(argv, inside);
    ASSERT_TRUE(refused.ok()) << refused.status();
    EXPECT_EQ(refused->exit_code, 64) << argv[0];
    EXPECT_THAT(refused->err, HasSubstr("\"172.30.0.1:25010\" is not a loopback address"));
  }
  auto server = mesh().topology().Start("plain-control", control("127.0.0.1:25010"), inside.netns);
  ASSERT_TRUE(server.ok()) << server.status();
  auto client = mesh().topology().Start("plain-agent", agent("127.0.0.1:25010"), inside.netns);
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
    auto healthy = ipc::HttpRequest(run_dir + "/agent.sock", "GET", "/healthz");
    return healthy.ok() && healthy->status == 200;
  }));
  auto answer = ipc::HttpRequest(run_dir + "/agent.sock", "GET", "/status");
  ASSERT_TRUE(answer.ok()) << answer.status();
  const auto status = nlohmann::json::parse(answer->body, nullptr, false);
  ASSERT_TRUE(status.is_object());
  EXPECT_EQ(status["xds"]["connected"], true);
  EXPECT_EQ(status["xds"]["control"], "127.0.0.1:25010");
  EXPECT_TRUE(status["certificates"].empty());
  mesh().topology().Stop(*client);
  mesh().topology().Stop(*server);
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/beside/", 10), 10);
}

}  // namespace
}  // namespace weft::mesh_test
