// SPDX-License-Identifier: Apache-2.0
// The rows of facts/splice.md that need a reader which blocks: the splice keeps such a socket out
// of its map (DESIGN 4.1), so what the program sees is what plain TCP shows, whatever the
// annotation says. And sends that block while the connection is made.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <thread>

#include "tests/bpf/splice_bed.h"

namespace weft::bpf {
namespace {

constexpr size_t kMessage = 100;
constexpr std::chrono::milliseconds kBetween{20};  // the reader sleeps before each message

struct Row {
  const char* name;
  std::function<std::string(const UniqueFd&)> read;  // both messages come while it does
};

std::string Errno(ssize_t result) {
  return result >= 0 ? std::to_string(result) : strerrorname_np(errno);
}

class BlockingRows : public SpliceBed, public testing::WithParamInterface<Row> {
 protected:
  std::string Run(uint32_t flags) {
    node_.Enrol(client_pod_, flags);
    node_.Enrol(server_pod_, flags);
    Pair pair = Connected(Blocking::kNo, Blocking::kYes);
    Settle();
    // Learned by the walks as blocking: the next one stays out with its client.
    pair = Connected(Blocking::kNo, Blocking::kYes);
    Settle();
    const uint64_t before = stats().messages;
    std::string seen;
    std::thread reader([&] { seen = GetParam().read(pair.server); });
    for (uint64_t i = 0; i < 2; ++i) {
      std::this_thread::sleep_for(kBetween);
      SendAll(pair.client, Bytes(i * kMessage, kMessage));
    }
    reader.join();
    EXPECT_EQ(stats().messages, before);
    return seen;
  }
};

TEST_P(BlockingRows, SeesTheSame) {
  const std::string plain = Run(WEFT_WL_PROXY_READY);
  EXPECT_EQ(Run(kFlags), plain);
  EXPECT_EQ(Run(kFlags | WEFT_WL_SPLICE_AUTO), plain);
}

std::string Receive(const UniqueFd& fd, int flags) {
  const timeval patience{2, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char buffer[2 * kMessage];
  return Errno(recv(fd.get(), buffer, sizeof buffer, flags));
}

std::string LowWater(const UniqueFd& fd) {
  const int low = 2 * kMessage;
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
  return Receive(fd, 0);
}

std::string Splice(const UniqueFd& fd) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const UniqueFd out(ends[0]), in(ends[1]);
  std::string seen;
  size_t got = 0;
  while (got < 2 * kMessage) {
    const ssize_t n = splice(fd.get(), nullptr, in.get(), nullptr, 2 * kMessage - got, 0);
    if (n <= 0) return "splice: " + Errno(n);
    got += static_cast<size_t>(n);
  }
  return std::to_string(got);
}

std::string Timeout(const UniqueFd& fd) {
  char buffer[2 * kMessage];
  size_t got = 0;
  while (got < sizeof buffer) {
    const ssize_t n = recv(fd.get(), buffer + got, sizeof buffer - got, 0);
    if (n <= 0) return "early: " + Errno(n);
    got += static_cast<size_t>(n);
  }
  const timeval patience{0, 100'000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const auto start = std::chrono::steady_clock::now();
  const std::string answer = Errno(recv(fd.get(), buffer, sizeof buffer, 0));
  const auto took = std::chrono::steady_clock::now() - start;
  return answer + (took >= std::chrono::milliseconds(95) ? " in time" : " too early");
}

// Another thread of the program writes much on the same socket: in the map that would wake recv().
std::string FullDuplex(const UniqueFd& fd) {
  std::thread writer([&] {
    const std::string bytes(1 << 16, 'x');
    size_t sent = 0;
    while (sent < (1 << 20)) {
      const ssize_t n = send(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n <= 0) break;  // nobody reads: until the buffers are full
      sent += static_cast<size_t>(n);
    }
  });
  std::string seen = Receive(fd, MSG_WAITALL);
  writer.join();
  return seen;
}

INSTANTIATE_TEST_SUITE_P(
    Facts, BlockingRows,
    testing::Values(Row{"WaitAll", [](const UniqueFd& fd) { return Receive(fd, MSG_WAITALL); }},
                    Row{"PeekWaitAll",
                        [](const UniqueFd& fd) { return Receive(fd, MSG_PEEK | MSG_WAITALL); }},
                    Row{"LowWater", LowWater}, Row{"Splice", Splice}, Row{"Timeout", Timeout},
                    Row{"FullDuplex", FullDuplex}),
    [](const auto& each) { return std::string(each.param.name); });

// The connection is made slowly, a blocking send() waits for it, others follow (facts 0.2).
TEST_F(SpliceBed, SendsDuringConnectKeepTheOrder) {
  Pair warm = Spliced();
  Ip(server_pod_.netns, "link set eth0 down\n");
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
  sockaddr_storage address{};
  const socklen_t length = server_pod_.At(kPort).ToSockaddr(AF_INET, &address);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  ASSERT_EQ(errno, EINPROGRESS);
  ASSERT_EQ(fcntl(client.get(), F_SETFL, 0), 0);
  std::thread writer([&] {
    for (uint64_t i = 0; i < 5; ++i) {
      const std::string bytes = Bytes(i * 1000, 1000);
      EXPECT_EQ(send(client.get(), bytes.data(), bytes.size(), 0), 1000) << strerror(errno);
      if (i == 0) fcntl(client.get(), F_SETFL, O_NONBLOCK);
    }
  });
  Ip(server_pod_.netns, "link set eth0 up\n");
  const UniqueFd accepted = Accept(server_, Blocking::kNo);
  EXPECT_TRUE(ReceiveSome(accepted, 5000) == Bytes(0, 5000));
  writer.join();
}

}  // namespace
}  // namespace weft::bpf
