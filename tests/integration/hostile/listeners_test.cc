// SPDX-License-Identifier: Apache-2.0
// weft-proxy and clients and applications that send garbage, stop half-way or exhaust descriptors,
// while others are served.
#include <sys/resource.h>

#include <filesystem>
#include <fstream>

#include "tests/integration/proxy/proxy_process.h"

namespace weft::test {
namespace {

using namespace std::string_literals;  // NOLINT: bytes with zeros in them

const SocketAddress kLoopback = *SocketAddress::Parse("127.0.0.1:0");
constexpr char kHttp2Preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

class Listeners : public ProxyTest {
 protected:
  // Three listeners: HTTP, TCP, and one that finds out.
  void StartProxy(std::vector<std::string> flags = {}) {
    model::Listener both = HttpListener("both", "routes");
    both.tcp = TcpListener("", "db").tcp;
    Put(HttpListener("web", "routes"), TcpListener("db", "db"), both, DirectRoutes("routes", "one"),
        EdsCluster("db"), EndpointsOf("db", {app_.address()}));
    flags.insert(flags.end(), {"--xds", ServeXds(false)});
    Start(flags);
    ASSERT_TRUE(Ready());
    for (const char* name : {"web", "db", "both"}) at_[name] = Bound(name);
  }
  size_t OpenDescriptors() {
    std::error_code error;
    size_t count = 0;
    for (std::filesystem::directory_iterator it("/proc/" + std::to_string(pid_) + "/fd", error),
         end;
         !error && it != end; it.increment(error)) {
      ++count;
    }
    return count;
  }
  // CPU time so far, in seconds.
  double Cpu() {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(text.rfind(')') + 2));
    std::string field;
    double ticks = 0;
    for (int i = 3; i <= 15 && fields >> field; ++i) {
      if (i >= 14) ticks += std::stod(field);
    }
    return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  bool Good() { return HttpGet(at_["web"], "/").find("\r\n\r\none") != std::string::npos; }

  App app_{io_, kLoopback};
  std::map<std::string, SocketAddress> at_;
};

std::vector<std::string> Garbage() {
  std::string noise;
  uint32_t seed = 7;
  for (int i = 0; i < 20000; ++i) {
    seed = seed * 1664525 + 1013904223;
    noise.push_back(static_cast<char>(seed >> 24));
  }
  std::string pings;
  for (int i = 0; i < 5000; ++i) pings += "\0\0\10\6\0\0\0\0\0"s + "12345678";
  std::string resets;
  for (int i = 0; i < 3000; ++i) {  // rapid reset: HEADERS (GET / http web), RST_STREAM
    std::string id = {0, 0, static_cast<char>((2 * i + 1) >> 8), static_cast<char>(2 * i + 1)};
    resets += "\0\0\4\1\5"s + id + "\x82\x84\x86\x81";
    resets += "\0\0\4\3\0"s + id + "\0\0\0\x08"s;
  }
  const std::string settings = kHttp2Preface + "\0\0\0\4\0\0\0\0\0"s;
  return {
      noise,
      "",
      "G",
      "GET / HTTP/1.1\r\nHost: x\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(200000, 'a'),
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise.substr(0, 500),
      kHttp2Preface,
      kHttp2Preface + noise,
      settings + pings,
      settings + resets,
      settings + "\0\0\x01\x01\x01\0\0\0\1\x80"s,          // HPACK index 0
      settings + "\xff\xff\xff\0\0\0\0\0\1"s,              // a frame of 16 MiB
      settings + "\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff"s,  // window overflow
      settings + "\0\0\1\1\0\0\0\0\1\x82"s,                // HEADERS without an end
  };
}

TEST_F(Listeners, GarbageOnAllOfThemWhileOthersAreServed) {
  StartProxy();
  ASSERT_TRUE(Good());
  size_t descriptors = OpenDescriptors();
  std::vector<std::unique_ptr<net::Stream>> bad;
  for (const std::string& bytes : Garbage()) {
    for (const char* name : {"web", "db", "both"}) {
      bad.push_back(Dial(at_[name]));
      ASSERT_NE(bad.back(), nullptr);
      // The proxy may well hang up half-way.
      Await(net::WriteAll(*bad.back(), std::string_view(bytes)));
    }
    ASSERT_TRUE(Good()) << "after " << bytes.substr(0, 40);
  }
  // Half of them just stop talking in order, the others vanish.
  for (size_t i = 0; i < bad.size(); ++i) {
    bad[i]->Close(i % 2 == 0 ? WEFT_R_CLOSED : WEFT_R_IO_ERROR);
  }
  for (auto& accepted : app_.accepted) accepted->Close(WEFT_R_CLOSED);
  EXPECT_TRUE(Good());
  // 2: the admin connection that asks and, for a moment, one that lingers.
  EXPECT_TRUE(RunUntil([&] {
    for (auto& accepted : app_.accepted) accepted->Close(WEFT_R_CLOSED);
    return OpenDescriptors() <= descriptors + 1;
  })) << OpenDescriptors()
      << " instead of " << descriptors;
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitForExit(), 0);
}

TEST_F(Listeners, SlowHeadsAreCutAndGoodRequestsGoOn) {
  StartProxy();
  size_t before = OpenDescriptors();
  std::vector<std::unique_ptr<net::Stream>> slow;
  for (int i = 0; i < 200; ++i) {
    slow.push_back(Dial(at_[i % 2 == 0 ? "web" : "both"]));
    Write(*slow.back(), "GET / HTTP/1.1\r\nHost: x\r\nX-");
  }
  ASSERT_TRUE(RunUntil([&] { return OpenDescriptors() >= before + 200; }));
  auto start = std::chrono::steady_clock::now();
  bool cut = false;
  while (!cut && std::chrono::steady_clock::now() - start < 30s) {
    for (auto& stream : slow) {
      iovec byte{const_cast<char*>("a"), 1};
      stream->TryWrite({&byte, 1});
    }
    ASSERT_TRUE(Good());
    cut = RunUntil([&] { return OpenDescriptors() < before + 10; }, 1s);
  }
  EXPECT_TRUE(cut) << OpenDescriptors() << " instead of " << before;
}

TEST_F(Listeners, OutOfDescriptorsItWaitsWithoutSpinning) {
  StartProxy();
  ASSERT_TRUE(Good());
  rlimit limit{OpenDescriptors() + 10, 4096};
  ASSERT_EQ(prlimit(pid_, RLIMIT_NOFILE, &limit, nullptr), 0);
  std::vector<std::unique_ptr<net::Stream>> idle;
  for (int i = 0; i < 60; ++i) idle.push_back(Dial(at_["web"]));
  ASSERT_TRUE(RunUntil([&] { return OpenDescriptors() >= limit.rlim_cur; }));
  // Full: connections wait in the queue, and the proxy must not burn the core meanwhile.
  double before = Cpu();
  RunUntil([] { return false; }, 2s);
  EXPECT_LT(Cpu() - before, 0.4);
  idle.clear();
  EXPECT_TRUE(RunUntil([&] { return OpenDescriptors() < limit.rlim_cur - 5; }));
  EXPECT_TRUE(Good());
}

// An application that answers garbage harms its own requests only.
TEST_F(Listeners, ApplicationsThatAnswerGarbage) {
  StartProxy();
  model::RouteConfiguration routes = DirectRoutes("to-app", "");
  model::Forward forward;
  forward.clusters = {{.cluster = "db", .weight = 1}};
  forward.timeout = 2000ms;
  routes.virtual_hosts[0].routes[0].action = forward;
  Put(HttpListener("app", "to-app"), routes);
  SocketAddress app = Bound("app");
  const struct {
    std::string answer;
    bool hang_up;
    const char* status;
  } cases[] = {
      {"\x16\x03\x01 noise \xff\xfe\r\n\r\n", false, " 502 "},
      {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", false, " 502 "},
      {"HTTP/1.1 200 OK\r\nX: " + std::string(300000, 'a'), false, " 502 "},
      {"HTTP/1.1 ", true, " 503 "},
      {"", true, " 503 "},
      {"", false, " 504 "},
      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", true, " 200 "},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.answer.substr(0, 30));
    size_t accepted = app_.accepted.size();
    auto client = Dial(app);
    Write(*client, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    ASSERT_TRUE(RunUntil([&] { return app_.accepted.size() > accepted; }));
    Await(net::WriteAll(*app_.accepted.back(), std::string_view(c.answer)));
    if (c.hang_up) app_.accepted.back()->Close(WEFT_R_CLOSED);
    std::string got = Read(*client, 1 << 20);
    EXPECT_NE(got.substr(0, 16).find(c.status), std::string::npos) << got.substr(0, 300);
    app_.accepted.back()->Close(WEFT_R_CLOSED);
    EXPECT_TRUE(Good());
  }
}

// A port in use: said once, and taken when it is free.
TEST_F(Listeners, APortInUseIsTakenWhenItIsFree) {
  auto other = std::make_unique<App>(io_, kLoopback);
  SocketAddress taken = other->address();
  model::Listener late = HttpListener("late", "routes");
  late.address = taken;
  Put(late);
  StartProxy();
  EXPECT_TRUE(Good());  // the others are not held up
  other.reset();
  EXPECT_EQ(Bound("late"), taken);
  EXPECT_NE(HttpGet(taken, "/").find("\r\n\r\none"), std::string::npos);
}

}  // namespace
}  // namespace weft::test
