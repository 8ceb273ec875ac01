// SPDX-License-Identifier: Apache-2.0
// The admin interface asked by several clients at once while the workers answer on their threads.
#include "proxy/server/admin.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <thread>

#include "proxy/net/listen.h"
#include "proxy/net/local_sockets.h"

namespace weft::server {
namespace {

constexpr int kWorkers = 4;
constexpr int kClients = 3;
constexpr int kRequests = 2000;

class AdminTest : public testing::Test {
 protected:
  AdminTest() {
    for (uint32_t i = 0; i < kWorkers; ++i) {
      workers_.push_back(std::make_unique<worker::Worker>(worker::WorkerOptions{
          .index = i, .alone = true, .table = table_.get(), .make_sockets = [](const auto&) {
            return std::make_unique<net::LocalSocketSource>();
          }}));
      started_.push_back(workers_.back().get());
    }
    for (auto& worker : workers_) worker->Start(started_);
    admin_ = std::make_unique<Admin>(AdminView{.executor = io_.get_executor(),
                                               .workers = &workers_,
                                               .table = table_.get(),
                                               .draining = [] { return false; },
                                               .drain = [] {}},
                                     *net::ListenUnix(path_, 0600));
  }
  ~AdminTest() override {
    for (auto& worker : workers_) worker->Drain(std::chrono::milliseconds(0));
    for (auto& worker : workers_) worker->Join();
    unlink(path_.c_str());
  }

  const std::string path_ = testing::TempDir() + "weft-admin-" + std::to_string(getpid());
  asio::io_context io_{1};
  std::unique_ptr<upstream::NodeTable> table_ = *upstream::NodeTable::Create({.workers = kWorkers});
  std::vector<std::unique_ptr<worker::Worker>> workers_;
  std::vector<worker::Worker*> started_;
  std::unique_ptr<Admin> admin_;
};

// The responder is for main only: in a build with assertions its last copy ends the process when it
// goes on another thread, and the thread sanitizer sees what else would be touched.
TEST_F(AdminTest, EveryQuestionToTheWorkersIsAnsweredOnMain) {
  std::atomic<int> running{kClients}, answered{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < kRequests; ++i) {
        auto answer = ipc::HttpRequest(path_, "GET", client == 0 ? "/flows" : "/listeners", {}, 10);
        answered += answer.ok() && answer->status == 200 ? 1 : 0;
      }
      if (--running == 0) asio::post(io_, [this] { io_.stop(); });
    });
  }
  io_.run();
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, kClients * kRequests);
}

// While the others still drain: as long as that takes, nobody would be told anything.
TEST_F(AdminTest, AWorkerThatHasEndedIsNotWaitedFor) {
  started_[0]->Drain(std::chrono::milliseconds(0));
  started_[0]->Join();
  absl::StatusOr<ipc::LocalResponse> answer;
  std::thread client([&] {
    answer = ipc::HttpRequest(path_, "GET", "/flows", {}, 5);
    asio::post(io_, [this] { io_.stop(); });
  });
  io_.run();
  client.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->status, 200);
}

}  // namespace
}  // namespace weft::server
