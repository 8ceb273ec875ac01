// SPDX-License-Identifier: Apache-2.0
// What one side of a TLS handshake shows and demands. Immutable once made; shared by any number of
// streams of ONE thread (the signer's), because a mesh context refers to that thread's KeySigner.
// Not here: bytes (tls_stream.h), keys (KeySigner), where certificates come from (xDS).
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proxy/base/status.h"
#include "proxy/tls/key_signer.h"

namespace weft::tls {

struct TrustDomainRoots {
  std::string trust_domain;
  std::vector<std::string> roots_der;
};

// A workload's side of the mesh's mutual TLS: TLS 1.3, ALPN h2, peer's certificate required and
// checked as X.509-SVID against the roots of its own trust domain (SPIFFE X509-SVID 5, RFC 5280).
// Works as client and as server.
struct MeshTlsOptions {
  std::string identity;  // SPIFFE id of the chain
  uint64_t key_id = 0;
  std::vector<std::string> chain_der;  // leaf first, without the root
  std::vector<TrustDomainRoots> trust;
  KeySigner* signer = nullptr;  // must outlive the context and its streams
};

// TLS with a key in this process: weft-control's own port.
struct ServerTlsOptions {
  std::string chain_pem;  // leaf first
  std::string key_pem;
  std::string
      client_roots_pem;  // non-empty: client certificates are asked for and must chain to these
  bool client_certificate_required = false;
  std::vector<std::string> alpn = {"h2"};
};

// A client that checks the server against `roots_pem` (control channel), or the upstream outside
// the mesh.
struct ClientTlsOptions {
  std::string roots_pem;    // empty with `insecure_skip_verify` only
  std::string server_name;  // SNI and the name (or IP address) the certificate must have; empty:
                            // only the chain is checked
  std::string
      expected_spiffe;  // non-empty: the server's URI SAN must be this instead of a DNS name
  std::vector<std::string> alpn = {"h2"};
  // Client certificate: none, or chain with a PEM key, or chain with a signer (identity, key_id).
  std::string chain_pem;
  std::string key_pem;
  std::string identity;
  uint64_t key_id = 0;
  KeySigner* signer = nullptr;
  bool insecure_skip_verify = false;
};

class TlsContext final {
 public:
  static absl::StatusOr<std::shared_ptr<const TlsContext>> Mesh(const MeshTlsOptions& options);
  static absl::StatusOr<std::shared_ptr<const TlsContext>> Server(const ServerTlsOptions& options);
  static absl::StatusOr<std::shared_ptr<const TlsContext>> Client(const ClientTlsOptions& options);
  ~TlsContext();

  struct Core;  // tls_context.cc and tls_stream.cc only
  const Core& core() const { return *core_; }

 private:
  explicit TlsContext(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

// PEM with one or more certificates -> DER each, in order.
absl::StatusOr<std::vector<std::string>> CertificatesFromPem(const std::string& pem);
std::string CertificateToPem(const std::string& der);
struct CertificateInfo {
  std::string spiffe_id;  // the URI SAN, empty if there is not exactly one
  std::string serial_hex;
  int64_t not_before = 0, not_after = 0;  // seconds since the epoch
};
absl::StatusOr<CertificateInfo> InspectCertificate(const std::string& der);

}  // namespace weft::tls
