// SPDX-License-Identifier: Apache-2.0
// TLS over any Stream. Handshakes are coroutines that end within their timeout; the Stream they
// return does many records a wake-up, holds buffers only while bytes are pending, and tells
// close_notify (kEof) from truncation (kError, PEER_RESET). Thread: the executor's, which must also
// be the KeySigner's. The returned stream owns the transport.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "proxy/net/stream.h"
#include "proxy/tls/tls_context.h"

namespace weft::tls {

inline constexpr std::chrono::milliseconds kHandshakeTimeout{5000};

struct HandshakeResult {
  std::unique_ptr<net::Stream> stream;  // null: failed, `reason` says why, the transport is closed
  // TLS_HANDSHAKE_FAILED, TLS_HANDSHAKE_TIMEOUT, CERT_EXPIRED, CERT_UNTRUSTED, CERT_BAD_SPIFFE,
  // IDENTITY_MISMATCH, or what the transport said.
  Reason reason = WEFT_R_NONE;
  std::string detail;         // failures only: for a log line, in BoringSSL's words
  std::string peer_identity;  // verified SPIFFE id; empty: none was asked for or shown
  std::string alpn;
  std::chrono::system_clock::time_point
      peer_expiry{};  // the earliest notAfter of the verified chain
};

struct TlsClientOptions {
  // Mesh contexts: the peer must be one of these (SPIFFE ids); empty: anyone the bundle vouches
  // for.
  std::vector<std::string> expected_identities;
  std::chrono::milliseconds timeout = kHandshakeTimeout;
};

Task<HandshakeResult> TlsConnect(asio::any_io_executor executor,
                                 std::unique_ptr<net::Stream> transport,
                                 std::shared_ptr<const TlsContext> context,
                                 TlsClientOptions options);
Task<HandshakeResult> TlsAccept(asio::any_io_executor executor,
                                std::unique_ptr<net::Stream> transport,
                                std::shared_ptr<const TlsContext> context,
                                std::chrono::milliseconds timeout = kHandshakeTimeout);

}  // namespace weft::tls
