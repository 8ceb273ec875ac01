// SPDX-License-Identifier: Apache-2.0
// SPIFFE ids as text. Pure.
#pragma once
#include <string_view>

namespace weft::tls {

// True for spiffe://TRUST-DOMAIN/PATH as SPIFFE-ID 2 allows it: lower-case trust domain of
// [a-z0-9.-_], non-empty path segments of [A-Za-z0-9._-], none "." or "..", no trailing slash, no
// port, user, query or fragment, at most 2048 bytes.
bool IsValidSpiffeId(std::string_view id);
// "TRUST-DOMAIN" of a valid id, empty otherwise.
std::string_view TrustDomainOf(std::string_view id);

}  // namespace weft::tls
