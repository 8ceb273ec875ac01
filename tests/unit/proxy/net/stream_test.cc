// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <optional>

#include "proxy/base/signal.h"
#include "proxy/net/dial.h"
#include "proxy/net/io.h"
#include "proxy/net/listen.h"
#include "proxy/net/local_sockets.h"
#include "proxy/net/stream_pair.h"
#include "proxy/net/tcp_stream.h"
#include "tests/support/run_task.h"

namespace weft::net {
namespace {

using std::chrono::milliseconds;
using test::TaskRunner;

Task<std::string> ReadToEnd(Stream& stream, Reason* reason) {
  std::string all;
  std::vector<uint8_t> buffer(65536);
  for (;;) {
    auto result = co_await ReadSome(stream, buffer);
    if (result.status != IoStatus::kOk) {
      *reason = result.status == IoStatus::kEof ? WEFT_R_NONE : result.reason;
      co_return all;
    }
    all.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
  }
}

struct Loopback {
  std::unique_ptr<Stream> client, server;
};

Task<void> Connect(TaskRunner& runner, Loopback& out, IpAddress ip) {
  auto listen_fd = ListenTcp({ip, 0});
  EXPECT_TRUE(listen_fd.ok()) << listen_fd.status().ToString();
  if (!listen_fd.ok()) co_return;
  std::optional<int> accepted;
  SocketAddress peer;
  Signal done(runner.executor());
  Acceptor acceptor(runner.executor(), *listen_fd, [&](int fd, SocketAddress from) {
    accepted = fd;
    peer = from;
    done.Notify();
  });
  acceptor.Start();
  auto dialed = co_await DialTcp(runner.executor(), acceptor.address(), milliseconds(2000));
  EXPECT_TRUE(dialed.ok()) << dialed.status().ToString();
  if (!dialed.ok()) co_return;
  co_await done.Wait();
  out.client = std::move(*dialed);
  out.server = MakeSocketStream(runner.executor(), *accepted);
  EXPECT_EQ(peer, LocalAddress(out.client->native_handle()));
  EXPECT_EQ(PeerAddress(out.client->native_handle()), LocalAddress(out.server->native_handle()));
}

Task<void> EchoAndHalfClose(TaskRunner& runner, IpAddress ip) {
  Loopback pair;
  co_await Connect(runner, pair, ip);
  auto written = co_await WriteAll(*pair.client, "hello");
  EXPECT_EQ(written.status, IoStatus::kOk);
  pair.client->ShutdownWrite();
  Reason reason = WEFT_R_NONE;
  auto text = co_await ReadToEnd(*pair.server, &reason);
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(reason, WEFT_R_NONE);
  // The other direction is still open.
  auto back = co_await WriteAll(*pair.server, "world");
  EXPECT_EQ(back.status, IoStatus::kOk);
  pair.server->Close(WEFT_R_CLOSED);
  auto answer = co_await ReadToEnd(*pair.client, &reason);
  EXPECT_EQ(answer, "world");
  EXPECT_EQ(reason, WEFT_R_NONE);
}

TEST(SocketStream, HalfCloseKeepsTheOtherDirection) {
  for (const char* ip : {"127.0.0.1", "::1"}) {
    TaskRunner runner;
    runner.Run(EchoAndHalfClose(runner, *IpAddress::Parse(ip)));
  }
}

Task<void> CloseWithReasonResets(TaskRunner& runner) {
  Loopback pair;
  co_await Connect(runner, pair, *IpAddress::Parse("127.0.0.1"));
  pair.server->Close(WEFT_R_POLICY_DENIED);
  pair.server->Close(WEFT_R_CLOSED);  // the first reason stays
  uint8_t byte;
  EXPECT_EQ(pair.server->TryRead({&byte, 1}).reason, WEFT_R_POLICY_DENIED);
  auto result = co_await ReadSome(*pair.client, {&byte, 1});
  EXPECT_EQ(result.status, IoStatus::kError);
  EXPECT_EQ(result.reason, WEFT_R_PEER_RESET);
}

TEST(SocketStream, CloseWithAReasonResets) {
  TaskRunner runner;
  runner.Run(CloseWithReasonResets(runner));
}

Task<void> WaitReadable(Stream& stream, bool& woke) {
  co_await stream.Readable();
  woke = true;
}

TEST(SocketStream, CloseWakesTheWaiter) {
  TaskRunner runner;
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  auto stream = MakeSocketStream(runner.executor(), fds[0]);
  EXPECT_NE(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
  bool woke = false;
  runner.Spawn(WaitReadable(*stream, woke));
  asio::post(runner.io(), [&] { stream->Close(WEFT_R_CLOSED); });
  runner.Run();
  EXPECT_TRUE(woke);
  close(fds[1]);
}

TEST(SocketStream, DestructionWakesTheWaiter) {
  TaskRunner runner;
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  auto stream = MakeSocketStream(runner.executor(), fds[0]);
  bool woke = false;
  runner.Spawn(WaitReadable(*stream, woke));
  asio::post(runner.io(), [&] { stream.reset(); });
  runner.Run();
  EXPECT_TRUE(woke);
  close(fds[1]);
}

TEST(SocketStream, ADescriptorThatCannotBeWatchedIsADeadStream) {
  TaskRunner runner;
  auto stream = MakeSocketStream(runner.executor(), open("/dev/null", O_RDWR | O_CLOEXEC));
  uint8_t byte;
  EXPECT_EQ(stream->TryRead({&byte, 1}).status, IoStatus::kError);
}

Task<void> Refused(TaskRunner& runner) {
  auto listen_fd = ListenTcp({*IpAddress::Parse("127.0.0.1"), 0});
  EXPECT_TRUE(listen_fd.ok());
  const SocketAddress address = LocalAddress(*listen_fd);
  close(*listen_fd);
  LocalSocketSource sockets;
  auto socket = co_await sockets.Take({.family = AF_INET});
  EXPECT_GE(socket.fd, 0);
  auto connected = co_await ConnectFd(runner.executor(), socket.fd, address, milliseconds(2000));
  EXPECT_EQ(connected.stream, nullptr);
  EXPECT_EQ(connected.reason, WEFT_R_CONNECT_FAILED);
  EXPECT_EQ(fcntl(socket.fd, F_GETFD), -1);  // it took the socket, and closed it
  auto status = co_await Dial(runner.executor(), address.ToString(), milliseconds(2000));
  EXPECT_FALSE(status.ok());
  auto bad = co_await Dial(runner.executor(), "no-port-here", milliseconds(2000));
  EXPECT_FALSE(bad.ok());
}

TEST(Dial, RefusedSaysSo) {
  TaskRunner runner;
  runner.Run(Refused(runner));
}

Task<void> TimesOut(TaskRunner& runner) {
  // A listener whose queue is full answers no SYN: backlog 0 holds one connection.
  auto listen_fd = ListenTcp({*IpAddress::Parse("127.0.0.1"), 0}, {.backlog = 0});
  EXPECT_TRUE(listen_fd.ok());
  const SocketAddress address = LocalAddress(*listen_fd);
  auto first = co_await DialTcp(runner.executor(), address, milliseconds(1000));
  EXPECT_TRUE(first.ok());
  Reason reason = WEFT_R_NONE;
  std::vector<std::unique_ptr<Stream>> queued;
  for (int i = 0; i < 4 && reason == WEFT_R_NONE; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    auto connected = co_await ConnectFd(runner.executor(), fd, address, milliseconds(50));
    reason = connected.reason;
    queued.push_back(std::move(connected.stream));
  }
  EXPECT_EQ(reason, WEFT_R_CONNECT_TIMEOUT);
  close(*listen_fd);
}

TEST(Dial, TimeoutSaysSo) {
  TaskRunner runner;
  runner.Run(TimesOut(runner));
}

Task<void> UnixEcho(TaskRunner& runner, std::string path) {
  auto stream = co_await Dial(runner.executor(), "unix:" + path, milliseconds(1000));
  EXPECT_TRUE(stream.ok()) << stream.status().ToString();
}

TEST(Listen, UnixReplacesADeadSocketFileButNotALiveOne) {
  const std::string path = testing::TempDir() + "weft_listen_test_" + std::to_string(getpid());
  auto first = ListenUnix(path, 0600);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_FALSE(ListenUnix(path, 0600).ok());
  close(*first);
  auto second = ListenUnix(path, 0600);
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  TaskRunner runner;
  runner.Run(UnixEcho(runner, path));
  close(*second);
  unlink(path.c_str());
}

Task<void> PairBounds(TaskRunner& runner) {
  auto [a, b] = MakeStreamPair(runner.executor(), {.capacity_bytes = 10, .max_read_bytes = 3});
  std::string text(25, 'x');
  iovec part{text.data(), text.size()};
  EXPECT_EQ(a->TryWrite({&part, 1}).bytes, 10u);
  EXPECT_EQ(a->TryWrite({&part, 1}).status, IoStatus::kWouldBlock);
  uint8_t buffer[16];
  EXPECT_EQ(b->TryRead(buffer).bytes, 3u);
  co_await a->Writable();
  EXPECT_EQ(a->TryWrite({&part, 1}).bytes, 3u);
  a->Close(WEFT_R_IO_ERROR);
  EXPECT_EQ(b->TryRead(buffer).reason, WEFT_R_PEER_RESET);
}

TEST(StreamPair, IsBoundedAndResets) {
  TaskRunner runner;
  runner.Run(PairBounds(runner));
}

}  // namespace
}  // namespace weft::net
