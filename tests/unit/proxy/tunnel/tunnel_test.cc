// SPDX-License-Identifier: Apache-2.0
// Client pool and server of HBONE against each other over in-memory streams: no socket, no TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>

#include "proxy/net/io.h"
#include "proxy/net/stream_pair.h"
#include "proxy/tunnel/pool.h"
#include "proxy/tunnel/server.h"

namespace weft::tunnel {
namespace {

using namespace std::chrono_literals;

const char kAlice[] = "spiffe://cluster.local/ns/prod/sa/alice";
const char kBob[] = "spiffe://cluster.local/ns/prod/sa/bob";

// The application side: one in-memory connection per CONNECT, kept for the test to look at.
class FakeHandler final : public ServerHandler {
 public:
  explicit FakeHandler(asio::any_io_executor executor) : executor_(executor) {}
  bool Serves(const SocketAddress& destination) const override {
    return destination.ip == *IpAddress::Parse("10.0.0.2");
  }
  policy::Decision Decide(const policy::Connection& connection) const override {
    asked.push_back(std::string(connection.source_identity));
    if (connection.destination.port == 22)
      return {.reason = WEFT_R_POLICY_DENIED, .policy = "prod/no-22"};
    if (connection.destination.port == 23) return {.reason = WEFT_R_POLICY_DEFAULT_DENIED};
    return {};
  }
  Task<App> ConnectApp(SocketAddress client, SocketAddress destination) override {
    clients.push_back(client);
    if (on_connect) on_connect();
    if (destination.port == 9) co_return App{.reason = WEFT_R_CONNECT_FAILED};
    auto [ours, apps] = net::MakeStreamPair(executor_);
    accepted.push_back(std::move(apps));
    co_return App{.stream = std::move(ours)};
  }
  void OnStreamStart() override {}
  void OnStreamEnd(const ServedStream& stream) override { ended.push_back(stream); }

  std::function<void()> on_connect;
  mutable std::vector<std::string> asked;
  std::vector<SocketAddress> clients;
  std::deque<std::unique_ptr<net::Stream>> accepted;
  std::vector<ServedStream> ended;

 private:
  asio::any_io_executor executor_;
};

class FakeDialer final : public Dialer {
 public:
  FakeDialer(asio::io_context& io, ServerHandler& handler, std::span<uint8_t> scratch)
      : io_(io), handler_(handler), scratch_(scratch) {}

  Task<DialResult> Dial(TunnelKey key, std::shared_ptr<const model::LocalWorkload>,
                        std::chrono::milliseconds) override {
    ++dials;
    co_await asio::post(
        io_, asio::use_awaitable);  // as a real dial, it takes at least a turn of the loop
    if (hang) co_await asio::steady_timer(io_, 1h).async_wait(kAsTuple);
    if (fail_with != WEFT_R_NONE) co_return DialResult{.reason = fail_with};
    auto [client, server] = net::MakeStreamPair(io_.get_executor(), pair_options);
    servers.push_back(
        std::make_unique<TunnelServer>(handler_, ServerArgs{.executor = io_.get_executor(),
                                                            .stream = std::move(server),
                                                            .peer_identity = key.source_identity,
                                                            .peer = {key.source, 40000},
                                                            .scratch = scratch_,
                                                            .idle_timeout = idle_timeout}));
    ++serving;
    asio::co_spawn(io_, servers.back()->Serve(), [this](std::exception_ptr, Reason) { --serving; });
    co_return DialResult{
        .stream = std::move(client), .peer_identity = key.destination_identity, .expiry = expiry};
  }

  int dials = 0;
  int serving = 0;
  bool hang = false;
  std::chrono::milliseconds idle_timeout = 10min;
  Reason fail_with = WEFT_R_NONE;
  Expiry expiry{};
  net::StreamPairOptions pair_options;
  std::vector<std::unique_ptr<TunnelServer>> servers;

 private:
  asio::io_context& io_;
  ServerHandler& handler_;
  std::span<uint8_t> scratch_;
};

class TunnelTest : public testing::Test {
 protected:
  TunnelTest() {
    auto source = std::make_shared<model::LocalWorkload>();
    source->identity = kAlice;
    source_ = source;
  }
  ~TunnelTest() override {
    pool_.Close(WEFT_R_CLOSED);
    handler_.accepted.clear();
    EXPECT_TRUE(RunUntil([&] { return pool_.connections() == 0 && dialer_.serving == 0; }));
  }
  // Runs the loop until the condition holds; false after 5 s.
  template <typename Condition>
  bool RunUntil(Condition done) {
    auto end = std::chrono::steady_clock::now() + 5s;
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_one_for(50ms);
    }
    return true;
  }
  TunnelRequest To(std::string destination) {
    return {.source = source_,
            .source_address = *IpAddress::Parse("10.0.0.1"),
            .destination_identity = kBob,
            .destination = *SocketAddress::Parse(destination),
            .client = *SocketAddress::Parse("10.0.0.1:1234"),
            .timeout = 2000ms};
  }
  TunnelResult Connect(TunnelRequest request) {
    std::optional<TunnelResult> result;
    asio::co_spawn(io_, pool_.Connect(std::move(request)),
                   [&](std::exception_ptr, TunnelResult r) { result = std::move(r); });
    EXPECT_TRUE(RunUntil([&] { return result.has_value(); }));
    return std::move(*result);
  }
  void Write(net::Stream& stream, std::string_view text) {
    bool done = false;
    asio::co_spawn(io_, net::WriteAll(stream, text), [&](std::exception_ptr, net::IoResult r) {
      EXPECT_EQ(r.status, net::IoStatus::kOk);
      done = true;
    });
    ASSERT_TRUE(RunUntil([&] { return done; }));
  }
  // Reads exactly so many bytes, or up to the end of the stream.
  std::string Read(net::Stream& stream, size_t bytes) {
    std::string got;
    std::vector<uint8_t> buffer(16384);
    while (got.size() < bytes) {
      std::optional<net::IoResult> r;
      asio::co_spawn(io_, net::ReadSome(stream, buffer),
                     [&](std::exception_ptr, net::IoResult x) { r = x; });
      if (!RunUntil([&] { return r.has_value(); })) return got + "<timeout>";
      if (r->status == net::IoStatus::kEof) return got + "<eof>";
      if (r->status != net::IoStatus::kOk)
        return got + "<" + std::string(ReasonName(r->reason)) + ">";
      got.append(reinterpret_cast<char*>(buffer.data()), r->bytes);
    }
    return got;
  }
  // Writes until nothing is taken for a while that the loop is idle.
  size_t WriteUntilBlocked(net::Stream& stream) {
    std::vector<uint8_t> block(16384, 'x');
    size_t total = 0;
    for (int idle = 0; idle < 3;) {
      iovec part{block.data(), block.size()};
      net::IoResult r = stream.TryWrite({&part, 1});
      if (r.status == net::IoStatus::kOk) {
        total += r.bytes;
        idle = 0;
        continue;
      }
      EXPECT_EQ(r.status, net::IoStatus::kWouldBlock);
      io_.restart();
      if (io_.run_for(10ms) == 0) ++idle;
    }
    return total;
  }

  asio::io_context io_{1};
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(65536);
  FakeHandler handler_{io_.get_executor()};
  FakeDialer dialer_{io_, handler_, scratch_};
  TunnelPool pool_{io_.get_executor(), dialer_, {.scratch = scratch_}};
  std::shared_ptr<const model::LocalWorkload> source_;
};

TEST_F(TunnelTest, TheServerEndsAnIdleTunnelButNoneThatIsUsed) {
  dialer_.idle_timeout = 100ms;
  TunnelResult result = Connect(To("10.0.0.2:80"));
  ASSERT_NE(result.stream, nullptr);
  auto begun = std::chrono::steady_clock::now();
  EXPECT_TRUE(RunUntil([&] { return std::chrono::steady_clock::now() - begun > 300ms; }));
  EXPECT_EQ(dialer_.serving, 1);
  result.stream->Close(WEFT_R_CLOSED);
  handler_.accepted.clear();
  EXPECT_TRUE(RunUntil([&] { return dialer_.serving == 0 && pool_.connections() == 0; }));
  EXPECT_NE(Connect(To("10.0.0.2:80")).stream, nullptr);  // by a new one
}

TEST_F(TunnelTest, CarriesBytesBothWaysAndHalfCloses) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr) << ReasonName(tunnel.reason);
  EXPECT_EQ(tunnel.peer_identity, kBob);
  net::Stream& app = *handler_.accepted[0];
  Write(*tunnel.stream, "ping");
  EXPECT_EQ(Read(app, 4), "ping");
  Write(app, "pong");
  EXPECT_EQ(Read(*tunnel.stream, 4), "pong");
  tunnel.stream->ShutdownWrite();
  EXPECT_EQ(Read(app, 1), "<eof>");
  Write(app, "still here");
  EXPECT_EQ(Read(*tunnel.stream, 10), "still here");
  app.ShutdownWrite();
  EXPECT_EQ(Read(*tunnel.stream, 1), "<eof>");
  ASSERT_TRUE(RunUntil([&] { return handler_.ended.size() == 1; }));
  EXPECT_EQ(handler_.ended[0].sent_bytes, 4u);
  EXPECT_EQ(handler_.ended[0].received_bytes, 14u);
  EXPECT_EQ(handler_.ended[0].reason, WEFT_R_CLOSED);
  EXPECT_EQ(handler_.asked, std::vector<std::string>{kAlice});
  EXPECT_EQ(handler_.clients[0].ToString(), "10.0.0.1:1234");
}

TEST_F(TunnelTest, ManyBytesArriveInOrder) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr);
  std::string sent;
  for (int i = 0; sent.size() < (3u << 20); ++i) sent += std::to_string(i) + ",";
  bool written = false;
  asio::co_spawn(io_, net::WriteAll(*tunnel.stream, sent),
                 [&](std::exception_ptr, net::IoResult) { written = true; });
  EXPECT_EQ(Read(*handler_.accepted[0], sent.size()), sent);
  EXPECT_TRUE(RunUntil([&] { return written; }));
}

TEST_F(TunnelTest, StreamsOfOneKeyShareAConnection) {
  std::vector<TunnelResult> tunnels;
  for (int i = 0; i < 10; ++i) tunnels.push_back(Connect(To("10.0.0.2:80")));
  for (const TunnelResult& tunnel : tunnels) EXPECT_NE(tunnel.stream, nullptr);
  EXPECT_EQ(dialer_.dials, 1);
}

TEST_F(TunnelTest, MoreStreamsThanAConnectionTakesGetAnother) {
  std::vector<TunnelResult> tunnels;
  for (uint32_t i = 0; i < kMaxStreams + 5; ++i) tunnels.push_back(Connect(To("10.0.0.2:80")));
  for (const TunnelResult& tunnel : tunnels) EXPECT_NE(tunnel.stream, nullptr);
  EXPECT_EQ(dialer_.dials, 2);
}

TEST_F(TunnelTest, OtherIdentityIsAnotherConnection) {
  TunnelResult first = Connect(To("10.0.0.2:80"));
  auto other = std::make_shared<model::LocalWorkload>(*source_);
  other->identity = kBob;
  source_ = other;
  TunnelResult second = Connect(To("10.0.0.2:80"));
  EXPECT_EQ(dialer_.dials, 2);
}

TEST_F(TunnelTest, RefusalsSayWhy) {
  TunnelResult denied = Connect(To("10.0.0.2:22"));
  EXPECT_EQ(denied.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(denied.policy, "prod/no-22");
  EXPECT_EQ(Connect(To("10.0.0.2:23")).reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_EQ(Connect(To("10.0.0.2:9")).reason, WEFT_R_CONNECT_FAILED);
  EXPECT_EQ(Connect(To("10.0.0.3:80")).reason, WEFT_R_HBONE_REFUSED);
  ASSERT_TRUE(RunUntil([&] { return handler_.ended.size() == 4; }));
  EXPECT_EQ(handler_.ended[3].reason, WEFT_R_HBONE_BAD_REQUEST);
  EXPECT_TRUE(handler_.accepted.empty());
}

TEST_F(TunnelTest, AFailedDialFailsAllWhoWait) {
  dialer_.fail_with = WEFT_R_IDENTITY_MISMATCH;
  int done = 0;
  for (int i = 0; i < 5; ++i) {
    asio::co_spawn(io_, pool_.Connect(To("10.0.0.2:80")), [&](std::exception_ptr, TunnelResult r) {
      EXPECT_EQ(r.reason, WEFT_R_IDENTITY_MISMATCH);
      ++done;
    });
  }
  ASSERT_TRUE(RunUntil([&] { return done == 5; }));
  EXPECT_EQ(dialer_.dials, 1);
}

TEST_F(TunnelTest, SleepingReaderStallsItsWriterOnly) {
  TunnelResult slow = Connect(To("10.0.0.2:80"));
  TunnelResult fast = Connect(To("10.0.0.2:80"));
  ASSERT_NE(slow.stream, nullptr);
  ASSERT_NE(fast.stream, nullptr);
  // Nobody reads at the slow application: what is taken stays bounded by the windows and buffers on
  // the way.
  EXPECT_LT(WriteUntilBlocked(*slow.stream), 4u * kStreamWindowBytes);
  std::string block(1 << 20, 'y');
  bool written = false;
  asio::co_spawn(io_, net::WriteAll(*fast.stream, block),
                 [&](std::exception_ptr, net::IoResult) { written = true; });
  EXPECT_EQ(Read(*handler_.accepted[1], block.size()), block);
  EXPECT_TRUE(RunUntil([&] { return written; }));
  EXPECT_EQ(dialer_.dials, 1);
}

TEST_F(TunnelTest, ResetArrivesAsReset) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr);
  handler_.accepted[0]->Close(WEFT_R_PEER_RESET);
  EXPECT_EQ(Read(*tunnel.stream, 1), "<upstream_reset>");
}

TEST_F(TunnelTest, EndOfTheConnectionEndsItsStreams) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr);
  dialer_.servers[0]->Close(WEFT_R_IO_ERROR);
  EXPECT_THAT(Read(*tunnel.stream, 1), testing::StartsWith("<"));
  EXPECT_EQ(Read(*handler_.accepted[0], 1).front(), '<');
}

TEST_F(TunnelTest, DrainLetsStreamsFinishAndNewOnesGoElsewhere) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr);
  dialer_.servers[0]->StartDrain();
  ASSERT_TRUE(RunUntil([&] { return !pool_.List().empty() && pool_.List()[0].draining; }));
  TunnelResult next = Connect(To("10.0.0.2:80"));
  ASSERT_NE(next.stream, nullptr);
  EXPECT_EQ(dialer_.dials, 2);
  Write(*tunnel.stream, "late");
  EXPECT_EQ(Read(*handler_.accepted[0], 4), "late");
  tunnel.stream->ShutdownWrite();
  handler_.accepted[0]->ShutdownWrite();
  EXPECT_EQ(Read(*tunnel.stream, 1), "<eof>");
  tunnel.stream.reset();
  EXPECT_TRUE(RunUntil([&] { return pool_.List().size() == 1; }));
}

TEST_F(TunnelTest, BytesAcceptedBeforeCloseStillArrive) {
  TunnelResult tunnel = Connect(To("10.0.0.2:80"));
  ASSERT_NE(tunnel.stream, nullptr);
  Write(*tunnel.stream, "last words");
  tunnel.stream->Close(WEFT_R_CLOSED);
  tunnel.stream.reset();
  EXPECT_EQ(Read(*handler_.accepted[0], 10), "last words");
}

TEST_F(TunnelTest, IdleTunnelsClose) {
  TunnelPool pool(io_.get_executor(), dialer_, {.idle_timeout = 0ms, .scratch = scratch_});
  std::optional<TunnelResult> tunnel;
  asio::co_spawn(io_, pool.Connect(To("10.0.0.2:80")),
                 [&](std::exception_ptr, TunnelResult r) { tunnel = std::move(r); });
  ASSERT_TRUE(RunUntil([&] { return tunnel.has_value(); }));
  pool.Sweep();
  EXPECT_EQ(pool.connections(), 1u);  // in use
  tunnel->stream.reset();
  pool.Sweep();
  EXPECT_TRUE(RunUntil([&] { return pool.connections() == 0; }));
}

// By the wall clock, which no timer of the pool sees move here.
class ExpiringTunnel : public TunnelTest {
 protected:
  ExpiringTunnel() { dialer_.expiry = now_ + 1h; }
  ~ExpiringTunnel() override {
    expiring_.Close(WEFT_R_CLOSED);
    EXPECT_TRUE(RunUntil([&] { return expiring_.connections() == 0; }));
  }
  TunnelResult Ask() {
    std::optional<TunnelResult> result;
    asio::co_spawn(io_, expiring_.Connect(To("10.0.0.2:80")),
                   [&](std::exception_ptr, TunnelResult r) { result = std::move(r); });
    EXPECT_TRUE(RunUntil([&] { return result.has_value(); }));
    return std::move(*result);
  }
  Expiry now_{std::chrono::hours(24 * 365 * 50)};
  TunnelPool expiring_{
      io_.get_executor(), dialer_, {.scratch = scratch_, .wall_clock = [this] { return now_; }}};
};

TEST_F(ExpiringTunnel, TakesNoNewStreamOnceACertificateHasEnded) {
  TunnelResult before = Ask();
  ASSERT_NE(before.stream, nullptr);
  EXPECT_EQ(before.expiry, now_ + 1h);
  now_ += 1h - 1ms;
  TunnelResult last = Ask();
  ASSERT_NE(last.stream, nullptr);
  EXPECT_EQ(dialer_.dials, 1);
  now_ += 1ms;
  dialer_.expiry = now_ + 1h;  // renewed: another tunnel
  TunnelResult after = Ask();
  ASSERT_NE(after.stream, nullptr);
  EXPECT_EQ(after.expiry, now_ + 1h);
  EXPECT_EQ(dialer_.dials, 2);
  // What was open goes on.
  Write(*before.stream, "still");
  EXPECT_EQ(Read(*handler_.accepted[0], 5), "still");
}

TEST_F(ExpiringTunnel, IsRefusedIfNoneHasACertificateThatLasts) {
  TunnelResult before = Ask();
  ASSERT_NE(before.stream, nullptr);
  now_ += 1h;
  TunnelResult after = Ask();
  EXPECT_EQ(after.stream, nullptr);
  EXPECT_EQ(after.reason, WEFT_R_CERT_EXPIRED);
  EXPECT_EQ(handler_.accepted.size(), 1u);
}

TEST_F(ExpiringTunnel, GivesNoStreamThatWasAnsweredAfterTheEnd) {
  handler_.on_connect = [this] { now_ += 1h; };
  TunnelResult result = Ask();
  EXPECT_EQ(result.stream, nullptr);
  EXPECT_EQ(result.reason, WEFT_R_CERT_EXPIRED);
}

TEST_F(TunnelTest, SlowDialTimesOut) {
  dialer_.hang = true;
  TunnelRequest request = To("10.0.0.2:80");
  request.timeout = 20ms;
  std::optional<TunnelResult> result;
  // A pool and an io_context of its own: the dial never ends, its frame goes with the context.
  asio::io_context io{1};
  FakeDialer dialer(io, handler_, scratch_);
  dialer.hang = true;
  TunnelPool pool(io.get_executor(), dialer, {.scratch = scratch_});
  asio::co_spawn(io, pool.Connect(request),
                 [&](std::exception_ptr, TunnelResult r) { result = std::move(r); });
  while (!result) io.run_one();
  EXPECT_EQ(result->reason, WEFT_R_CONNECT_TIMEOUT);
}

TEST(ClientOf, TrustsThePortOnlyForItsOwnAddress) {
  SocketAddress peer = *SocketAddress::Parse("10.0.0.1:40000");
  auto of = [&](std::string_view value) {
    http::HeaderList headers;
    headers.Add("forwarded", value);
    return ClientOf(headers, peer).ToString();
  };
  EXPECT_EQ(of("for=\"10.0.0.1:5\""), "10.0.0.1:5");
  EXPECT_EQ(of("for=10.0.0.1:5;host=x"), "10.0.0.1:5");
  EXPECT_EQ(of("host=x;for=\"10.0.0.1:5\""), "10.0.0.1:5");
  EXPECT_EQ(of("for=\"10.9.9.9:5\""), "10.0.0.1:40000");
  EXPECT_EQ(of("for=\"10.0.0.1:5"), "10.0.0.1:5");
  EXPECT_EQ(of("for="), "10.0.0.1:40000");
  EXPECT_EQ(of(""), "10.0.0.1:40000");
}

}  // namespace
}  // namespace weft::tunnel
