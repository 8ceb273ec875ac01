// SPDX-License-Identifier: Apache-2.0
// Inside proxy/tls only: whether the chain a peer showed is acceptable, and whose it is. Pure but
// for the clock.
#pragma once
#include <openssl/pool.h>

#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/reason.h"
#include "proxy/tls/context_core.h"

namespace weft::tls {

struct PeerCheck {
  Reason reason = WEFT_R_NONE;  // NONE: accepted
  std::string identity;         // SPIFFE id of the leaf, if it has exactly one URI SAN that is one
  int64_t expiry = 0;           // earliest notAfter of the verified chain, seconds since the epoch
};

// `expected`: for mesh contexts, one of these must be the identity; empty: any.
PeerCheck CheckPeer(const TlsContext::Core& context, const STACK_OF(CRYPTO_BUFFER) * chain,
                    const std::vector<std::string>& expected);

// The only URI SAN of a certificate; false if there is none, or several.
bool OnlyUriSan(const X509* certificate, std::string* uri);
int64_t TimeOf(const ASN1_TIME* time);

}  // namespace weft::tls
