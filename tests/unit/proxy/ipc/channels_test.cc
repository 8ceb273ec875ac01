// SPDX-License-Identifier: Apache-2.0
// The proxy's ends of its channels, against a hand-made other end that may misbehave.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cstring>
#include <optional>

#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"
#include "proxy/ipc/remote_signer.h"
#include "proxy/ipc/remote_sockets.h"
#include "proxy/ipc/sockets_protocol.h"
#include "tests/support/run_task.h"

namespace weft::ipc {
namespace {

using test::TaskRunner;

int OpenFds() {
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

std::vector<uint8_t> Bytes(size_t size) { return std::vector<uint8_t>(size, 'x'); }

TEST(FdPassing, DescriptorsArriveCloseOnExec) {
  const FdPair pair = MakeSeqpacketPair();
  const int fds[] = {pair.a, pair.b};
  ASSERT_EQ(SendPacket(pair.a, Bytes(10), fds), 0);
  std::vector<uint8_t> buffer(100);
  const ReceivedPacket packet = ReceivePacket(pair.b, buffer);
  EXPECT_EQ(packet.error, 0);
  EXPECT_EQ(packet.bytes, 10u);
  ASSERT_EQ(packet.fds.size(), 2u);
  for (const int fd : packet.fds) {
    EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
  }
  EXPECT_EQ(PeerUid(pair.a), geteuid());
  close(pair.a);
  EXPECT_EQ(ReceivePacket(pair.b, buffer).error, ECONNRESET);
  close(pair.b);
}

TEST(FdPassing, TruncationLeaksNothing) {
  const FdPair pair = MakeSeqpacketPair();
  const int before = OpenFds();
  const std::vector<int> one = {pair.a};
  ASSERT_EQ(SendPacket(pair.a, Bytes(11), one), 0);
  std::vector<uint8_t> buffer(10);
  EXPECT_EQ(ReceivePacket(pair.b, buffer).error, EMSGSIZE);
  // More descriptors than may come: the kernel drops the rest, we the others.
  std::vector<int> many(kMaxPassedFds + 5, pair.a);
  EXPECT_EQ(SendPacket(pair.a, Bytes(1), many), EINVAL);
  std::vector<char> control(CMSG_SPACE(many.size() * sizeof(int)));
  uint8_t byte = 0;
  iovec part{&byte, 1};
  msghdr message{.msg_iov = &part,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = control.size()};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(many.size() * sizeof(int));
  memcpy(CMSG_DATA(header), many.data(), many.size() * sizeof(int));
  ASSERT_EQ(sendmsg(pair.a, &message, 0), 1);
  EXPECT_EQ(ReceivePacket(pair.b, buffer).error, EMSGSIZE);
  EXPECT_EQ(OpenFds(), before);
  close(pair.a);
  close(pair.b);
}

// The other end, as weft-sockets would be.
SocketsRequest ExpectRequest(int fd) {
  SocketsRequest request;
  uint8_t buffer[100] = {};
  const ReceivedPacket packet = ReceivePacket(fd, buffer);
  EXPECT_EQ(packet.error, 0);
  EXPECT_EQ(packet.bytes, sizeof request);
  memcpy(&request, buffer, sizeof request);
  return request;
}

void SendAnswer(int fd, SocketsAnswer answer, const std::vector<int>& fds) {
  EXPECT_EQ(SendPacket(fd, {reinterpret_cast<const uint8_t*>(&answer), sizeof answer}, fds), 0);
}

std::vector<int> NewSockets(size_t count) {
  std::vector<int> fds;
  for (size_t i = 0; i < count; ++i) fds.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fds;
}

void CloseAll(const std::vector<int>& fds) {
  for (const int fd : fds) close(fd);
}

class RemoteSocketsTest : public testing::Test {
 protected:
  void SetUp() override {
    fcntl(pair_.b, F_SETFL, O_NONBLOCK);
    source_ = std::make_unique<RemoteSocketSource>(runner_.executor(), pair_.a);
    fds_before_ = OpenFds() - 2;  // now that Asio has its own
  }
  void TearDown() override {
    source_.reset();
    runner_.io().restart();
    runner_.io().poll();
    if (pair_.b >= 0) close(pair_.b);
    EXPECT_EQ(OpenFds(), fds_before_);
  }
  void Serve(size_t count) {
    const SocketsRequest request = ExpectRequest(pair_.b);
    const auto fds = NewSockets(count);
    SendAnswer(pair_.b, {.id = request.id, .count = static_cast<uint32_t>(count)}, fds);
    CloseAll(fds);
  }
  TaskRunner runner_;
  int fds_before_ = 0;  // without the channel
  FdPair pair_ = MakeSeqpacketPair();
  std::unique_ptr<RemoteSocketSource> source_;
};

Task<void> Take(RemoteSocketSource& source, net::SocketRequest request,
                std::vector<net::SocketSource::Result>& out) {
  auto result = co_await source.Take(request);
  out.push_back(result);
}

Task<void> TakeListeners(RemoteSocketSource& source, std::optional<std::vector<int>>& out) {
  auto result = co_await source.Listeners(5, 6);
  out = result;
}

constexpr net::SocketRequest kToApp{
    .kind = net::SocketKind::kToApp, .workload = 5, .generation = 6, .family = AF_INET};

TEST_F(RemoteSocketsTest, BatchesAreRefilledAtHalf) {
  std::vector<net::SocketSource::Result> taken;
  runner_.Spawn(Take(*source_, kToApp, taken));
  runner_.io().poll();
  Serve(32);
  runner_.Run();
  ASSERT_EQ(taken.size(), 1u);
  for (int i = 0; i < 14; ++i) runner_.Run(Take(*source_, kToApp, taken));
  uint8_t buffer[100];
  EXPECT_EQ(ReceivePacket(pair_.b, buffer).error, EAGAIN);  // 17 left: no request yet
  runner_.Run(Take(*source_, kToApp, taken));
  const SocketsRequest refill = ExpectRequest(pair_.b);  // 16 left
  EXPECT_EQ(refill.op, SocketsOp::kToApp);
  EXPECT_EQ(refill.workload, 5u);
  EXPECT_EQ(refill.generation, 6u);
  EXPECT_EQ(refill.family, AF_INET);
  EXPECT_EQ(refill.count, 16u);
  for (const auto& result : taken) {
    EXPECT_GE(result.fd, 0);
    close(result.fd);
  }
}

TEST_F(RemoteSocketsTest, WaitersAreServedInOrderAndAskedForAgain) {
  std::vector<net::SocketSource::Result> taken;
  for (int i = 0; i < 3; ++i) runner_.Spawn(Take(*source_, kToApp, taken));
  runner_.io().poll();
  Serve(2);
  runner_.io().poll();
  Serve(1);
  runner_.Run();
  ASSERT_EQ(taken.size(), 3u);
  for (const auto& result : taken) close(result.fd);
}

TEST_F(RemoteSocketsTest, ARefusalIsPassedOnAtOnce) {
  std::vector<net::SocketSource::Result> taken;
  runner_.Spawn(Take(*source_, kToApp, taken));
  runner_.io().poll();
  const SocketsRequest request = ExpectRequest(pair_.b);
  SendAnswer(pair_.b, {.id = request.id, .error = ENOENT}, {});
  runner_.Run(std::chrono::seconds(1));
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].fd, -1);
  EXPECT_EQ(taken[0].reason, WEFT_R_SOCKETS_UNAVAILABLE);
}

TEST_F(RemoteSocketsTest, SilenceEndsAfterASecond) {
  std::vector<net::SocketSource::Result> taken;
  std::optional<std::vector<int>> listeners;
  const auto start = std::chrono::steady_clock::now();
  runner_.Spawn(Take(*source_, kToApp, taken));
  runner_.Spawn(TakeListeners(*source_, listeners));
  runner_.Run();
  const auto waited = std::chrono::steady_clock::now() - start;
  EXPECT_GE(waited, std::chrono::milliseconds(990));
  EXPECT_LE(waited, std::chrono::milliseconds(5000));
  EXPECT_EQ(taken.at(0).reason, WEFT_R_SOCKETS_UNAVAILABLE);
  EXPECT_TRUE(listeners->empty());
  Serve(32);  // late answers are kept, or closed
  Serve(3);
  runner_.Run(Take(*source_, kToApp, taken));
  EXPECT_GE(taken.at(1).fd, 0);
  close(taken.at(1).fd);
}

TEST_F(RemoteSocketsTest, ListenersComeThrough) {
  std::optional<std::vector<int>> listeners;
  runner_.Spawn(TakeListeners(*source_, listeners));
  runner_.io().poll();
  const SocketsRequest request = ExpectRequest(pair_.b);
  EXPECT_EQ(request.op, SocketsOp::kListeners);
  const auto fds = NewSockets(3);
  SendAnswer(pair_.b, {.id = request.id, .count = 3}, fds);
  CloseAll(fds);
  runner_.Run();
  ASSERT_EQ(listeners->size(), 3u);
  CloseAll(*listeners);
}

TEST_F(RemoteSocketsTest, NonsenseEndsTheChannel) {
  for (int kind = 0; kind < 4; ++kind) {
    SCOPED_TRACE(kind);
    std::vector<net::SocketSource::Result> taken;
    runner_.Spawn(Take(*source_, kToApp, taken));
    runner_.io().restart();
    runner_.io().poll();
    SocketsAnswer answer{.id = ExpectRequest(pair_.b).id};
    const auto fds = NewSockets(1);
    answer.count = 1;
    if (kind == 0) answer.version = kSocketsVersion + 1;
    if (kind == 1) answer.id += 1;
    if (kind == 2) answer.count = 2;
    if (kind == 3) {
      EXPECT_EQ(SendPacket(pair_.b, Bytes(7), fds), 0);
    } else {
      SendAnswer(pair_.b, answer, fds);
    }
    CloseAll(fds);
    runner_.Run(std::chrono::seconds(1));
    ASSERT_EQ(taken.size(), 1u);
    EXPECT_EQ(taken[0].reason, WEFT_R_SOCKETS_UNAVAILABLE);
    EXPECT_FALSE(source_->alive());
    const auto start = std::chrono::steady_clock::now();
    runner_.Run(Take(*source_, kToApp, taken));
    EXPECT_EQ(taken[1].fd, -1);
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::milliseconds(500));  // it does not wait for a dead channel
    close(pair_.b);
    pair_ = MakeSeqpacketPair();
    fcntl(pair_.b, F_SETFL, O_NONBLOCK);
    source_ = std::make_unique<RemoteSocketSource>(runner_.executor(), pair_.a);
  }
}

TEST_F(RemoteSocketsTest, ForgetClosesWhatIsKept) {
  std::vector<net::SocketSource::Result> taken;
  runner_.Spawn(Take(*source_, kToApp, taken));
  runner_.io().poll();
  Serve(32);
  runner_.Run();
  close(taken.at(0).fd);
  source_->Forget(5);
  EXPECT_EQ(OpenFds(), fds_before_ + 2);
}

// --- signer ---

struct SignResult {
  int calls = 0;
  bool ok = false;
  std::vector<uint8_t> signature;
};

tls::KeySigner::Done Into(SignResult& out) {
  return [&out](bool ok, std::vector<uint8_t> signature) {
    ++out.calls;
    out.ok = ok;
    out.signature = std::move(signature);
  };
}

std::vector<uint8_t> KeydAnswerBytes(uint32_t id, int error, std::string_view body) {
  const KeydAnswer answer{
      .id = id, .error = error, .body_bytes = static_cast<uint32_t>(body.size())};
  std::vector<uint8_t> bytes(sizeof answer + body.size());
  memcpy(bytes.data(), &answer, sizeof answer);
  memcpy(bytes.data() + sizeof answer, body.data(), body.size());
  return bytes;
}

TEST(RemoteSigner, AnswersReachTheirCallers) {
  TaskRunner runner;
  const FdPair pair = MakeSeqpacketPair();
  RemoteSigner signer(runner.executor(), pair.a);
  SignResult first, second;
  signer.Sign("spiffe://td/a", 9, Bytes(130), Into(first));
  signer.Sign("spiffe://td/b", 10, Bytes(131), Into(second));
  std::vector<uint8_t> buffer(kMaxKeydPacket);
  std::vector<KeydRequest> requests(2);
  for (auto& request : requests) {
    ASSERT_EQ(ReceivePacket(pair.b, buffer).error, 0);
    memcpy(&request, buffer.data(), sizeof request);
  }
  EXPECT_EQ(requests[0].op, KeydOp::kSign);
  EXPECT_EQ(requests[0].key_id, 9u);
  EXPECT_EQ(requests[1].body_bytes, 131u);
  ASSERT_EQ(SendPacket(pair.b, KeydAnswerBytes(requests[0].id, EPERM, "")), 0);
  ASSERT_EQ(SendPacket(pair.b, KeydAnswerBytes(requests[1].id, 0, "sig")), 0);
  runner.io().poll();
  EXPECT_EQ(first.calls, 1);
  EXPECT_FALSE(first.ok);
  EXPECT_TRUE(second.ok);
  EXPECT_EQ(second.signature, (std::vector<uint8_t>{'s', 'i', 'g'}));
  close(pair.b);
}

TEST(RemoteSigner, ABrokenChannelFailsEverything) {
  for (int kind = 0; kind < 4; ++kind) {
    SCOPED_TRACE(kind);
    TaskRunner runner;
    const FdPair pair = MakeSeqpacketPair();
    RemoteSigner signer(runner.executor(), pair.a);
    SignResult result, later;
    signer.Sign("spiffe://td/a", 9, Bytes(130), Into(result));
    if (kind == 0) {
      ASSERT_EQ(SendPacket(pair.b, Bytes(3)), 0);
    }
    if (kind == 1) {
      ASSERT_EQ(SendPacket(pair.b, KeydAnswerBytes(77, 0, "sig")), 0);
    }
    if (kind == 2) {
      auto bytes = KeydAnswerBytes(1, 0, "sig");
      bytes.push_back(0);
      ASSERT_EQ(SendPacket(pair.b, bytes), 0);
    }
    close(pair.b);
    EXPECT_EQ(result.calls, 0);
    runner.io().poll();
    EXPECT_EQ(result.calls, 1);
    EXPECT_FALSE(result.ok);
    EXPECT_FALSE(signer.alive());
    signer.Sign("spiffe://td/a", 9, Bytes(130), Into(later));
    EXPECT_EQ(later.calls, 0);  // never from inside Sign
    runner.io().restart();
    runner.io().poll();
    EXPECT_EQ(later.calls, 1);
    EXPECT_FALSE(later.ok);
  }
}

TEST(RemoteSigner, ItsEndAnswersWhatIsPending) {
  TaskRunner runner;
  const FdPair pair = MakeSeqpacketPair();
  SignResult result;
  {
    RemoteSigner signer(runner.executor(), pair.a);
    signer.Sign("spiffe://td/a", 9, Bytes(130), Into(result));
  }
  EXPECT_EQ(result.calls, 0);
  runner.io().poll();
  EXPECT_EQ(result.calls, 1);
  close(pair.b);
}

}  // namespace
}  // namespace weft::ipc
