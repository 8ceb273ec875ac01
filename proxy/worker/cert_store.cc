// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/cert_store.h"

#include <utility>

#include "proxy/base/log.h"

namespace weft::worker {

bool CertStore::AdoptTrust(const model::Snapshot& snapshot) {
  decltype(bundles_) bundles(snapshot.trust_bundles.begin(), snapshot.trust_bundles.end());
  if (bundles == bundles_) return false;
  bundles_ = std::move(bundles);
  trust_.clear();
  for (const auto& [domain, bundle] : bundles_) trust_.push_back({domain, bundle->roots});
  return true;
}

void CertStore::Adopt(const model::Snapshot& snapshot) {
  if (signer_ == nullptr) return;
  bool all = AdoptTrust(snapshot);
  std::erase_if(entries_,
                [&](const auto& entry) { return !snapshot.certificates.contains(entry.first); });
  for (const auto& [identity, certificate] : snapshot.certificates) {
    Entry& entry = entries_[identity];
    if (!all && entry.certificate == certificate) continue;
    auto context = tls::TlsContext::Mesh({.identity = identity,
                                          .key_id = certificate->key_id,
                                          .chain_der = certificate->chain,
                                          .trust = trust_,
                                          .signer = signer_});
    if (!context.ok()) {
      LogError("certificate cannot be used; the one before stays",
               {{"identity", identity}, {"error", std::string(context.status().message())}});
      continue;
    }
    entry = {certificate, *std::move(context)};
  }
}

std::shared_ptr<const tls::TlsContext> CertStore::Find(std::string_view identity) const {
  auto found = entries_.find(identity);
  return found == entries_.end() ? nullptr : found->second.context;
}

}  // namespace weft::worker
