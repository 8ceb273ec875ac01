// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_stream.h"

#include <openssl/err.h>

#include "proxy/net/deadline.h"
#include "proxy/tls/engine.h"

namespace weft::tls {
namespace {

using net::IoResult;

Task<void> WaitReadable(std::shared_ptr<Engine> engine) {
  if (engine->has_more()) co_return;
  co_await engine->transport().Readable();
}

Task<void> WaitWritable(std::shared_ptr<Engine> engine) {
  if (!engine->is_flushing()) co_return;
  co_await engine->drained.Wait();
}

class TlsStream final : public net::Stream {
 public:
  explicit TlsStream(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~TlsStream() override { engine_->Close(WEFT_R_CLOSED); }

  IoResult TryRead(std::span<uint8_t> into) override { return engine_->Read(into); }
  IoResult TryWrite(std::span<const iovec> from) override { return engine_->Write(from); }
  Task<void> Readable() override { return WaitReadable(engine_); }
  Task<void> Writable() override { return WaitWritable(engine_); }
  void ShutdownWrite() override { engine_->ShutdownWrite(); }
  void Close(Reason reason) override { engine_->Close(reason); }
  int native_handle() const override { return engine_->transport().native_handle(); }

 private:
  std::shared_ptr<Engine> engine_;
};

// Passes on what the last step wrote; false if the transport died or the time is over.
Task<bool> FlushAll(Engine& engine, const net::Deadline& limit) {
  while (!engine.Flush()) {
    co_await engine.transport().Writable();
    if (limit.expired()) co_return false;
  }
  co_return engine.transport_reason() == WEFT_R_NONE;
}

Reason FailureReason(const Engine& engine, const net::Deadline& limit) {
  if (limit.expired()) return WEFT_R_TLS_HANDSHAKE_TIMEOUT;
  if (engine.peer.reason != WEFT_R_NONE) return engine.peer.reason;
  if (engine.transport_reason() != WEFT_R_NONE) return engine.transport_reason();
  return WEFT_R_TLS_HANDSHAKE_FAILED;
}

std::string FailureDetail(const Engine& engine) {
  const uint32_t error = ERR_peek_error();
  if (error != 0) {
    const char* text = ERR_reason_error_string(error);
    return text == nullptr ? "unknown TLS error" : text;
  }
  return engine.transport_ended() ? "the peer closed the connection" : "";
}

HandshakeResult Established(const std::shared_ptr<Engine>& engine) {
  HandshakeResult result;
  engine->HandshakeDone();
  result.peer_identity = engine->peer.identity;
  result.peer_expiry = std::chrono::system_clock::from_time_t(engine->peer.expiry);
  const uint8_t* alpn = nullptr;
  unsigned alpn_length = 0;
  SSL_get0_alpn_selected(engine->ssl(), &alpn, &alpn_length);
  result.alpn.assign(reinterpret_cast<const char*>(alpn), alpn_length);
  result.stream = std::make_unique<TlsStream>(engine);
  return result;
}

Task<HandshakeResult> Handshake(std::shared_ptr<Engine> engine, std::chrono::milliseconds timeout) {
  net::Deadline limit(engine->executor(), timeout,
                      [raw = engine.get()] { raw->Close(WEFT_R_TLS_HANDSHAKE_TIMEOUT); });
  std::string detail;
  for (;;) {
    const int step = engine->Step();
    if (step != SSL_ERROR_NONE && step != SSL_ERROR_WANT_READ &&
        step != SSL_ERROR_WANT_PRIVATE_KEY_OPERATION) {
      detail = FailureDetail(*engine);
      (void)engine->Flush();  // the alert, if it goes out at once
      break;
    }
    const bool flushed = co_await FlushAll(*engine, limit);
    if (!flushed || limit.expired()) break;
    if (step == SSL_ERROR_NONE) co_return Established(engine);
    if (step == SSL_ERROR_WANT_READ) {
      co_await engine->transport().Readable();
    } else {
      co_await engine->signed_signal.Wait();
    }
    if (limit.expired()) break;
  }
  HandshakeResult failed;
  failed.reason = FailureReason(*engine, limit);
  failed.detail = std::move(detail);
  engine->Close(failed.reason);
  co_return failed;
}

Task<HandshakeResult> Begin(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                            std::shared_ptr<const TlsContext> context, bool is_client,
                            TlsClientOptions options) {
  auto engine = std::make_shared<Engine>(executor, std::move(transport), std::move(context));
  if (!engine->Start(is_client, std::move(options.expected_identities))) {
    engine->Close(WEFT_R_INTERNAL_ERROR);
    HandshakeResult failed;
    failed.reason = WEFT_R_INTERNAL_ERROR;
    co_return failed;
  }
  auto result = co_await Handshake(engine, options.timeout);
  co_return result;
}

}  // namespace

Task<HandshakeResult> TlsConnect(asio::any_io_executor executor,
                                 std::unique_ptr<net::Stream> transport,
                                 std::shared_ptr<const TlsContext> context,
                                 TlsClientOptions options) {
  return Begin(std::move(executor), std::move(transport), std::move(context), true,
               std::move(options));
}

Task<HandshakeResult> TlsAccept(asio::any_io_executor executor,
                                std::unique_ptr<net::Stream> transport,
                                std::shared_ptr<const TlsContext> context,
                                std::chrono::milliseconds timeout) {
  return Begin(std::move(executor), std::move(transport), std::move(context), false,
               {.timeout = timeout});
}

}  // namespace weft::tls
