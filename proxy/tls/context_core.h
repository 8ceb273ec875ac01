// SPDX-License-Identifier: Apache-2.0
// Inside proxy/tls only: what a TlsContext is made of, with BoringSSL's types. Immutable after
// creation.
#pragma once
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <map>
#include <string>
#include <vector>

#include "proxy/tls/tls_context.h"

namespace weft::tls {

struct TlsContext::Core {
  enum class Kind : uint8_t { kMesh, kServer, kClient };
  Kind kind = Kind::kMesh;
  bssl::UniquePtr<SSL_CTX> ssl_ctx;
  std::string identity;
  uint64_t key_id = 0;
  KeySigner* signer = nullptr;
  // Mesh: by trust domain. The others: one store under "".
  std::map<std::string, bssl::UniquePtr<X509_STORE>, std::less<>> trust;
  std::string server_name;
  bool server_name_is_ip = false;
  std::string expected_spiffe;
  bool insecure_skip_verify = false;
  std::vector<std::string> alpn;
};

// Of the stream engine (tls_stream.cc).
extern const SSL_PRIVATE_KEY_METHOD kSignerMethod;
enum ssl_verify_result_t VerifyPeerCallback(SSL* ssl, uint8_t* out_alert);

}  // namespace weft::tls
