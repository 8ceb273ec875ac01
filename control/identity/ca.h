// SPDX-License-Identifier: Apache-2.0
// The built-in certificate authority: one ECDSA P-256 root that signs workloads' CSRs, and
// weft-control's own server certificate. Thread: any, one at a time. Owns the root's private key;
// files are 0600.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/status.h"

namespace weft::identity {

struct IssuedChain {
  std::vector<std::string> pem;           // one certificate an element: leaf first, root last
  int64_t not_before = 0, not_after = 0;  // of the leaf, seconds since the epoch
};

class CertificateAuthority final {
 public:
  static absl::StatusOr<std::unique_ptr<CertificateAuthority>> Create(
      std::string_view trust_domain, std::chrono::seconds lifetime = std::chrono::hours(87600));
  static absl::StatusOr<std::unique_ptr<CertificateAuthority>> FromPem(const std::string& root_pem,
                                                                       const std::string& key_pem);
  // Loads DIRECTORY/root.pem and DIRECTORY/root-key.pem (refused if others may read the key), or
  // creates both (0600).
  static absl::StatusOr<std::unique_ptr<CertificateAuthority>> LoadOrCreate(
      const std::string& directory, std::string_view trust_domain);
  ~CertificateAuthority();

  // Signs if the CSR's signature is right, its key is P-256, and its only SAN is the URI
  // `spiffe_id`. The leaf: that URI SAN, CA false, digitalSignature (critical), serverAuth and
  // clientAuth, valid from a minute ago for `lifetime` (cut at the root's).
  absl::StatusOr<IssuedChain> SignCsr(const std::string& csr_pem, std::string_view spiffe_id,
                                      std::chrono::seconds lifetime) const;

  struct ServerCertificate {
    std::string chain_pem;  // leaf, then root
    std::string key_pem;
  };
  // A key and a certificate for weft-control itself. `names`: DNS names or IP addresses;
  // `spiffe_id` may be empty.
  absl::StatusOr<ServerCertificate> IssueServerCertificate(const std::vector<std::string>& names,
                                                           std::string_view spiffe_id,
                                                           std::chrono::seconds lifetime) const;
  const std::string& root_pem() const;
  std::string root_der() const;

 private:
  struct Core;
  explicit CertificateAuthority(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

}  // namespace weft::identity
