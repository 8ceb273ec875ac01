// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/peer_check.h"

#include <openssl/asn1.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "proxy/tls/spiffe.h"

namespace weft::tls {
namespace {

constexpr int kMaxIntermediates = 4;    // between leaf and root: deeper chains only cost us work
constexpr size_t kMaxCertificates = 8;  // shown by a peer
constexpr unsigned kMinRsaBits = 2048;

using Kind = TlsContext::Core::Kind;

struct Chain {
  bssl::UniquePtr<X509> leaf;
  bssl::UniquePtr<STACK_OF(X509)> rest;
};

bool ParseChain(const STACK_OF(CRYPTO_BUFFER) * buffers, Chain* out) {
  const size_t count = buffers == nullptr ? 0 : sk_CRYPTO_BUFFER_num(buffers);
  if (count == 0 || count > kMaxCertificates) return false;
  out->rest.reset(sk_X509_new_null());
  for (size_t i = 0; i < count; ++i) {
    bssl::UniquePtr<X509> certificate(X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(buffers, i)));
    if (!certificate) return false;
    if (i == 0) {
      out->leaf = std::move(certificate);
    } else if (!bssl::PushToStack(out->rest.get(), std::move(certificate))) {
      return false;
    }
  }
  return true;
}

bool IsCritical(const X509* certificate, int nid) {
  const int index = X509_get_ext_by_NID(certificate, nid, -1);
  return index >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, index)) != 0;
}

// SPIFFE X509-SVID 3 to 5, for a leaf whose URI SAN is already known to be a SPIFFE id.
bool IsSvidLeaf(X509* leaf) {
  const uint32_t flags = X509_get_extension_flags(leaf);
  if ((flags & EXFLAG_INVALID) != 0 || (flags & EXFLAG_CA) != 0) return false;
  const uint32_t usage = X509_get_key_usage(leaf);
  constexpr uint32_t kCaUsage = X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN;
  if (usage == UINT32_MAX || (usage & X509v3_KU_DIGITAL_SIGNATURE) == 0 || (usage & kCaUsage) != 0)
    return false;
  if (!IsCritical(leaf, NID_key_usage)) return false;
  const uint32_t extended = X509_get_extended_key_usage(leaf);
  constexpr uint32_t kBoth = XKU_SSL_SERVER | XKU_SSL_CLIENT;
  return extended == UINT32_MAX || (extended & kBoth) == kBoth;
}

bool IsStrongSignature(int nid) {
  switch (nid) {
    case NID_ecdsa_with_SHA256:
    case NID_ecdsa_with_SHA384:
    case NID_ecdsa_with_SHA512:
    case NID_sha256WithRSAEncryption:
    case NID_sha384WithRSAEncryption:
    case NID_sha512WithRSAEncryption:
    case NID_rsassaPss:
      return true;
    default:
      return false;
  }
}

bool IsStrongKey(const X509* certificate) {
  const EVP_PKEY* key = X509_get0_pubkey(certificate);
  if (key == nullptr) return false;
  if (EVP_PKEY_id(key) == EVP_PKEY_EC) return EVP_PKEY_bits(key) >= 256;
  return EVP_PKEY_id(key) == EVP_PKEY_RSA &&
         static_cast<unsigned>(EVP_PKEY_bits(key)) >= kMinRsaBits;
}

// The verified chain, root last. The root's own signature proves nothing, so its algorithm is not
// looked at.
bool IsStrongChain(const STACK_OF(X509) * chain) {
  const size_t count = sk_X509_num(chain);
  for (size_t i = 0; i < count; ++i) {
    const X509* certificate = sk_X509_value(chain, i);
    if (!IsStrongKey(certificate)) return false;
    if (i + 1 < count && !IsStrongSignature(X509_get_signature_nid(certificate))) return false;
  }
  return true;
}

Reason ReasonOfVerifyError(int error) {
  const bool time = error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID;
  return time ? WEFT_R_CERT_EXPIRED : WEFT_R_CERT_UNTRUSTED;
}

Reason VerifyPath(X509_STORE* store, const Chain& chain, int purpose, int64_t* expiry) {
  bssl::UniquePtr<X509_STORE_CTX> verify(X509_STORE_CTX_new());
  if (!verify || !X509_STORE_CTX_init(verify.get(), store, chain.leaf.get(), chain.rest.get())) {
    return WEFT_R_INTERNAL_ERROR;
  }
  if (purpose != 0) (void)X509_STORE_CTX_set_purpose(verify.get(), purpose);
  X509_STORE_CTX_set_depth(verify.get(), kMaxIntermediates);
  if (X509_verify_cert(verify.get()) != 1)
    return ReasonOfVerifyError(X509_STORE_CTX_get_error(verify.get()));
  const STACK_OF(X509)* path = X509_STORE_CTX_get0_chain(verify.get());
  if (!IsStrongChain(path)) return WEFT_R_CERT_UNTRUSTED;
  *expiry = INT64_MAX;
  for (size_t i = 0; i < sk_X509_num(path); ++i) {
    *expiry = std::min(*expiry, TimeOf(X509_get0_notAfter(sk_X509_value(path, i))));
  }
  return WEFT_R_NONE;
}

Reason CheckMesh(const TlsContext::Core& context, const Chain& chain,
                 const std::vector<std::string>& expected, PeerCheck* out) {
  if (!OnlyUriSan(chain.leaf.get(), &out->identity) || !IsValidSpiffeId(out->identity))
    return WEFT_R_CERT_BAD_SPIFFE;
  if (!IsSvidLeaf(chain.leaf.get())) return WEFT_R_CERT_BAD_SPIFFE;
  const auto bundle = context.trust.find(TrustDomainOf(out->identity));
  if (bundle == context.trust.end()) return WEFT_R_CERT_UNTRUSTED;
  const Reason reason = VerifyPath(bundle->second.get(), chain, 0, &out->expiry);
  if (reason != WEFT_R_NONE) return reason;
  const bool known =
      expected.empty() || std::ranges::find(expected, out->identity) != expected.end();
  return known ? WEFT_R_NONE : WEFT_R_IDENTITY_MISMATCH;
}

bool MatchesName(const TlsContext::Core& context, const X509* leaf, const std::string& identity) {
  if (!context.expected_spiffe.empty()) return identity == context.expected_spiffe;
  if (context.server_name.empty()) return true;
  const std::string& name = context.server_name;
  if (context.server_name_is_ip) return X509_check_ip_asc(leaf, name.c_str(), 0) == 1;
  return X509_check_host(leaf, name.data(), name.size(), 0, nullptr) == 1;
}

Reason CheckOrdinary(const TlsContext::Core& context, const Chain& chain, PeerCheck* out) {
  if (!OnlyUriSan(chain.leaf.get(), &out->identity) || !IsValidSpiffeId(out->identity))
    out->identity.clear();
  if (context.insecure_skip_verify) return WEFT_R_NONE;
  const auto store = context.trust.find("");
  if (store == context.trust.end()) return WEFT_R_CERT_UNTRUSTED;
  const int purpose =
      context.kind == Kind::kServer ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER;
  const Reason reason = VerifyPath(store->second.get(), chain, purpose, &out->expiry);
  if (reason != WEFT_R_NONE) return reason;
  if (context.kind == Kind::kServer) return WEFT_R_NONE;
  return MatchesName(context, chain.leaf.get(), out->identity) ? WEFT_R_NONE
                                                               : WEFT_R_IDENTITY_MISMATCH;
}

}  // namespace

int64_t TimeOf(const ASN1_TIME* time) {
  int64_t seconds = 0;
  return ASN1_TIME_to_posix(time, &seconds) == 1 ? seconds : 0;
}

bool OnlyUriSan(const X509* certificate, std::string* uri) {
  int critical = 0;
  bssl::UniquePtr<GENERAL_NAMES> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nullptr)));
  if (!names) return false;  // absent, repeated or malformed
  int found = 0;
  for (size_t i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* text = name->d.uniformResourceIdentifier;
    uri->assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                static_cast<size_t>(ASN1_STRING_length(text)));
    ++found;
  }
  return found == 1;
}

PeerCheck CheckPeer(const TlsContext::Core& context, const STACK_OF(CRYPTO_BUFFER) * chain,
                    const std::vector<std::string>& expected) {
  PeerCheck out;
  Chain parsed;
  if (!ParseChain(chain, &parsed)) {
    out.reason = context.kind == Kind::kMesh ? WEFT_R_CERT_BAD_SPIFFE : WEFT_R_CERT_UNTRUSTED;
    return out;
  }
  out.reason = context.kind == Kind::kMesh ? CheckMesh(context, parsed, expected, &out)
                                           : CheckOrdinary(context, parsed, &out);
  if (out.reason != WEFT_R_NONE) out.identity.clear();
  return out;
}

}  // namespace weft::tls
