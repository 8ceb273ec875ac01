// SPDX-License-Identifier: Apache-2.0
// Inside control/identity: small pieces for building certificates and requests with BoringSSL.
// Pure.
#pragma once
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <string>
#include <vector>

namespace weft::identity {

struct SanNames {
  std::vector<std::string> uris;
  std::vector<std::string> dns_or_ip;  // an IP address in text becomes an iPAddress name
};

// Null if there is no memory or a name is empty.
bssl::UniquePtr<X509_EXTENSION> MakeSanExtension(const SanNames& names, bool critical);
// A new P-256 key; null if there is no memory.
bssl::UniquePtr<EVP_PKEY> MakeP256();
// What a memory BIO holds.
std::string BioText(BIO* bio);

}  // namespace weft::identity
