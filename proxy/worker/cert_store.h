// SPDX-License-Identifier: Apache-2.0
// The TLS contexts of a worker, one per identity, made from Certificate and TrustBundle resources
// and renewed when they change. What cannot be made keeps the old one in service: a bad renewal
// must not end what works. Thread: the worker's, which is also the signer's.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/tls/tls_context.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

class CertStore final {
 public:
  // `signer` outlives the store; null: no identities (run alone).
  explicit CertStore(tls::KeySigner* signer) : signer_(signer) {}

  void Adopt(const model::Snapshot& snapshot);
  // Null: no certificate for this identity yet. Streams keep theirs when it is replaced.
  std::shared_ptr<const tls::TlsContext> Find(std::string_view identity) const;

 private:
  struct Entry {
    std::shared_ptr<const model::Certificate> certificate;  // of the context
    std::shared_ptr<const tls::TlsContext> context;
  };
  // True if the roots differ from those of the present contexts.
  bool AdoptTrust(const model::Snapshot& snapshot);

  tls::KeySigner* signer_;
  std::map<std::string, std::shared_ptr<const model::TrustBundle>> bundles_;
  std::vector<tls::TrustDomainRoots> trust_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace weft::worker
