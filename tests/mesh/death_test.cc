// SPDX-License-Identifier: Apache-2.0
// What happens when a process of the mesh dies: nothing that worked is lost, and nothing ever goes
// in the clear.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/mesh/world.h"

namespace weft::mesh_test {
namespace {

using std::chrono::seconds;

class DeathTest : public MeshTest {
 protected:
  bool Healthy(const std::string& node) {
    return cli::WaitFor(seconds(30), [&] { return mesh().AskAgent(node, "/healthz").ok(); });
  }
};

TEST_F(DeathTest, TheAgentsDeathDisturbsNobody) {
  ASSERT_TRUE(Healthy("node-a"));
  const pid_t proxy = PidOf("node-a", "weft-proxy");
  const pid_t sockets = PidOf("node-a", "weft-sockets");
  const pid_t keyd = PidOf("node-a", "weft-keyd");
  ASSERT_NE(proxy, 0);
  // An existing direct connection carries requests all the time.
  absl::StatusOr<cli::RunResult> running = absl::UnknownError("");
  std::thread traffic([&] {
    running = mesh().In(
        "client",
        {"redis-benchmark", "-h", "10.244.1.20", "-c", "1", "-n", "60000", "-t", "get", "--csv"},
        seconds(60));
  });
  ASSERT_EQ(kill(mesh().agent("node-a").pid, SIGKILL), 0);
  ASSERT_TRUE(cli::WaitFor(seconds(5),
                           [&] { return cli::ProcessStartTime(mesh().agent("node-a").pid) == 0; }));
  // New connections without an agent: direct, through the proxy, and refused ones.
  EXPECT_EQ(Redis("client", {"-h", "10.244.1.20", "ping"}), "PONG\n");
  EXPECT_EQ(Redis("client", {"-h", "10.244.2.20", "ping"}), "PONG\n");
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/without-agent/", 20), 20);
  EXPECT_NE(Redis("intruder", {"-h", "10.244.1.20", "ping"}).find("Operation not permitted"),
            std::string::npos);
  traffic.join();
  ASSERT_TRUE(running.ok()) << running.status();
  EXPECT_TRUE(running->ok()) << running->err;
  EXPECT_EQ(running->err.find("rror"), std::string::npos) << running->err;

  ASSERT_TRUE(mesh().StartAgent("node-a").ok());
  ASSERT_TRUE(Healthy("node-a"));
  EXPECT_EQ(PidOf("node-a", "weft-proxy"), proxy) << "the proxy was not adopted";
  EXPECT_EQ(PidOf("node-a", "weft-sockets"), sockets);
  EXPECT_EQ(PidOf("node-a", "weft-keyd"), keyd);
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/with-agent/", 20), 20);
  EXPECT_EQ(Redis("client", {"-h", "10.244.1.20", "ping"}), "PONG\n");
}

TEST_F(DeathTest, TheProxysDeathNeverMeansPlaintext) {
  ASSERT_TRUE(Healthy("node-a"));
  auto capture = CaptureFabric();
  ASSERT_NE(capture, nullptr);
  const pid_t proxy = PidOf("node-a", "weft-proxy");
  ASSERT_NE(proxy, 0);
  ASSERT_EQ(kill(proxy, SIGKILL), 0);
  // While it is gone and while it comes back: each request is answered by the mesh or fails.
  int good = 0, bad = 0;
  const bool recovered = cli::WaitFor(seconds(30), [&] {
    auto answers = story().Fetch({.url = "http://10.96.0.10/during/[1-5]",
                                  .headers = {std::string("x-canary: ") + kCanary},
                                  .timeout = seconds(5)});
    int now = 0;
    if (answers.ok()) now = cli::CountByStatus(*answers)[200];
    good += now;
    bad += 5 - now;
    return now == 5 && PidOf("node-a", "weft-proxy") != proxy && good >= 20;
  });
  EXPECT_TRUE(recovered) << good << " good, " << bad << " bad";
  EXPECT_TRUE(Healthy("node-a"));
  const cli::CaptureCounts counts = capture->counts();
  EXPECT_GT(counts.tls_bytes, 0u);
  EXPECT_EQ(counts.canary_packets, 0u);
  EXPECT_EQ(counts.clear_bytes, 0u) << counts.clear_stream;
  EXPECT_EQ(Redis("client", {"-h", "10.244.2.20", "ping"}), "PONG\n");
}

// Direct connections do not need the proxy at all.
TEST_F(DeathTest, DirectConnectionsGoOnWithoutAProxy) {
  ASSERT_TRUE(Healthy("node-a"));
  const pid_t proxy = PidOf("node-a", "weft-proxy");
  ASSERT_EQ(kill(proxy, SIGKILL), 0);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Redis("client", {"-h", "10.244.1.20", "ping"}), "PONG\n");
  EXPECT_TRUE(Healthy("node-a"));
}

TEST_F(DeathTest, SocketsAndKeydAreReplacedWithWhatTheyHeld) {
  for (const char* program : {"weft-sockets", "weft-keyd"}) {
    ASSERT_TRUE(Healthy("node-b"));
    const pid_t pid = PidOf("node-b", program);
    ASSERT_NE(pid, 0);
    ASSERT_EQ(kill(pid, SIGKILL), 0);
    ASSERT_TRUE(cli::WaitFor(seconds(20), [&] {
      const pid_t now = PidOf("node-b", program);
      return now != 0 && now != pid;
    })) << program;
    ASSERT_TRUE(Healthy("node-b")) << program;
    EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
      return Redis("client", {"-h", "10.244.2.20", "ping"}) == "PONG\n";
    })) << program;
  }
}

// Counts how often `pattern` is in the readable memory of a process.
size_t CountInMemory(pid_t pid, const std::string& pattern) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  const int mem = open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
  size_t found = 0;
  std::string line, buffer;
  while (mem >= 0 && std::getline(maps, line)) {
    uint64_t begin = 0, end = 0;
    char access = '-', dash;
    std::istringstream fields(line);
    fields >> std::hex >> begin >> dash >> end >> access;
    // Writable memory only: constants of the program are no secrets.
    if (line.find(" rw") == std::string::npos || end - begin > (1ull << 30)) continue;
    buffer.resize(end - begin);
    const ssize_t n = pread(mem, buffer.data(), buffer.size(), static_cast<off_t>(begin));
    if (n <= 0) continue;
    buffer.resize(n);
    for (size_t at = buffer.find(pattern); at != std::string::npos;
         at = buffer.find(pattern, at + 1)) {
      ++found;
    }
  }
  if (mem >= 0) close(mem);
  return found;
}

// SEC1 and PKCS#8 both wrap a P-256 private key as "version 1, octet string of 32 bytes".
const std::string kKeyDer("\x02\x01\x01\x04\x20", 5);

TEST_F(DeathTest, NoPrivateKeyIsInTheProxysMemory) {
  const pid_t proxy = PidOf("node-a", "weft-proxy");
  ASSERT_NE(proxy, 0);
  EXPECT_GT(CountInMemory(proxy, "spiffe://cluster.local/ns/demo/sa/client"), 0u)
      << "the scan does not see the process's memory";
  EXPECT_EQ(CountInMemory(proxy, "PRIVATE KEY"), 0u);
  EXPECT_EQ(CountInMemory(proxy, kKeyDer), 0u);
  // No capability, its own user, no_new_privs, seccomp.
  std::ifstream status("/proc/" + std::to_string(proxy) + "/status");
  const std::string text(std::istreambuf_iterator<char>(status), {});
  for (const char* fact : {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
                           "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_NE(text.find(fact), std::string::npos) << fact << " in\n" << text;
  }
  EXPECT_EQ(text.find("Uid:\t0"), std::string::npos);
}

}  // namespace
}  // namespace weft::mesh_test
