// SPDX-License-Identifier: Apache-2.0
// The real weft-keyd process: what it gives up, and a handshake whose key never leaves it. Needs
// root.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "control/identity/ca.h"
#include "control/identity/confine.h"
#include "proxy/ipc/keyd_control.h"
#include "proxy/ipc/remote_signer.h"
#include "proxy/net/stream_pair.h"
#include "proxy/tls/tls_stream.h"
#include "tests/support/run_task.h"
#include "tests/support/sanitizer_child.h"

namespace weft::identity {
namespace {

constexpr char kId[] = "spiffe://td/ns/shop/sa/api";
constexpr char kUid[] = "64999";

class KeydProcess : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "needs root: weft-keyd changes its uid";
    path_ = testing::TempDir() + "weft_net_keyd_" + std::to_string(getpid());
    pid_ = fork();
    if (pid_ == 0) {
      execl(WEFT_KEYD, WEFT_KEYD, "--control", path_.c_str(), "--uid", kUid, nullptr);
      _exit(127);
    }
    // The socket appears before the process is confined; its first answer comes after.
    for (int i = 0; i < 1000; ++i) {
      auto control = ipc::KeydControl::Connect(path_);
      if (control.ok()) {
        control_.emplace(std::move(*control));
        break;
      }
      usleep(10000);
    }
    ASSERT_TRUE(control_.has_value());
    ASSERT_TRUE(control_->StatusJson().ok());
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGTERM);
      int status = 0;
      waitpid(pid_, &status, 0);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    unlink(path_.c_str());
  }
  std::string Status(const std::string& field) {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with(field + ":")) return line.substr(field.size() + 1);
    }
    return "";
  }
  std::string path_;
  pid_t pid_ = -1;
  std::optional<ipc::KeydControl> control_;
};

TEST_F(KeydProcess, HasGivenUpWhatItDoesNotNeed) {
  for (const char* field : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_NE(Status(field).find("0000000000000000"), std::string::npos) << field << Status(field);
  }
  EXPECT_NE(Status("Uid").find(kUid), std::string::npos);
  EXPECT_NE(Status("NoNewPrivs").find('1'), std::string::npos);
  EXPECT_NE(Status("Seccomp").find('2'), std::string::npos);
#ifndef WEFT_SANITIZED  // whose runtimes make mlockall() do nothing: their shadow would be locked
                        // too
  EXPECT_EQ(Status("VmLck").find(" 0 kB"), std::string::npos);
#endif
  EXPECT_NE(Status("Groups").find_first_not_of(" \t0123456789"), 0u);
}

Task<void> Connect(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                   std::shared_ptr<const tls::TlsContext> context, tls::HandshakeResult& out) {
  tls::TlsClientOptions options;
  options.expected_identities.emplace_back(kId);
  auto result = co_await tls::TlsConnect(executor, std::move(transport), context, options);
  out = std::move(result);
}
Task<void> Accept(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                  std::shared_ptr<const tls::TlsContext> context, tls::HandshakeResult& out) {
  auto result = co_await tls::TlsAccept(executor, std::move(transport), context);
  out = std::move(result);
}

TEST_F(KeydProcess, SignsAHandshakeOnlyForTheTenantThatMay) {
  auto generated = control_->Generate(kId);
  ASSERT_TRUE(generated.ok()) << generated.status().ToString();
  auto ca = CertificateAuthority::Create("td");
  ASSERT_TRUE(ca.ok());
  auto chain = (*ca)->SignCsr(generated->csr_pem, kId, std::chrono::seconds(3600));
  ASSERT_TRUE(chain.ok()) << chain.status().ToString();
  ASSERT_TRUE(control_->Grant(kId, generated->key_id, 1).ok());

  for (const uint32_t tenant : {1u, 2u}) {
    SCOPED_TRACE(tenant);
    test::TaskRunner runner;
    auto channel = control_->NewChannel(tenant);
    ASSERT_TRUE(channel.ok()) << channel.status().ToString();
    ipc::RemoteSigner signer(runner.executor(), *channel);
    auto context =
        tls::TlsContext::Mesh({.identity = kId,
                               .key_id = generated->key_id,
                               .chain_der = {tls::CertificatesFromPem(chain->pem[0])->front()},
                               .trust = {{"td", {(*ca)->root_der()}}},
                               .signer = &signer});
    ASSERT_TRUE(context.ok()) << context.status().ToString();
    const int handshakes = tenant == 1 ? 200 : 1;
    for (int i = 0; i < handshakes; ++i) {
      auto [a, b] = net::MakeStreamPair(runner.executor());
      tls::HandshakeResult client, server;
      runner.Spawn(Connect(runner.executor(), std::move(a), *context, client));
      runner.Spawn(Accept(runner.executor(), std::move(b), *context, server));
      runner.Run();
      EXPECT_EQ(client.stream != nullptr, tenant == 1)
          << ReasonName(client.reason) << client.detail;
      EXPECT_EQ(server.peer_identity, tenant == 1 ? kId : "");
    }
  }
  auto status = control_->StatusJson();
  ASSERT_TRUE(status.ok());
  EXPECT_NE(status->find("\"signatures\":400,\"refused\":1"), std::string::npos) << *status;
}

TEST_F(KeydProcess, KeepsOthersFromItsControlSocket) {
  const pid_t child = fork();
  if (child == 0) {
    (void)chmod(path_.c_str(), 0777);  // even then
    if (setresuid(4242, 4242, 4242) != 0) _exit(3);
    auto control = ipc::KeydControl::Connect(path_);
    _exit(control.ok() && control->StatusJson().ok() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(control_->StatusJson().ok());
}

TEST_F(KeydProcess, ASecondOneDoesNotStealTheSocket) {
  const pid_t child = fork();
  if (child == 0) {
    execl(WEFT_KEYD, WEFT_KEYD, "--control", path_.c_str(), "--uid", kUid, nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_TRUE(control_->StatusJson().ok());
}

#ifdef __SANITIZE_ADDRESS__
TEST(Confined, LetsSanitizersReport) {
  auto confine = [] { return Confine(64999).ok(); };
  auto report = test::ReportOfConfined(confine, test::WriteBehindTheHeap);
  EXPECT_NE(report.text.find("heap-buffer-overflow"), std::string::npos) << report.text;
  EXPECT_EQ(report.exit_code, test::kSanitizerExit);
  report = test::ReportOfConfined(confine, test::Leak);
  EXPECT_NE(report.text.find("4711 byte(s) in 1 object(s)"), std::string::npos) << report.text;
  EXPECT_EQ(report.exit_code, test::kSanitizerExit);
}
#endif

}  // namespace
}  // namespace weft::identity
