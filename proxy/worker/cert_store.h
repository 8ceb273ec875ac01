// SPDX-License-Identifier: Apache-2.0
// The TLS contexts of a worker, one per identity, made from Certificate and TrustBundle resources
// and renewed when they change. A certificate that cannot be used leaves the one before in service:
// a bad renewal must not end what works. Roots that cannot be used are not trusted, nor are those
// before them: a context never outlives the trust it was made with. Thread: the worker's, which is
// also the signer's.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/reason.h"
#include "proxy/tls/tls_context.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

class CertStore final {
 public:
  // `signer` outlives the store; null: no identities (run alone).
  explicit CertStore(tls::KeySigner* signer) : signer_(signer) {}

  void Adopt(const model::Snapshot& snapshot);
  // Null: see WhyNot(). Streams keep theirs when it is replaced.
  std::shared_ptr<const tls::TlsContext> Find(std::string_view identity) const;
  // When the certificate of Find()'s context ends, or one of its chain before; the epoch: there is
  // none.
  std::chrono::system_clock::time_point ExpiryOf(std::string_view identity) const;
  // Where Find() gives null: NO_CERTIFICATE, or CERT_UNTRUSTED where there is one but no usable
  // roots to check the peer against.
  Reason WhyNot(std::string_view identity) const;

 private:
  struct Entry {
    std::shared_ptr<const model::Certificate> certificate;  // of the context
    std::shared_ptr<const tls::TlsContext> context;  // null: could not be made with today's roots
    std::chrono::system_clock::time_point expiry{};
  };
  // True if the roots differ from those of the present contexts.
  bool AdoptTrust(const model::Snapshot& snapshot);
  absl::StatusOr<std::shared_ptr<const tls::TlsContext>> MakeContext(
      const model::Certificate& certificate) const;
  void Renew(Entry& entry, const std::shared_ptr<const model::Certificate>& certificate,
             bool new_trust) const;

  tls::KeySigner* signer_;
  std::map<std::string, std::shared_ptr<const model::TrustBundle>> bundles_;
  std::vector<tls::TrustDomainRoots> trust_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace weft::worker
