// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/cert_store.h"

#include <algorithm>
#include <utility>

#include "proxy/base/log.h"

namespace weft::worker {

namespace {

absl::Status CheckRoots(const model::TrustBundle& bundle) {
  if (bundle.roots.empty()) return absl::InvalidArgumentError("no root certificate");
  for (const std::string& root : bundle.roots) {
    absl::StatusOr<tls::CertificateInfo> info = tls::InspectCertificate(root);
    if (!info.ok()) return info.status();
  }
  return absl::OkStatus();
}

std::chrono::system_clock::time_point EndOf(const std::vector<std::string>& chain) {
  auto end = std::chrono::system_clock::time_point::max();
  for (const std::string& der : chain) {
    absl::StatusOr<tls::CertificateInfo> info = tls::InspectCertificate(der);
    if (info.ok()) end = std::min(end, std::chrono::system_clock::from_time_t(info->not_after));
  }
  return end;
}

}  // namespace

bool CertStore::AdoptTrust(const model::Snapshot& snapshot) {
  decltype(bundles_) bundles(snapshot.trust_bundles.begin(), snapshot.trust_bundles.end());
  if (bundles == bundles_) return false;
  bundles_ = std::move(bundles);
  trust_.clear();
  for (const auto& [domain, bundle] : bundles_) {
    absl::Status usable = CheckRoots(*bundle);
    if (usable.ok()) {
      trust_.push_back({domain, bundle->roots});
    } else {
      LogError("roots cannot be used; nobody of this trust domain is trusted",
               {{"trust_domain", domain}, {"error", std::string(usable.message())}});
    }
  }
  return true;
}

absl::StatusOr<std::shared_ptr<const tls::TlsContext>> CertStore::MakeContext(
    const model::Certificate& certificate) const {
  return tls::TlsContext::Mesh({.identity = certificate.identity,
                                .key_id = certificate.key_id,
                                .chain_der = certificate.chain,
                                .trust = trust_,
                                .signer = signer_});
}

void CertStore::Renew(Entry& entry, const std::shared_ptr<const model::Certificate>& certificate,
                      bool new_trust) const {
  auto context = MakeContext(*certificate);
  if (context.ok()) {
    entry = {certificate, *std::move(context), EndOf(certificate->chain)};
    return;
  }
  if (!new_trust) {
    LogError(
        "certificate cannot be used; the one before stays",
        {{"identity", certificate->identity}, {"error", std::string(context.status().message())}});
    return;
  }
  // The context before trusts the roots before: it must go, its certificate need not.
  entry.context = nullptr;
  if (entry.certificate != nullptr && entry.certificate != certificate) {
    auto again = MakeContext(*entry.certificate);
    if (again.ok()) entry.context = *std::move(again);
  }
  LogError(
      entry.context == nullptr
          ? "no TLS with today's roots; new connections of this identity are refused"
          : "certificate cannot be used; the one before stays",
      {{"identity", certificate->identity}, {"error", std::string(context.status().message())}});
}

void CertStore::Adopt(const model::Snapshot& snapshot) {
  if (signer_ == nullptr) return;
  bool new_trust = AdoptTrust(snapshot);
  std::erase_if(entries_,
                [&](const auto& entry) { return !snapshot.certificates.contains(entry.first); });
  for (const auto& [identity, certificate] : snapshot.certificates) {
    Entry& entry = entries_[identity];
    if (new_trust || entry.certificate != certificate) Renew(entry, certificate, new_trust);
  }
}

std::shared_ptr<const tls::TlsContext> CertStore::Find(std::string_view identity) const {
  auto found = entries_.find(identity);
  return found == entries_.end() ? nullptr : found->second.context;
}

std::chrono::system_clock::time_point CertStore::ExpiryOf(std::string_view identity) const {
  auto found = entries_.find(identity);
  return found == entries_.end() ? std::chrono::system_clock::time_point{} : found->second.expiry;
}

Reason CertStore::WhyNot(std::string_view identity) const {
  return trust_.empty() && entries_.contains(identity) ? WEFT_R_CERT_UNTRUSTED
                                                       : WEFT_R_NO_CERTIFICATE;
}

}  // namespace weft::worker
