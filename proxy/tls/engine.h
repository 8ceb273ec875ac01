// SPDX-License-Identifier: Apache-2.0
// Inside proxy/tls only: one TLS connection between a transport Stream and BoringSSL, without
// waiting. The BIO reads ahead into one buffer and gathers records in another; both exist only
// while they hold bytes. Thread: the stream's. Owned by the TlsStream and by whatever coroutine
// still works for it.
#pragma once
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/net/buffer_slab.h"
#include "proxy/net/deadline.h"
#include "proxy/net/stream.h"
#include "proxy/tls/peer_check.h"
#include "proxy/tls/tls_context.h"

namespace weft::tls {

class Engine final : public std::enable_shared_from_this<Engine> {
 public:
  Engine(const asio::any_io_executor& executor, std::unique_ptr<net::Stream> transport,
         std::shared_ptr<const TlsContext> context);

  // False if BoringSSL has no memory.
  bool Start(bool is_client, std::vector<std::string> expected_identities);
  // SSL_ERROR_NONE when done, SSL_ERROR_WANT_*, or anything else: failed.
  int Step();

  net::IoResult Read(std::span<uint8_t> into);
  net::IoResult Write(std::span<const iovec> from);
  void ShutdownWrite();
  void Close(Reason reason);

  // Passes gathered records on; true if none are left. Does not wait.
  bool Flush();
  // Goes on flushing when the transport is writable again; `drained` tells when it is done.
  void FlushLater();

  bool has_more() const { return has_more_ || reason_ != WEFT_R_NONE; }
  bool is_flushing() const { return flushing_; }
  net::Stream& transport() { return *transport_; }
  const asio::any_io_executor& executor() const { return executor_; }
  SSL* ssl() { return ssl_.get(); }
  Reason transport_reason() const { return transport_reason_; }
  bool transport_ended() const { return transport_ended_; }
  void HandshakeDone() { handshake_done_ = true; }

  // For the callbacks of BoringSSL.
  static Engine* Of(const SSL* ssl);
  ssl_private_key_result_t StartSign(uint16_t algorithm, std::span<const uint8_t> input);
  ssl_private_key_result_t FinishSign(uint8_t* out, size_t* out_length, size_t max_out);
  ssl_verify_result_t Verify(uint8_t* alert);

  Signal signed_signal;  // notified when a signature has come
  Signal drained;        // notified when the flusher has ended
  PeerCheck peer;        // of the last Verify

 private:
  friend struct EngineBio;
  int BioRead(uint8_t* out, int length);
  int BioWrite(const uint8_t* bytes, int length);
  static Task<void> FlushLoop(std::shared_ptr<Engine> engine);
  bool EncryptSome(std::span<const iovec> from, size_t* accepted);
  net::IoResult Fail(Reason reason);
  void AfterFlush();
  bool FillInput();

  asio::any_io_executor executor_;
  std::unique_ptr<net::Stream> transport_;
  std::shared_ptr<const TlsContext> context_;
  bssl::UniquePtr<SSL> ssl_;
  std::vector<std::string> expected_;

  net::SlabBuffer in_, out_;
  size_t in_at_ = 0, in_end_ = 0;
  size_t out_at_ = 0, out_end_ = 0;
  int in_class_ = 0;

  enum class SignState : uint8_t { kIdle, kPending, kDone, kFailed } sign_state_ = SignState::kIdle;
  std::vector<uint8_t> signature_;

  bool handshake_done_ = false;
  bool got_data_ = false;         // any application data yet
  bool input_drained_ = false;    // the transport has no more for this call
  bool has_more_ = false;         // TryRead may go on without the transport
  bool transport_ended_ = false;  // FIN
  bool eof_ = false;              // close_notify
  bool write_ended_ = false;
  bool flushing_ = false;
  bool close_after_flush_ = false;
  Reason transport_reason_ = WEFT_R_NONE;
  Reason reason_ = WEFT_R_NONE;  // not NONE: dead
  std::unique_ptr<net::Deadline> linger_;
};

}  // namespace weft::tls
