// SPDX-License-Identifier: Apache-2.0
// The agent has one thread: a weft-keyd or weft-sockets that hangs may not take it along.
#include "proxy/ipc/control_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>

#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_control.h"
#include "proxy/ipc/sockets_control.h"

namespace weft::ipc {
namespace {

// A server of which only the socket works.
class HungServer : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "weft_ker_control_" + std::to_string(getpid());
    listener_ = ListenPackets(path_, 0600);
    ASSERT_GE(listener_, 0);
  }
  void TearDown() override {
    if (connection_ >= 0) close(connection_);
    close(listener_);
    unlink(path_.c_str());
  }
  void Accept() {
    connection_ = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    ASSERT_GE(connection_, 0);
  }
  template <typename Request, typename Answer>
  void AnswerNext(Answer answer, std::span<const int> fds = {}) {
    Request request;
    ASSERT_EQ(recv(connection_, &request, sizeof request, 0), sizeof request);
    answer.id = request.id;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&answer);
    ASSERT_EQ(SendPacket(connection_, {bytes, sizeof answer}, fds), 0);
  }
  std::string path_;
  int listener_ = -1;
  int connection_ = -1;
};

TEST_F(HungServer, ACallEndsAfterAQuarterOfASecond) {
  auto keyd = KeydControl::Connect(path_);
  auto sockets = SocketsControl::Connect(path_);
  ASSERT_TRUE(keyd.ok() && sockets.ok());
  for (const bool of_keyd : {true, false}) {
    const auto before = std::chrono::steady_clock::now();
    const absl::Status status = of_keyd ? keyd->Forget(1) : sockets->RemoveWorkload(1);
    const auto took = std::chrono::steady_clock::now() - before;
    EXPECT_FALSE(status.ok());
    EXPECT_GE(took, std::chrono::milliseconds(249));
    EXPECT_LT(took, std::chrono::milliseconds(2000)) << "5 s was the bound once";
  }
}

// An answer that comes after its call has given up must not be taken for that of the next call.
TEST_F(HungServer, ALateAnswerIsNotTheNextOnes) {
  auto sockets = SocketsControl::Connect(path_);
  ASSERT_TRUE(sockets.ok());
  Accept();
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  ASSERT_FALSE(sockets->NewChannel(7).ok());
  AnswerNext<SocketsRequest>(SocketsAnswer{.count = 1}, std::span(pipe_ends + 1, 1));
  close(pipe_ends[1]);
  // The second is not answered at all, but what came for the first is read, and dropped.
  EXPECT_FALSE(sockets->CountWorkloads().ok());
  char byte;
  ASSERT_EQ(fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(read(pipe_ends[0], &byte, 1), 0) << "the late descriptor is still open";
  close(pipe_ends[0]);
  AnswerNext<SocketsRequest>(SocketsAnswer{.value = 1});
  // Written before it is asked, by the id it will have.
  const SocketsAnswer third{.id = 3, .value = 42};
  ASSERT_EQ(SendPacket(connection_, {reinterpret_cast<const uint8_t*>(&third), sizeof third}), 0);
  auto count = sockets->CountWorkloads();
  ASSERT_TRUE(count.ok()) << count.status().ToString();
  EXPECT_EQ(*count, 42u);
}

TEST_F(HungServer, AnAnswerOfTheWrongSizeIsAnError) {
  auto sockets = SocketsControl::Connect(path_);
  ASSERT_TRUE(sockets.ok());
  Accept();
  const uint8_t short_answer[] = {1, 0, 0, 0, 1};
  ASSERT_EQ(SendPacket(connection_, short_answer), 0);
  EXPECT_EQ(sockets->RemoveWorkload(1).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace weft::ipc
