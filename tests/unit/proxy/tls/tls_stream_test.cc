// SPDX-License-Identifier: Apache-2.0
// The bytes of a TLS stream: sizes, closes, time limits and hostile peers.
#include "proxy/tls/tls_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <optional>

#include "proxy/net/io.h"
#include "proxy/net/pump.h"
#include "proxy/net/tcp_stream.h"
#include "proxy/tls/engine.h"
#include "tests/unit/proxy/tls/tls_fixture.h"

namespace weft::tls {
namespace {

using net::IoResult;
using net::IoStatus;
using net::ReadSome;
using net::WriteAll;
using test::TaskRunner;

std::vector<uint8_t> Pattern(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(seed >> 24);
  }
  return bytes;
}

class TlsStreamTest : public testing::Test {
 protected:
  void Establish(net::StreamPairOptions pipe = {}) {
    auto result = Handshake(runner_, client_, server_, {kServerId}, pipe);
    ASSERT_NE(result.client.stream, nullptr)
        << ReasonName(result.client.reason) << result.client.detail;
    ASSERT_NE(result.server.stream, nullptr)
        << ReasonName(result.server.reason) << result.server.detail;
    left_ = std::move(result.client.stream);
    right_ = std::move(result.server.stream);
  }
  void EstablishOverSockets() {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    HandshakeResult a, b;
    runner_.Spawn(DoConnect(runner_.executor(), net::MakeSocketStream(runner_.executor(), fds[0]),
                            client_.context, {}, a));
    runner_.Spawn(DoAccept(runner_.executor(), net::MakeSocketStream(runner_.executor(), fds[1]),
                           server_.context, b));
    runner_.Run();
    ASSERT_NE(a.stream, nullptr);
    ASSERT_NE(b.stream, nullptr);
    left_ = std::move(a.stream);
    right_ = std::move(b.stream);
  }

  TaskRunner runner_;
  test::TestCert root_ = test::MakeRoot();
  Side client_ = GoodSide(runner_.executor(), root_, kClientId);
  Side server_ = GoodSide(runner_.executor(), root_, kServerId);
  std::unique_ptr<net::Stream> left_, right_;
};

Task<void> SendAndFinish(net::Stream& stream, std::vector<uint8_t> bytes) {
  auto result = co_await WriteAll(stream, bytes);
  EXPECT_EQ(result.status, IoStatus::kOk) << ReasonName(result.reason);
  stream.ShutdownWrite();
}

Task<void> ReceiveAll(net::Stream& stream, std::vector<uint8_t> expected, size_t read_size) {
  std::vector<uint8_t> got;
  std::vector<uint8_t> buffer(read_size);
  for (;;) {
    auto result = co_await ReadSome(stream, buffer);
    if (result.status != IoStatus::kOk) {
      EXPECT_EQ(result.status, IoStatus::kEof) << ReasonName(result.reason);
      break;
    }
    got.insert(got.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(result.bytes));
  }
  EXPECT_TRUE(got == expected) << got.size() << " of " << expected.size() << " bytes";
}

void ExpectBothWays(TaskRunner& runner, net::Stream& left, net::Stream& right, size_t bytes,
                    size_t read_size) {
  runner.Spawn(SendAndFinish(left, Pattern(bytes, 1)));
  runner.Spawn(ReceiveAll(right, Pattern(bytes, 1), read_size));
  runner.Spawn(SendAndFinish(right, Pattern(bytes / 2, 2)));
  runner.Spawn(ReceiveAll(left, Pattern(bytes / 2, 2), read_size));
  runner.Run();
}

TEST_F(TlsStreamTest, BulkOverSockets) {
  EstablishOverSockets();
  ExpectBothWays(runner_, *left_, *right_, 20'000'003, 262144);
}

TEST_F(TlsStreamTest, OneByteAtATime) {
  Establish({.capacity_bytes = 100, .max_read_bytes = 1, .max_write_bytes = 3});
  ExpectBothWays(runner_, *left_, *right_, 3000, 1);
}

TEST_F(TlsStreamTest, OddSizes) {
  for (const size_t size : {1u, 16383u, 16384u, 16385u, 65536u, 65537u, 100000u}) {
    SCOPED_TRACE(size);
    Establish({.capacity_bytes = 20000, .max_read_bytes = 7777});
    ExpectBothWays(runner_, *left_, *right_, size, 10000);
  }
}

TEST_F(TlsStreamTest, SmallPiecesShareARecord) {
  Establish();
  std::vector<uint8_t> bytes = Pattern(5000, 3);
  std::vector<iovec> parts;
  for (size_t at = 0; at < bytes.size(); at += 50) parts.push_back({bytes.data() + at, 50});
  EXPECT_EQ(left_->TryWrite(parts).bytes, 5000u);
  std::vector<uint8_t> got(8000);
  EXPECT_EQ(right_->TryRead(got).bytes, 5000u);
  got.resize(5000);
  EXPECT_EQ(got, bytes);
}

Task<void> RunPump(net::Stream& down, net::Stream& up, std::optional<net::PumpResult>& out) {
  auto result = co_await net::Pump(down, up, {});
  out = result;
}

TEST_F(TlsStreamTest, PumpBetweenTlsAndPlain) {
  EstablishOverSockets();
  auto [near, far] = net::MakeStreamPair(runner_.executor(), {.capacity_bytes = 30000});
  std::optional<net::PumpResult> result;
  runner_.Spawn(RunPump(*right_, *near, result));
  ExpectBothWays(runner_, *left_, *far, 3'000'000, 65536);
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->reason, WEFT_R_CLOSED);
  EXPECT_EQ(result->to_upstream_bytes, 3'000'000u);
}

TEST_F(TlsStreamTest, BackPressureBoundsWhatIsTaken) {
  Establish({.capacity_bytes = 50000});
  std::vector<uint8_t> block(1 << 20, 'x');
  const iovec part{block.data(), block.size()};
  size_t taken = 0;
  for (int i = 0; i < 100; ++i) {
    const IoResult result = left_->TryWrite({&part, 1});
    if (result.status == IoStatus::kWouldBlock) break;
    ASSERT_EQ(result.status, IoStatus::kOk);
    taken += result.bytes;
  }
  EXPECT_GE(taken, 50000u - 200);
  EXPECT_LE(taken, 2 * 65536u);
  EXPECT_EQ(left_->TryWrite({&part, 1}).status, IoStatus::kWouldBlock);
  // What was taken arrives without another call of the writer.
  left_->ShutdownWrite();
  runner_.Run(ReceiveAll(*right_, std::vector<uint8_t>(taken, 'x'), 65536));
}

Task<void> ExpectEnd(net::Stream& stream, IoStatus status, Reason reason) {
  std::vector<uint8_t> buffer(100);
  auto result = co_await ReadSome(stream, buffer);
  EXPECT_EQ(result.status, status);
  EXPECT_EQ(ReasonName(result.reason), ReasonName(reason));
}

TEST_F(TlsStreamTest, CloseInOrderIsAnEof) {
  EstablishOverSockets();
  left_->Close(WEFT_R_CLOSED);
  runner_.Run(ExpectEnd(*right_, IoStatus::kEof, WEFT_R_NONE));
}

TEST_F(TlsStreamTest, CloseInOrderStillDeliversWhatWasTaken) {
  Establish({.capacity_bytes = 5000});
  std::vector<uint8_t> bytes = Pattern(40000, 4);
  const iovec part{bytes.data(), bytes.size()};
  EXPECT_EQ(left_->TryWrite({&part, 1}).bytes, bytes.size());
  left_.reset();
  runner_.Run(ReceiveAll(*right_, bytes, 1000));
}

TEST_F(TlsStreamTest, CloseWithAReasonIsAReset) {
  EstablishOverSockets();
  left_->Close(WEFT_R_POLICY_DENIED);
  runner_.Run(ExpectEnd(*right_, IoStatus::kError, WEFT_R_PEER_RESET));
}

TEST_F(TlsStreamTest, TruncationIsNotAnEof) {
  EstablishOverSockets();
  // FIN of the socket without close_notify.
  ASSERT_EQ(shutdown(left_->native_handle(), SHUT_WR), 0);
  runner_.Run(ExpectEnd(*right_, IoStatus::kError, WEFT_R_PEER_RESET));
}

TEST_F(TlsStreamTest, GarbageAfterTheHandshakeEndsIt) {
  EstablishOverSockets();
  ASSERT_EQ(send(left_->native_handle(), "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
  runner_.Run(ExpectEnd(*right_, IoStatus::kError, WEFT_R_TLS_HANDSHAKE_FAILED));
}

// --- hostile peers in the handshake ---

Task<void> SendGarbage(std::unique_ptr<net::Stream> stream, std::string bytes) {
  auto written = co_await WriteAll(*stream, bytes);
  (void)written;
  std::vector<uint8_t> buffer(4096);
  for (;;) {
    auto result = co_await ReadSome(*stream, buffer);
    if (result.status != IoStatus::kOk) break;
  }
}

TEST_F(TlsStreamTest, GarbageInsteadOfTls) {
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), std::string(100000, '\0'),
        std::string("\x16\x03\x01\xff\xff", 5) + std::string(70000, 'x'),
        std::string("\x15\x03\x03\x00\x02\x02\x28", 7),
        std::string("\x80\x2e\x01\x00\x02", 5) + "abcd"}) {
    auto [near, far] = net::MakeStreamPair(runner_.executor());
    HandshakeResult result;
    runner_.Spawn(SendGarbage(std::move(far), bytes));
    runner_.Spawn(DoAccept(runner_.executor(), std::move(near), server_.context, result));
    runner_.Run();
    EXPECT_EQ(result.stream, nullptr);
    EXPECT_EQ(ReasonName(result.reason), ReasonName(WEFT_R_TLS_HANDSHAKE_FAILED));
    EXPECT_FALSE(result.detail.empty());
  }
}

Task<void> AcceptWithin(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                        std::shared_ptr<const TlsContext> context,
                        std::chrono::milliseconds timeout, HandshakeResult& out) {
  auto result = co_await TlsAccept(executor, std::move(transport), context, timeout);
  out = std::move(result);
}

TEST_F(TlsStreamTest, HalfAHandshakeTimesOut) {
  for (const std::string& bytes : {std::string(), std::string("\x16\x03\x01\x02\x00\x01", 6)}) {
    auto [near, far] = net::MakeStreamPair(runner_.executor());
    HandshakeResult result;
    runner_.Spawn(SendGarbage(std::move(far), bytes));
    runner_.Spawn(AcceptWithin(runner_.executor(), std::move(near), server_.context,
                               std::chrono::milliseconds(30), result));
    runner_.Run();
    EXPECT_EQ(result.stream, nullptr);
    EXPECT_EQ(ReasonName(result.reason), ReasonName(WEFT_R_TLS_HANDSHAKE_TIMEOUT));
  }
}

TEST_F(TlsStreamTest, APeerThatLeavesFailsTheHandshake) {
  auto [near, far] = net::MakeStreamPair(runner_.executor());
  far->Close(WEFT_R_CLOSED);
  HandshakeResult result;
  runner_.Run(DoAccept(runner_.executor(), std::move(near), server_.context, result));
  EXPECT_EQ(result.stream, nullptr);
  EXPECT_EQ(ReasonName(result.reason), ReasonName(WEFT_R_TLS_HANDSHAKE_FAILED));
  EXPECT_EQ(result.detail, "the peer closed the connection");
}

class RefusingSigner final : public KeySigner {
 public:
  explicit RefusingSigner(asio::any_io_executor executor) : executor_(std::move(executor)) {}
  void Sign(std::string_view, uint64_t, std::span<const uint8_t>, Done done) override {
    asio::post(executor_, [done = std::move(done)] { done(false, {}); });
  }

 private:
  asio::any_io_executor executor_;
};

class SilentSigner final : public KeySigner {
 public:
  void Sign(std::string_view, uint64_t, std::span<const uint8_t>, Done done) override {
    pending = std::move(done);
  }
  Done pending;
};

TEST_F(TlsStreamTest, ASignerThatRefusesFailsTheHandshake) {
  RefusingSigner signer(runner_.executor());
  const auto leaf = test::MakeCert({.uris = {kServerId}}, &root_);
  auto context = TlsContext::Mesh({.identity = kServerId,
                                   .chain_der = {leaf.der()},
                                   .trust = {{"td", {root_.der()}}},
                                   .signer = &signer});
  ASSERT_TRUE(context.ok());
  server_.context = *context;
  auto result = Handshake(runner_, client_, server_);
  EXPECT_EQ(ReasonName(result.server.reason), ReasonName(WEFT_R_TLS_HANDSHAKE_FAILED));
  EXPECT_EQ(result.client.stream, nullptr);
}

TEST_F(TlsStreamTest, ASignerThatAnswersTooLateIsHarmless) {
  SilentSigner signer;
  const auto leaf = test::MakeCert({.uris = {kServerId}}, &root_);
  auto context = TlsContext::Mesh({.identity = kServerId,
                                   .chain_der = {leaf.der()},
                                   .trust = {{"td", {root_.der()}}},
                                   .signer = &signer});
  ASSERT_TRUE(context.ok());
  auto [near, far] = net::MakeStreamPair(runner_.executor());
  HandshakeResult client, server;
  runner_.Spawn(DoConnect(runner_.executor(), std::move(far), client_.context, {}, client));
  runner_.Spawn(AcceptWithin(runner_.executor(), std::move(near), *context,
                             std::chrono::milliseconds(50), server));
  runner_.Run();
  EXPECT_EQ(ReasonName(server.reason), ReasonName(WEFT_R_TLS_HANDSHAKE_TIMEOUT));
  ASSERT_TRUE(signer.pending);
  signer.pending(true, {1, 2, 3});
}

// A client driven by hand, to use what the stream does not offer.
Task<void> ClientWithKeyUpdates(std::shared_ptr<Engine> engine, int updates) {
  EXPECT_TRUE(engine->Start(true, {}));
  for (;;) {
    const int step = engine->Step();
    while (!engine->Flush()) co_await engine->transport().Writable();
    if (step == SSL_ERROR_NONE) break;
    if (step == SSL_ERROR_WANT_READ) {
      co_await engine->transport().Readable();
    } else if (step == SSL_ERROR_WANT_PRIVATE_KEY_OPERATION) {
      co_await engine->signed_signal.Wait();
    } else {
      ADD_FAILURE() << "handshake failed";
      co_return;
    }
  }
  engine->HandshakeDone();
  uint8_t text[] = "hello";
  for (int i = 0; i < updates; ++i) {
    EXPECT_EQ(SSL_key_update(engine->ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    const iovec part{text, 5};
    EXPECT_EQ(engine->Write({&part, 1}).bytes, 5u);
    uint8_t echo[16];
    size_t got = 0;
    while (got < 5) {
      const IoResult result = engine->Read({echo + got, sizeof echo - got});
      if (result.status == IoStatus::kOk) got += result.bytes;
      if (result.status == IoStatus::kError) break;
      if (result.status == IoStatus::kWouldBlock) co_await engine->transport().Readable();
    }
    EXPECT_EQ(std::string(reinterpret_cast<char*>(echo), got), "hello");
  }
  engine->Close(WEFT_R_CLOSED);
}

Task<void> Echo(std::shared_ptr<const TlsContext> context, asio::any_io_executor executor,
                std::unique_ptr<net::Stream> transport) {
  auto accepted = co_await TlsAccept(executor, std::move(transport), context);
  EXPECT_NE(accepted.stream, nullptr);
  std::vector<uint8_t> buffer(100);
  for (;;) {
    auto result = co_await ReadSome(*accepted.stream, buffer);
    if (result.status != IoStatus::kOk) {
      EXPECT_EQ(result.status, IoStatus::kEof);
      break;
    }
    auto written = co_await WriteAll(*accepted.stream, std::span(buffer).first(result.bytes));
    EXPECT_EQ(written.status, IoStatus::kOk);
  }
}

TEST_F(TlsStreamTest, KeyUpdatesAreFollowedAndAnswered) {
  auto [near, far] = net::MakeStreamPair(runner_.executor());
  runner_.Spawn(Echo(server_.context, runner_.executor(), std::move(near)));
  auto engine = std::make_shared<Engine>(runner_.executor(), std::move(far), client_.context);
  runner_.Spawn(ClientWithKeyUpdates(engine, 20));
  runner_.Run();
}

// --- the control channel's contexts ---

TEST_F(TlsStreamTest, ServerNamesAreChecked) {
  const auto leaf = test::MakeCert({.uris = {kServerId}, .dns = {"control.weft.svc"}}, &root_);
  auto server = TlsContext::Server({.chain_pem = leaf.pem(), .key_pem = leaf.key_pem()});
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  struct NameCase {
    ClientTlsOptions options;
    Reason reason;
  };
  const std::string other_root = test::MakeRoot("another").pem();
  const std::vector<NameCase> cases = {
      {{.roots_pem = root_.pem(), .server_name = "control.weft.svc"}, WEFT_R_NONE},
      {{.roots_pem = root_.pem(), .server_name = "evil.weft.svc"}, WEFT_R_IDENTITY_MISMATCH},
      {{.roots_pem = root_.pem(), .server_name = "10.0.0.1"}, WEFT_R_IDENTITY_MISMATCH},
      {{.roots_pem = root_.pem(), .expected_spiffe = kServerId}, WEFT_R_NONE},
      {{.roots_pem = root_.pem(), .expected_spiffe = kClientId}, WEFT_R_IDENTITY_MISMATCH},
      {{.roots_pem = other_root, .server_name = "control.weft.svc"}, WEFT_R_CERT_UNTRUSTED},
      {{.server_name = "x", .insecure_skip_verify = true}, WEFT_R_NONE},
  };
  for (const NameCase& test : cases) {
    SCOPED_TRACE(test.options.server_name + test.options.expected_spiffe);
    auto client = TlsContext::Client(test.options);
    ASSERT_TRUE(client.ok()) << client.status().ToString();
    auto result = Handshake(runner_, {.context = *client}, {.context = *server});
    EXPECT_EQ(ReasonName(result.client.reason), ReasonName(test.reason)) << result.client.detail;
    EXPECT_EQ(result.client.stream != nullptr, test.reason == WEFT_R_NONE);
  }
}

TEST_F(TlsStreamTest, ClientCertificatesMayBeOptional) {
  const auto leaf = test::MakeCert({.dns = {"control"}}, &root_);
  const auto node = test::MakeCert({.uris = {"spiffe://td/weft/node/n1"}}, &root_);
  const auto foreign_root = test::MakeRoot("foreign");
  const auto foreign = test::MakeCert({.uris = {"spiffe://td/weft/node/n1"}}, &foreign_root);
  for (const bool required : {false, true}) {
    auto server = TlsContext::Server({.chain_pem = leaf.pem(),
                                      .key_pem = leaf.key_pem(),
                                      .client_roots_pem = root_.pem(),
                                      .client_certificate_required = required});
    ASSERT_TRUE(server.ok());
    ClientTlsOptions options{.roots_pem = root_.pem(), .server_name = "control"};
    auto anonymous = TlsContext::Client(options);
    options.chain_pem = node.pem();
    options.key_pem = node.key_pem();
    auto known = TlsContext::Client(options);
    options.chain_pem = foreign.pem();
    options.key_pem = foreign.key_pem();
    auto unknown = TlsContext::Client(options);
    ASSERT_TRUE(anonymous.ok() && known.ok() && unknown.ok());
    auto without = Handshake(runner_, {.context = *anonymous}, {.context = *server});
    EXPECT_EQ(without.server.stream != nullptr, !required);
    EXPECT_EQ(without.server.peer_identity, "");
    auto with = Handshake(runner_, {.context = *known}, {.context = *server});
    ASSERT_NE(with.server.stream, nullptr) << with.server.detail;
    EXPECT_EQ(with.server.peer_identity, "spiffe://td/weft/node/n1");
    auto bad = Handshake(runner_, {.context = *unknown}, {.context = *server});
    EXPECT_EQ(ReasonName(bad.server.reason), ReasonName(WEFT_R_CERT_UNTRUSTED));
  }
}

TEST(TlsContext, PemHelpers) {
  const auto root = test::MakeRoot();
  const auto leaf = test::MakeCert({.uris = {kServerId}}, &root);
  auto two = CertificatesFromPem(leaf.pem() + "comment\n" + root.pem());
  ASSERT_TRUE(two.ok()) << two.status().ToString();
  EXPECT_EQ(*two, (std::vector<std::string>{leaf.der(), root.der()}));
  EXPECT_EQ(CertificateToPem(leaf.der()), leaf.pem());
  auto info = InspectCertificate(leaf.der());
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->spiffe_id, kServerId);
  EXPECT_EQ(info->not_after - info->not_before, 3660);
  EXPECT_FALSE(CertificatesFromPem("").ok());
  EXPECT_FALSE(
      CertificatesFromPem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").ok());
  EXPECT_FALSE(InspectCertificate("junk").ok());
}

}  // namespace
}  // namespace weft::tls
