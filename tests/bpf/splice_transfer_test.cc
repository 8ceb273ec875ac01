// SPDX-License-Identifier: Apache-2.0
// Checked transfers through the splice: sizes and readers of every temper, many connections opened
// and closed at once, processes stopped and killed at any moment. The short form is `make test`'s;
// WEFT_SOAK=1 is `make soak`: to 4 GiB, thousands of connections.
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "tests/bpf/splice_bed.h"

namespace weft::bpf {
namespace {

bool IsSoak() { return getenv("WEFT_SOAK") != nullptr; }

enum class Reader { kFast, kSlow, kSleeping };

struct Transfer {
  uint64_t bytes;
  Reader reader;
};

std::vector<Transfer> Transfers() {
  std::vector<Transfer> all;
  for (const Reader reader : {Reader::kFast, Reader::kSlow, Reader::kSleeping}) {
    for (const uint64_t bytes : {1ull, 4096ull, 1'000'003ull, 64ull << 20}) {
      all.push_back({bytes, reader});
    }
    if (IsSoak()) all.push_back({4ull << 30, reader});
  }
  return all;
}

class SpliceTransfer : public SpliceBed, public testing::WithParamInterface<Transfer> {};

// One thread each, pieces of all sizes; a sleeping reader lets the writer fill what there is.
TEST_P(SpliceTransfer, EveryByteArrivesInOrder) {
  const auto [total, reader] = GetParam();
  Pair pair = Spliced();
  const uint64_t before = stats().messages;
  std::thread writer([&, total = total] {
    std::mt19937_64 random(total);
    const std::string chunk = Bytes(0, 1 << 20);
    for (uint64_t sent = 0; sent < total;) {
      const uint64_t piece = std::min<uint64_t>(random() % 200'000 + 1, total - sent);
      const uint64_t at = sent % (1 << 19);
      SendAll(pair.client, chunk.substr(at, piece));
      sent += piece;
    }
    shutdown(pair.client.get(), SHUT_WR);
  });
  std::mt19937_64 random(total + 1);
  const std::string expected = Bytes(0, 1 << 20);
  uint64_t got = 0, writer_at = 0, piece_left = 0, chunk_at = 0;
  std::mt19937_64 replay(total);  // of the writer's pieces
  const size_t read_bytes = reader == Reader::kSlow ? 4096 : 256 * 1024;
  std::string buffer(read_bytes, '\0');
  uint64_t next_sleep = 0;
  while (got < total) {
    if (reader == Reader::kSleeping && got >= next_sleep) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // lets the queue fill
      next_sleep = got + std::max<uint64_t>(total / 20, 1);
    }
    ASSERT_TRUE(WaitFor(pair.server, POLLIN)) << "stuck at " << got << " of " << total;
    const ssize_t n = recv(pair.server.get(), buffer.data(), buffer.size(), 0);
    ASSERT_GT(n, 0) << strerror(errno) << " at " << got;
    for (size_t i = 0; i < static_cast<size_t>(n);) {
      if (piece_left == 0) {
        piece_left = std::min<uint64_t>(replay() % 200'000 + 1, total - writer_at);
        chunk_at = writer_at % (1 << 19);
        writer_at += piece_left;
      }
      const size_t part = std::min<uint64_t>(static_cast<size_t>(n) - i, piece_left);
      ASSERT_EQ(memcmp(&buffer[i], &expected[chunk_at], part), 0) << "near " << got + i;
      i += part;
      chunk_at += part;
      piece_left -= part;
    }
    got += static_cast<uint64_t>(n);
  }
  writer.join();
  ASSERT_TRUE(WaitFor(pair.server, POLLIN));
  EXPECT_EQ(recv(pair.server.get(), buffer.data(), 1, 0), 0);
  EXPECT_GT(stats().messages, before);
  EXPECT_EQ(stats().redirect_failed, 0u);
}

INSTANTIATE_TEST_SUITE_P(All, SpliceTransfer, testing::ValuesIn(Transfers()), [](const auto& each) {
  const Reader reader = each.param.reader;
  const std::string name = reader == Reader::kFast   ? "Fast"
                           : reader == Reader::kSlow ? "Slow"
                                                     : "Sleeping";
  return name + std::to_string(each.param.bytes);
});

// Writes known bytes without end, in a process that is stopped, continued and killed meanwhile.
pid_t StartWriter(const UniqueFd& fd) {
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  signal(SIGPIPE, SIG_IGN);
  for (uint64_t sent = 0;;) {
    const std::string bytes = Bytes(sent, 10'007);
    const ssize_t n = send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<uint64_t>(n);
    } else if (errno != EAGAIN) {
      _exit(0);
    } else {
      WaitFor(fd, POLLOUT);
    }
  }
}

class SpliceProcesses : public SpliceBed {};

// What arrived until the end is a prefix of what was sent, and the end comes.
TEST_F(SpliceProcesses, AWriterThatIsStoppedAndKilledLosesNothingItSent) {
  std::mt19937_64 random(7);
  for (int round = 0; round < (IsSoak() ? 500 : 20); ++round) {
    Pair pair = Spliced();
    const pid_t writer = StartWriter(pair.client);
    pair.client = UniqueFd();
    std::thread killer([&, stops = random() % 4, pause = random() % 3000] {
      for (uint64_t i = 0; i < stops; ++i) {
        kill(writer, SIGSTOP);
        std::this_thread::sleep_for(std::chrono::microseconds(pause));
        kill(writer, SIGCONT);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(pause));  // any moment
      kill(writer, SIGKILL);
      waitpid(writer, nullptr, 0);
    });
    uint64_t got = 0;
    char buffer[65536];
    ssize_t n = 1;
    while (n > 0 && WaitFor(pair.server, POLLIN)) {
      n = recv(pair.server.get(), buffer, sizeof buffer, 0);
      for (ssize_t i = 0; i < n; ++i, ++got) ASSERT_EQ(buffer[i], ByteAt(got)) << "at " << got;
    }
    EXPECT_EQ(n, 0) << "no end after " << got << " bytes";
    killer.join();
  }
}

TEST_F(SpliceProcesses, AReaderThatIsKilledEndsItsWriter) {
  std::mt19937_64 random(8);
  for (int round = 0; round < (IsSoak() ? 500 : 20); ++round) {
    Pair pair = Spliced();
    fflush(nullptr);
    const pid_t reader = fork();
    if (reader == 0) {
      pair.client = UniqueFd();
      char buffer[10'007];
      while (WaitFor(pair.server, POLLIN) &&
             recv(pair.server.get(), buffer, sizeof buffer, 0) != 0) {
      }
      _exit(0);
    }
    pair.server = UniqueFd();
    std::thread killer([&, pause = random() % 3000] {
      std::this_thread::sleep_for(std::chrono::microseconds(pause));
      kill(reader, SIGKILL);
      waitpid(reader, nullptr, 0);
    });
    const std::string bytes = Bytes(0, 10'007);
    ssize_t n = 1;
    int error = 0;
    while (n > 0 || error == EAGAIN) {
      n = send(pair.client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      error = n < 0 ? errno : 0;
      if (error == EAGAIN && !WaitFor(pair.client, POLLOUT)) {
        ADD_FAILURE() << "hangs";
        break;
      }
    }
    EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << strerror(error);
    killer.join();
  }
}

TEST_F(SpliceProcesses, ManyAtOnce) {
  Pair warm = Spliced();
  const int at_once = 200, batches = IsSoak() ? 50 : 2;
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<Pair> pairs;
    for (int i = 0; i < at_once; ++i) pairs.push_back(Connected(Blocking::kNo, Blocking::kNo));
    for (Pair& pair : pairs) SendAll(pair.client, Bytes(0, 20'000));
    for (Pair& pair : pairs) shutdown(pair.client.get(), SHUT_WR);
    for (Pair& pair : pairs) EXPECT_TRUE(ReceiveSome(pair.server, 20'001) == Bytes(0, 20'000));
  }
  EXPECT_EQ(stats().redirect_failed, 0u);
  EXPECT_EQ(stats().insert_failed, 0u);
}

}  // namespace
}  // namespace weft::bpf
