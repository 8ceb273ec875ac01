// SPDX-License-Identifier: Apache-2.0
// A proxy that hangs costs the agent an answer, not its thread.
#include "control/agent/proxy_status.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/steady_timer.hpp>

#include "proxy/ipc/local_http.h"
#include "proxy/net/listen.h"
#include "tests/support/run_task.h"

namespace weft::agent {
namespace {

class ProxyStatusTest : public testing::Test {
 protected:
  void SetUp() override {
    auto fd = net::ListenUnix(path_, 0600);
    ASSERT_TRUE(fd.ok()) << fd.status().ToString();
    listener_ = *fd;
  }
  void TearDown() override {
    if (listener_ >= 0) close(listener_);
    unlink(path_.c_str());
  }
  std::string path_ = testing::TempDir() + "weft_ker_status_" + std::to_string(getpid());
  int listener_ = -1;
  test::TaskRunner runner_;
};

Task<void> Ask(asio::any_io_executor executor, std::string path, std::chrono::milliseconds limit,
               std::string& out, bool& answered) {
  out = co_await StatusOfProxy(executor, path, limit);
  answered = true;
}

Task<void> CountUntil(asio::any_io_executor executor, const bool& end, int& turns) {
  asio::steady_timer timer(executor);
  while (!end) {
    timer.expires_after(std::chrono::milliseconds(1));
    co_await timer.async_wait(kAsTuple);
    ++turns;
  }
}

TEST_F(ProxyStatusTest, AHungProxyHoldsNobody) {
  std::string status = "not asked";
  bool answered = false;
  int turns = 0;
  // Nobody accepts: the kernel completes the connection and takes the request.
  runner_.Spawn(Ask(runner_.executor(), path_, std::chrono::milliseconds(200), status, answered));
  runner_.Spawn(CountUntil(runner_.executor(), answered, turns));
  runner_.Run();
  EXPECT_EQ(status, "");
  EXPECT_GT(turns, 10) << "the thread was held meanwhile";
}

TEST_F(ProxyStatusTest, SaysWhichWorkloadsListen) {
  const std::string json =
      R"({"workloads":[{"id":4,"listening":true},{"id":5,"listening":false},{"id":6}]})";
  auto server = std::make_unique<ipc::LocalHttpServer>(
      runner_.executor(), std::exchange(listener_, -1),
      [&](ipc::LocalRequest request, ipc::Responder responder) {
        responder.Send(request.target == "/status" ? 200 : 404, "application/json", json);
      });
  std::string status;
  bool answered = false;
  runner_.Run(Ask(runner_.executor(), path_, kProxyStatusLimit, status, answered));
  server.reset();
  EXPECT_EQ(status, json);
  EXPECT_EQ(ListeningWorkloads(status), std::set<uint32_t>{4});
  EXPECT_TRUE(ListeningWorkloads("").empty());
  EXPECT_TRUE(ListeningWorkloads("[1,2]").empty());
}

TEST_F(ProxyStatusTest, NoProxyIsNoStatus) {
  std::string status = "not asked";
  bool answered = false;
  runner_.Run(Ask(runner_.executor(), path_ + ".gone", kProxyStatusLimit, status, answered));
  EXPECT_EQ(status, "");
}

}  // namespace
}  // namespace weft::agent
