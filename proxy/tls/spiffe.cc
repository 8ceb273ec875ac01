// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/spiffe.h"

#include <cstddef>

namespace weft::tls {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr size_t kMaxIdBytes = 2048;          // SPIFFE-ID 2.3
constexpr size_t kMaxTrustDomainBytes = 255;  // the same

bool IsLowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool IsTrustDomain(std::string_view name) {
  if (name.empty() || name.size() > kMaxTrustDomainBytes) return false;
  for (char c : name) {
    if (!IsLowerOrDigit(c) && c != '.' && c != '-' && c != '_') return false;
  }
  return true;
}

bool IsSegment(std::string_view segment) {
  if (segment.empty() || segment == "." || segment == "..") return false;
  for (char c : segment) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (!IsLowerOrDigit(c) && !upper && c != '.' && c != '-' && c != '_') return false;
  }
  return true;
}

}  // namespace

bool IsValidSpiffeId(std::string_view id) {
  if (id.size() > kMaxIdBytes || !id.starts_with(kScheme)) return false;
  id.remove_prefix(kScheme.size());
  const size_t slash = id.find('/');
  if (slash == std::string_view::npos || !IsTrustDomain(id.substr(0, slash))) return false;
  std::string_view path = id.substr(slash + 1);
  for (;;) {
    const size_t next = path.find('/');
    if (!IsSegment(path.substr(0, next))) return false;
    if (next == std::string_view::npos) return true;
    path.remove_prefix(next + 1);
  }
}

std::string_view TrustDomainOf(std::string_view id) {
  if (!IsValidSpiffeId(id)) return {};
  id.remove_prefix(kScheme.size());
  return id.substr(0, id.find('/'));
}

}  // namespace weft::tls
