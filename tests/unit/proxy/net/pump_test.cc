// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/pump.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <optional>
#include <vector>

#include "proxy/net/buffer_slab.h"
#include "proxy/net/io.h"
#include "proxy/net/stream_pair.h"
#include "proxy/net/tcp_stream.h"
#include "tests/support/run_task.h"

namespace weft::net {
namespace {

using test::TaskRunner;

std::vector<uint8_t> Pattern(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(seed >> 24);
  }
  return bytes;
}

Task<void> SendAndFinish(Stream& stream, std::vector<uint8_t> bytes) {
  auto result = co_await WriteAll(stream, bytes);
  EXPECT_EQ(result.status, IoStatus::kOk);
  stream.ShutdownWrite();
}

Task<void> ReceiveAll(Stream& stream, std::vector<uint8_t> expected) {
  std::vector<uint8_t> got;
  std::vector<uint8_t> buffer(50000);
  for (;;) {
    auto result = co_await ReadSome(stream, buffer);
    if (result.status != IoStatus::kOk) {
      EXPECT_EQ(result.status, IoStatus::kEof);
      break;
    }
    got.insert(got.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(result.bytes));
  }
  EXPECT_TRUE(got == expected) << got.size() << " of " << expected.size() << " bytes";
}

Task<void> RunPump(Stream& down, Stream& up, PumpOptions options, std::optional<PumpResult>& out) {
  auto result = co_await Pump(down, up, options);
  out = result;
}

struct Pumped {
  StreamPair left, right;  // first: the far end; second: the pump's
};

StreamPair SocketPair(TaskRunner& runner) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  return {MakeSocketStream(runner.executor(), fds[0]), MakeSocketStream(runner.executor(), fds[1])};
}

void ExpectBothWays(TaskRunner& runner, Pumped& pumped, size_t up_bytes, size_t down_bytes) {
  std::optional<PumpResult> result;
  runner.Spawn(RunPump(*pumped.left.second, *pumped.right.second, {}, result));
  runner.Spawn(SendAndFinish(*pumped.left.first, Pattern(up_bytes, 1)));
  runner.Spawn(ReceiveAll(*pumped.right.first, Pattern(up_bytes, 1)));
  runner.Spawn(SendAndFinish(*pumped.right.first, Pattern(down_bytes, 2)));
  runner.Spawn(ReceiveAll(*pumped.left.first, Pattern(down_bytes, 2)));
  runner.Run();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->reason, WEFT_R_CLOSED);
  EXPECT_EQ(result->to_upstream_bytes, up_bytes);
  EXPECT_EQ(result->to_downstream_bytes, down_bytes);
}

TEST(Pump, BulkOverSockets) {
  TaskRunner runner;
  Pumped pumped{SocketPair(runner), SocketPair(runner)};
  ExpectBothWays(runner, pumped, 20'000'001, 3'000'000);
}

TEST(Pump, TinyReadsAndWrites) {
  TaskRunner runner;
  const StreamPairOptions tiny{.capacity_bytes = 7, .max_read_bytes = 1, .max_write_bytes = 2};
  Pumped pumped{MakeStreamPair(runner.executor(), tiny), MakeStreamPair(runner.executor(), tiny)};
  ExpectBothWays(runner, pumped, 3000, 2000);
}

TEST(Pump, NothingAtAllEndsInOrder) {
  TaskRunner runner;
  Pumped pumped{SocketPair(runner), SocketPair(runner)};
  ExpectBothWays(runner, pumped, 0, 0);
}

Task<void> FillWithoutReader(Stream& stream, Stream& reader, size_t& accepted) {
  std::vector<uint8_t> block(65536, 'x');
  const iovec part{block.data(), block.size()};
  // The pump moves on until its own buffer and both pipes are full; then nothing more is accepted.
  int refusals = 0;
  while (refusals < 1000) {
    const IoResult result = stream.TryWrite({&part, 1});
    if (result.status == IoStatus::kOk) {
      accepted += result.bytes;
      refusals = 0;
    } else {
      ++refusals;
    }
    co_await asio::post(asio::use_awaitable);
  }
  reader.Close(WEFT_R_IO_ERROR);
}

TEST(Pump, ASlowReaderStopsTheWriter) {
  TaskRunner runner;
  Pumped pumped{MakeStreamPair(runner.executor()), MakeStreamPair(runner.executor())};
  std::optional<PumpResult> result;
  size_t accepted = 0;
  runner.Spawn(RunPump(*pumped.left.second, *pumped.right.second, {}, result));
  runner.Spawn(FillWithoutReader(*pumped.left.first, *pumped.right.first, accepted));
  runner.Run();
  EXPECT_GE(accepted, 2 * 65536u);
  EXPECT_LE(accepted, 2 * 65536u + kBufferBytes[2]);
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->reason, WEFT_R_PEER_RESET);
}

Task<void> ExpectReset(Stream& stream) {
  uint8_t byte;
  auto result = co_await ReadSome(stream, {&byte, 1});
  EXPECT_EQ(result.status, IoStatus::kError);
}

TEST(Pump, AResetReachesTheOtherSide) {
  TaskRunner runner;
  Pumped pumped{MakeStreamPair(runner.executor()), MakeStreamPair(runner.executor())};
  std::optional<PumpResult> result;
  runner.Spawn(RunPump(*pumped.left.second, *pumped.right.second, {}, result));
  runner.Spawn(ExpectReset(*pumped.left.first));
  pumped.right.first->Close(WEFT_R_IO_ERROR);
  runner.Run();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->reason, WEFT_R_PEER_RESET);
}

TEST(Pump, IdleTimeoutEndsIt) {
  TaskRunner runner;
  Pumped pumped{SocketPair(runner), SocketPair(runner)};
  std::optional<PumpResult> result;
  runner.Spawn(RunPump(*pumped.left.second, *pumped.right.second,
                       {.idle_timeout = std::chrono::milliseconds(30)}, result));
  runner.Run();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->reason, WEFT_R_IDLE_TIMEOUT);
}

TEST(SlabBuffer, ReusesMemory) {
  uint8_t* first = nullptr;
  {
    SlabBuffer buffer(1);
    first = buffer.data();
    EXPECT_EQ(buffer.size(), kBufferBytes[1]);
    SlabBuffer moved = std::move(buffer);
    EXPECT_FALSE(buffer);
    EXPECT_EQ(moved.data(), first);
  }
  SlabBuffer again(1);
  EXPECT_EQ(again.data(), first);
}

}  // namespace
}  // namespace weft::net
