// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/engine.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstring>

#include "proxy/base/log.h"
#include "proxy/tls/context_core.h"

namespace weft::tls {

using net::IoResult;
using net::IoStatus;

namespace {

constexpr size_t kRecordBytes = 16384;
constexpr size_t kWriteBytes =
    4 * kRecordBytes;  // plaintext one call takes: what fits the middle buffer size
constexpr std::chrono::milliseconds kLinger{5000};  // for a peer that does not read while we close

int EngineIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

}  // namespace

struct EngineBio {
  static int Read(BIO* bio, char* out, int length) {
    BIO_clear_retry_flags(bio);
    auto* engine = static_cast<Engine*>(BIO_get_data(bio));
    const int n = engine->BioRead(reinterpret_cast<uint8_t*>(out), length);
    if (n < 0 && !engine->transport_ended_ && engine->transport_reason_ == WEFT_R_NONE)
      BIO_set_retry_read(bio);
    return n;
  }
  static int Write(BIO* bio, const char* bytes, int length) {
    BIO_clear_retry_flags(bio);
    auto* engine = static_cast<Engine*>(BIO_get_data(bio));
    return engine->BioWrite(reinterpret_cast<const uint8_t*>(bytes), length);
  }
  static long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static const BIO_METHOD* Method() {
    static const BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weft stream");
      WEFT_CHECK(made != nullptr);
      BIO_meth_set_read(made, Read);
      BIO_meth_set_write(made, Write);
      BIO_meth_set_ctrl(made, Control);
      return made;
    }();
    return method;
  }
};

Engine::Engine(const asio::any_io_executor& executor, std::unique_ptr<net::Stream> transport,
               std::shared_ptr<const TlsContext> context)
    : signed_signal(executor),
      drained(executor),
      executor_(executor),
      transport_(std::move(transport)),
      context_(std::move(context)) {}

Engine* Engine::Of(const SSL* ssl) {
  return static_cast<Engine*>(SSL_get_ex_data(ssl, EngineIndex()));
}

bool Engine::Start(bool is_client, std::vector<std::string> expected_identities) {
  expected_ = std::move(expected_identities);
  const TlsContext::Core& core = context_->core();
  ssl_.reset(SSL_new(core.ssl_ctx.get()));
  bssl::UniquePtr<BIO> bio(BIO_new(EngineBio::Method()));
  if (!ssl_ || !bio || !SSL_set_ex_data(ssl_.get(), EngineIndex(), this)) return false;
  BIO_set_data(bio.get(), this);
  BIO_set_init(bio.get(), 1);
  BIO* one = bio.release();
  SSL_set_bio(ssl_.get(), one, one);
  SSL_set_shed_handshake_config(ssl_.get(), 1);
  if (!is_client) {
    SSL_set_accept_state(ssl_.get());
    return true;
  }
  SSL_set_connect_state(ssl_.get());
  if (core.server_name.empty() || core.server_name_is_ip) return true;
  return SSL_set_tlsext_host_name(ssl_.get(), core.server_name.c_str()) == 1;
}

int Engine::Step() {
  ERR_clear_error();
  input_drained_ = false;
  const int result = SSL_do_handshake(ssl_.get());
  return result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_.get(), result);
}

// --- bytes between BoringSSL and the transport ---

bool Engine::FillInput() {
  if (input_drained_ || transport_ended_ || transport_reason_ != WEFT_R_NONE) return false;
  in_ = net::SlabBuffer(in_class_);
  const IoResult result = transport_->TryRead(in_.span());
  in_at_ = 0;
  in_end_ = result.status == IoStatus::kOk ? result.bytes : 0;
  if (in_end_ < in_.size()) input_drained_ = true;
  if (in_end_ == in_.size() && in_class_ + 1 < net::kBufferSizes) ++in_class_;
  if (in_end_ < in_.size() / 4 && in_class_ > 0) --in_class_;
  if (result.status == IoStatus::kEof) transport_ended_ = true;
  if (result.status == IoStatus::kError) transport_reason_ = result.reason;
  if (in_end_ == 0) in_.Release();
  return in_end_ > 0;
}

int Engine::BioRead(uint8_t* out, int length) {
  if (in_at_ == in_end_ && !FillInput()) return -1;
  const size_t n = std::min(static_cast<size_t>(length), in_end_ - in_at_);
  memcpy(out, in_.data() + in_at_, n);
  in_at_ += n;
  if (in_at_ == in_end_) {
    in_at_ = in_end_ = 0;
    in_.Release();
  }
  return static_cast<int>(n);
}

int Engine::BioWrite(const uint8_t* bytes, int length) {
  const auto n = static_cast<size_t>(length);
  if (!out_) {
    out_at_ = out_end_ = 0;
    out_ = net::SlabBuffer(0);
  }
  while (out_end_ + n > out_.size()) {
    if (out_.size_class() + 1 == net::kBufferSizes)
      return -1;  // no flight of a handshake is that long
    net::SlabBuffer larger(out_.size_class() + 1);
    memcpy(larger.data(), out_.data(), out_end_);
    out_ = std::move(larger);
  }
  memcpy(out_.data() + out_end_, bytes, n);
  out_end_ += n;
  return length;
}

bool Engine::Flush() {
  while (out_at_ < out_end_) {
    const iovec part{out_.data() + out_at_, out_end_ - out_at_};
    const IoResult result = transport_->TryWrite({&part, 1});
    if (result.status == IoStatus::kWouldBlock) return false;
    if (result.status == IoStatus::kError) {
      if (transport_reason_ == WEFT_R_NONE) transport_reason_ = result.reason;
      break;  // nobody will ever take the rest
    }
    out_at_ += result.bytes;
  }
  out_at_ = out_end_ = 0;
  out_.Release();
  return true;
}

void Engine::FlushLater() {
  if (flushing_) return;
  flushing_ = true;
  asio::co_spawn(executor_, FlushLoop(shared_from_this()), asio::detached);
}

Task<void> Engine::FlushLoop(std::shared_ptr<Engine> engine) {
  do {
    co_await engine->transport_->Writable();
  } while (!engine->Flush());
  engine->flushing_ = false;
  engine->AfterFlush();
  engine->drained.Notify();
}

void Engine::AfterFlush() {
  if (close_after_flush_) {
    linger_.reset();
    transport_->Close(WEFT_R_CLOSED);
  } else if (write_ended_ && transport_reason_ == WEFT_R_NONE) {
    transport_->ShutdownWrite();
  }
}

// --- application data ---

IoResult Engine::Fail(Reason reason) {
  if (reason_ == WEFT_R_NONE) reason_ = reason;
  return {.status = IoStatus::kError, .reason = reason_};
}

IoResult Engine::Read(std::span<uint8_t> into) {
  if (reason_ != WEFT_R_NONE) return Fail(reason_);
  if (eof_) return {.status = IoStatus::kEof};
  input_drained_ = false;
  has_more_ = false;
  size_t got = 0;
  IoResult result;
  while (got < into.size()) {
    ERR_clear_error();
    const size_t room = std::min<size_t>(into.size() - got, INT32_MAX);
    const int n = SSL_read(ssl_.get(), into.data() + got, static_cast<int>(room));
    if (n > 0) {
      got += static_cast<size_t>(n);
      continue;
    }
    const int error = SSL_get_error(ssl_.get(), n);
    if (error == SSL_ERROR_ZERO_RETURN) {
      eof_ = true;
      result.status = IoStatus::kEof;
    } else if (error == SSL_ERROR_WANT_READ) {
      result.status = IoStatus::kWouldBlock;
    } else if (transport_reason_ != WEFT_R_NONE) {
      result = Fail(transport_reason_);
    } else {
      // FIN without close_notify, a bad record, or an alert. An alert before any data is how a
      // server refuses our certificate.
      const bool refused = !got_data_ && got == 0 && !transport_ended_;
      result = Fail(refused ? WEFT_R_TLS_HANDSHAKE_FAILED : WEFT_R_PEER_RESET);
    }
    break;
  }
  // An answer to a KeyUpdate, or an alert.
  if (out_end_ > 0 && !flushing_ && !Flush()) FlushLater();
  if (got == 0) return result;
  got_data_ = true;
  has_more_ = got == into.size() || result.status != IoStatus::kWouldBlock;
  return {.bytes = got};
}

bool Engine::EncryptSome(std::span<const iovec> from, size_t* accepted) {
  thread_local uint8_t gathered[kRecordBytes];
  size_t part = 0;
  size_t offset = 0;
  while (part < from.size() && *accepted + kRecordBytes <= kWriteBytes) {
    const auto* bytes = static_cast<const uint8_t*>(from[part].iov_base) + offset;
    size_t n = std::min(from[part].iov_len - offset, kRecordBytes);
    if (n < kRecordBytes && part + 1 < from.size()) {
      // Small pieces share a record.
      n = 0;
      while (part < from.size() && n < kRecordBytes) {
        const size_t piece = std::min(from[part].iov_len - offset, kRecordBytes - n);
        if (piece > 0)
          memcpy(gathered + n, static_cast<const uint8_t*>(from[part].iov_base) + offset, piece);
        n += piece;
        offset += piece;
        if (offset < from[part].iov_len) break;
        ++part;
        offset = 0;
      }
      bytes = gathered;
    } else {
      offset += n;
      if (offset == from[part].iov_len) {
        ++part;
        offset = 0;
      }
    }
    if (n == 0) continue;
    ERR_clear_error();
    const int written = SSL_write(ssl_.get(), bytes, static_cast<int>(n));
    if (written != static_cast<int>(n)) return false;
    *accepted += n;
  }
  return true;
}

IoResult Engine::Write(std::span<const iovec> from) {
  if (reason_ != WEFT_R_NONE) return Fail(reason_);
  if (write_ended_) return {.status = IoStatus::kError, .reason = WEFT_R_IO_ERROR};
  if (flushing_) return {.status = IoStatus::kWouldBlock};
  size_t wanted = 0;
  for (const iovec& part : from) wanted += part.iov_len;
  if (wanted > kRecordBytes && !out_) {
    out_ = net::SlabBuffer(1);
    out_at_ = out_end_ = 0;
  }
  size_t accepted = 0;
  if (!EncryptSome(from, &accepted)) return Fail(WEFT_R_INTERNAL_ERROR);
  if (!Flush()) FlushLater();
  if (transport_reason_ != WEFT_R_NONE) return Fail(transport_reason_);
  return {.bytes = accepted};
}

void Engine::ShutdownWrite() {
  if (write_ended_ || reason_ != WEFT_R_NONE) return;
  write_ended_ = true;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());  // close_notify; the reading side stays open
  if (flushing_) return;           // AfterFlush goes on
  if (Flush()) {
    AfterFlush();
  } else {
    FlushLater();
  }
}

void Engine::Close(Reason reason) {
  const bool in_order =
      reason == WEFT_R_CLOSED && reason_ == WEFT_R_NONE && transport_reason_ == WEFT_R_NONE;
  const bool was_open = reason_ == WEFT_R_NONE;
  if (was_open) reason_ = reason;
  if (in_order && handshake_done_) {
    if (!write_ended_) {
      write_ended_ = true;
      ERR_clear_error();
      (void)SSL_shutdown(ssl_.get());
    }
    if (flushing_ || !Flush()) {
      close_after_flush_ = true;
      linger_ = std::make_unique<net::Deadline>(executor_, kLinger,
                                                [this] { transport_->Close(WEFT_R_IDLE_TIMEOUT); });
      FlushLater();
    }
  }
  // While lingering, the flusher closes the transport; a second Close() in order changes nothing.
  if (!close_after_flush_) transport_->Close(reason_);
  signed_signal.Notify();
  drained.Notify();
}

// --- callbacks of BoringSSL ---

ssl_private_key_result_t Engine::StartSign(uint16_t algorithm, std::span<const uint8_t> input) {
  const TlsContext::Core& core = context_->core();
  if (algorithm != SSL_SIGN_ECDSA_SECP256R1_SHA256 || core.signer == nullptr)
    return ssl_private_key_failure;
  sign_state_ = SignState::kPending;
  core.signer->Sign(core.identity, core.key_id, input,
                    [weak = weak_from_this()](bool ok, std::vector<uint8_t> signature) {
                      auto engine = weak.lock();
                      if (!engine) return;
                      engine->signature_ = std::move(signature);
                      engine->sign_state_ = ok ? SignState::kDone : SignState::kFailed;
                      engine->signed_signal.Notify();
                    });
  return ssl_private_key_retry;
}

ssl_private_key_result_t Engine::FinishSign(uint8_t* out, size_t* out_length, size_t max_out) {
  if (sign_state_ == SignState::kPending) return ssl_private_key_retry;
  if (sign_state_ != SignState::kDone || signature_.size() > max_out)
    return ssl_private_key_failure;
  memcpy(out, signature_.data(), signature_.size());
  *out_length = signature_.size();
  signature_.clear();
  signature_.shrink_to_fit();
  sign_state_ = SignState::kIdle;
  return ssl_private_key_success;
}

ssl_verify_result_t Engine::Verify(uint8_t* alert) {
  peer = CheckPeer(context_->core(), SSL_get0_peer_certificates(ssl_.get()), expected_);
  switch (peer.reason) {
    case WEFT_R_NONE:
      return ssl_verify_ok;
    case WEFT_R_CERT_EXPIRED:
      *alert = SSL_AD_CERTIFICATE_EXPIRED;
      break;
    case WEFT_R_CERT_UNTRUSTED:
      *alert = SSL_AD_UNKNOWN_CA;
      break;
    case WEFT_R_IDENTITY_MISMATCH:
      *alert = SSL_AD_ACCESS_DENIED;
      break;
    default:
      *alert = SSL_AD_BAD_CERTIFICATE;
  }
  return ssl_verify_invalid;
}

namespace {

ssl_private_key_result_t SignCallback(SSL* ssl, uint8_t*, size_t*, size_t, uint16_t algorithm,
                                      const uint8_t* in, size_t in_length) {
  return Engine::Of(ssl)->StartSign(algorithm, {in, in_length});
}
ssl_private_key_result_t DecryptCallback(SSL*, uint8_t*, size_t*, size_t, const uint8_t*, size_t) {
  return ssl_private_key_failure;  // RSA key exchange is not offered
}
ssl_private_key_result_t CompleteCallback(SSL* ssl, uint8_t* out, size_t* out_length,
                                          size_t max_out) {
  return Engine::Of(ssl)->FinishSign(out, out_length, max_out);
}

}  // namespace

const SSL_PRIVATE_KEY_METHOD kSignerMethod = {SignCallback, DecryptCallback, CompleteCallback};

ssl_verify_result_t VerifyPeerCallback(SSL* ssl, uint8_t* out_alert) {
  return Engine::Of(ssl)->Verify(out_alert);
}

}  // namespace weft::tls
