// SPDX-License-Identifier: Apache-2.0
// weft-keyd's channels in this process: what they do when there is nothing left to give.
#include "control/identity/keyd_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"

namespace weft::identity {
namespace {

class KeydServerTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "weft_ker_keyd_" + std::to_string(getpid());
    const int listener = ipc::ListenPackets(path_, 0600);
    ASSERT_GE(listener, 0);
    server_ = std::make_unique<KeydServer>(listener, geteuid());
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit_), 0);
  }
  void TearDown() override {
    setrlimit(RLIMIT_NOFILE, &limit_);
    unlink(path_.c_str());
  }
  // No descriptor more from here on.
  void ExhaustDescriptors() {
    const int lowest_free = fcntl(0, F_DUPFD_CLOEXEC, 0);
    ASSERT_GE(lowest_free, 0);
    close(lowest_free);
    const rlimit none{.rlim_cur = static_cast<rlim_t>(lowest_free), .rlim_max = limit_.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  std::string path_;
  std::unique_ptr<KeydServer> server_;
  rlimit limit_{};
};

// poll() says that the listener is ready as long as somebody waits there, whether or not accept()
// can work.
TEST_F(KeydServerTest, DoesNotSpinWithoutDescriptors) {
  const int first = ipc::ConnectPackets(path_);
  ASSERT_GE(first, 0);
  server_->Turn(1000);
  ASSERT_EQ(server_->channel_count(), 1u);
  const int waiting = ipc::ConnectPackets(path_);
  ASSERT_GE(waiting, 0);
  ExhaustDescriptors();
  server_->Turn(1000);  // tries, and cannot
  ASSERT_EQ(server_->channel_count(), 1u);
  timespec before{}, after{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  server_->Turn(50);
  clock_gettime(CLOCK_MONOTONIC, &after);
  const int64_t waited_ms =
      (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1'000'000;
  EXPECT_GE(waited_ms, 49) << "the listener was polled although nothing could be accepted";
  // Whom it knows it serves meanwhile.
  const ipc::KeydRequest status{.op = ipc::KeydOp::kStatus};
  ASSERT_EQ(ipc::SendPacket(first, {reinterpret_cast<const uint8_t*>(&status), sizeof status}), 0);
  server_->Turn(1000);
  uint8_t answer[4096];
  EXPECT_GT(recv(first, answer, sizeof answer, MSG_DONTWAIT), 0);
  // And who waited is let in once there is a descriptor, without anybody else's help.
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit_), 0);
  for (int turns = 0; turns < 10 && server_->channel_count() < 2; ++turns) server_->Turn(1000);
  EXPECT_EQ(server_->channel_count(), 2u);
  close(first);
  close(waiting);
}

}  // namespace
}  // namespace weft::identity
