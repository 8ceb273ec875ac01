// SPDX-License-Identifier: Apache-2.0
// weft-keyd's channels in this process: what they do when there is nothing left to give.
#include "control/identity/keyd_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

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
    server_ = std::make_unique<KeydServer>(listener, geteuid(), [] { return now_ns; });
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit_), 0);
  }
  void TearDown() override {
    setrlimit(RLIMIT_NOFILE, &limit_);
    if (control_ >= 0) close(control_);
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
  // The error of the answer to `request` at `channel`; the answer is in answer_, what came along in
  // fds_.
  int Ask(int channel, ipc::KeydRequest request) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&request);
    EXPECT_EQ(ipc::SendPacket(channel, {bytes, sizeof request}), 0);
    server_->Turn(1000);
    answer_.resize(ipc::kMaxKeydPacket);
    ipc::ReceivedPacket packet = ipc::ReceivePacket(channel, answer_);
    EXPECT_EQ(packet.error, 0);
    answer_.resize(packet.bytes);
    fds_ = packet.fds;
    ipc::KeydAnswer answer{.error = -1};
    if (packet.bytes >= sizeof answer) memcpy(&answer, answer_.data(), sizeof answer);
    return answer.error;
  }
  std::string Status() {
    EXPECT_EQ(Ask(control_, {.op = ipc::KeydOp::kStatus}), 0);
    return {answer_.begin() + sizeof(ipc::KeydAnswer), answer_.end()};
  }

  static inline int64_t now_ns = 0;
  std::string path_;
  std::unique_ptr<KeydServer> server_;
  int control_ = -1;
  std::vector<uint8_t> answer_;
  std::vector<int> fds_;
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

// A proxy that has been taken over asks as often as it likes. It must not keep the others of the
// node waiting, so that its channel has a rate; what is beyond is refused before a key is touched.
TEST_F(KeydServerTest, AChannelHasItsRate) {
  now_ns = 5'000'000'000;
  control_ = ipc::ConnectPackets(path_);
  server_->Turn(1000);
  int signer = -1;
  std::vector<int> others;
  for (const int64_t answered : {20'000, 20'000, 0, 200}) {
    // Two channels of one tenant: each has its own.
    if (answered == 20'000) {
      ASSERT_EQ(Ask(control_, {.op = ipc::KeydOp::kNewChannel, .tenant = 7}), 0);
      ASSERT_EQ(fds_.size(), 1u);
      if (signer >= 0) others.push_back(signer);
      signer = fds_[0];
    }
    if (answered == 200) now_ns += 10'000'000;
    int64_t refused_for_the_key = 0, refused_for_the_rate = 0;
    for (int i = 0; i < 21'000; ++i) {
      const int error = Ask(signer, {.op = ipc::KeydOp::kSign, .key_id = 99});
      if (error == EPERM) ++refused_for_the_key;
      if (error == EBUSY) ++refused_for_the_rate;
    }
    EXPECT_EQ(refused_for_the_key, answered);
    EXPECT_EQ(refused_for_the_rate, 21'000 - answered);
  }
  EXPECT_NE(Status().find("\"refused\":40200,\"too_often\":43800,"), std::string::npos) << Status();
  close(signer);
  for (const int fd : others) close(fd);
}

}  // namespace
}  // namespace weft::identity
