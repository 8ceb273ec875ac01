// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/tls_context.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <iterator>

#include "proxy/base/address.h"
#include "proxy/tls/context_core.h"
#include "proxy/tls/peer_check.h"
#include "proxy/tls/spiffe.h"

namespace weft::tls {
namespace {

using Core = TlsContext::Core;
using UniqueBuffer = bssl::UniquePtr<CRYPTO_BUFFER>;

constexpr size_t kMaxPemBytes = 1 << 20;
constexpr size_t kMaxChainBytes = 32 * 1024;  // of a peer; SVID chains are a tenth of it

constexpr uint16_t kGroups[] = {SSL_GROUP_X25519_MLKEM768, SSL_GROUP_X25519, SSL_GROUP_SECP256R1};
constexpr uint16_t kSignWith[] = {SSL_SIGN_ECDSA_SECP256R1_SHA256};
constexpr uint16_t kVerifyWith[] = {SSL_SIGN_ECDSA_SECP256R1_SHA256,
                                    SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA256,
                                    SSL_SIGN_RSA_PSS_RSAE_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA512};

absl::Status SslError(std::string_view what) {
  char text[160] = "unknown error";
  const uint32_t error = ERR_get_error();
  if (error != 0) ERR_error_string_n(error, text, sizeof text);
  ERR_clear_error();
  return absl::InvalidArgumentError(std::string(what) + ": " + text);
}

bssl::UniquePtr<BIO> MemoryBio(const std::string& bytes) {
  return bssl::UniquePtr<BIO>(
      BIO_new_mem_buf(bytes.data(), static_cast<ossl_ssize_t>(bytes.size())));
}

bssl::UniquePtr<X509> ParseDer(const std::string& der) {
  const auto* at = reinterpret_cast<const uint8_t*>(der.data());
  bssl::UniquePtr<X509> certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (certificate && at != reinterpret_cast<const uint8_t*>(der.data()) + der.size())
    certificate.reset();
  return certificate;
}

absl::StatusOr<bssl::UniquePtr<X509_STORE>> MakeStore(const std::vector<std::string>& roots_der,
                                                      std::string_view what) {
  bssl::UniquePtr<X509_STORE> store(X509_STORE_new());
  if (roots_der.empty())
    return absl::InvalidArgumentError(std::string(what) + ": no root certificate");
  for (const std::string& der : roots_der) {
    auto root = ParseDer(der);
    if (!root || !X509_STORE_add_cert(store.get(), root.get()))
      return SslError(std::string(what) + ": root certificate");
  }
  return store;
}

// "h2", "http/1.1" -> the length-prefixed form of RFC 7301.
absl::StatusOr<std::vector<uint8_t>> AlpnWire(const std::vector<std::string>& names) {
  std::vector<uint8_t> wire;
  for (const std::string& name : names) {
    if (name.empty() || name.size() > 255) return absl::InvalidArgumentError("alpn: bad name");
    wire.push_back(static_cast<uint8_t>(name.size()));
    wire.insert(wire.end(), name.begin(), name.end());
  }
  return wire;
}

int SelectAlpn(SSL*, const uint8_t** out, uint8_t* out_length, const uint8_t* offered,
               unsigned offered_length, void* arg) {
  const auto* core = static_cast<const Core*>(arg);
  for (const std::string& ours : core->alpn) {
    for (unsigned at = 0; at < offered_length;
         at += 1u + offered[at]) {  // BoringSSL has checked the lengths
      const std::string_view theirs(reinterpret_cast<const char*>(offered) + at + 1, offered[at]);
      if (theirs != ours) continue;
      *out = offered + at + 1;
      *out_length = offered[at];
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

absl::StatusOr<std::unique_ptr<Core>> NewCore(Core::Kind kind, uint16_t min_version,
                                              std::vector<std::string> alpn) {
  auto core = std::make_unique<Core>();
  core->kind = kind;
  core->alpn = std::move(alpn);
  core->ssl_ctx.reset(SSL_CTX_new(TLS_with_buffers_method()));
  SSL_CTX* ctx = core->ssl_ctx.get();
  if (ctx == nullptr) return SslError("SSL_CTX_new");
  // No resumption: a ticket would outlive the checks that were made of the peer's certificate.
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_cert_list(ctx, kMaxChainBytes);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  WEFT_ASSIGN_OR_RETURN(const std::vector<uint8_t> wire, AlpnWire(core->alpn));
  const bool ok = SSL_CTX_set_min_proto_version(ctx, min_version) &&
                  SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
                  SSL_CTX_set1_group_ids(ctx, kGroups, std::size(kGroups)) &&
                  SSL_CTX_set_verify_algorithm_prefs(ctx, kVerifyWith, std::size(kVerifyWith)) &&
                  (wire.empty() || SSL_CTX_set_alpn_protos(ctx, wire.data(), wire.size()) == 0);
  if (!ok) return SslError("TLS settings");
  if (!core->alpn.empty()) SSL_CTX_set_alpn_select_cb(ctx, SelectAlpn, core.get());
  return core;
}

absl::Status UseChain(SSL_CTX* ctx, const std::vector<std::string>& chain_der,
                      const EVP_PKEY* key) {
  if (chain_der.empty()) return absl::InvalidArgumentError("certificate chain is empty");
  std::vector<UniqueBuffer> owned;
  std::vector<CRYPTO_BUFFER*> buffers;
  for (const std::string& der : chain_der) {
    if (!ParseDer(der)) return SslError("certificate chain");
    owned.emplace_back(
        CRYPTO_BUFFER_new(reinterpret_cast<const uint8_t*>(der.data()), der.size(), nullptr));
    buffers.push_back(owned.back().get());
  }
  const SSL_PRIVATE_KEY_METHOD* method = key == nullptr ? &kSignerMethod : nullptr;
  if (!SSL_CTX_set_chain_and_key(ctx, buffers.data(), buffers.size(), key, method))
    return SslError("certificate chain");
  if (key == nullptr &&
      !SSL_CTX_set_signing_algorithm_prefs(ctx, kSignWith, std::size(kSignWith))) {
    return SslError("signing algorithm");
  }
  return absl::OkStatus();
}

absl::Status UseChainPem(SSL_CTX* ctx, const std::string& chain_pem, const std::string& key_pem) {
  WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> chain, CertificatesFromPem(chain_pem));
  auto bio = MemoryBio(key_pem);
  const bssl::UniquePtr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) return SslError("private key");
  return UseChain(ctx, chain, key.get());
}

absl::Status UseSigner(Core& core, const std::string& identity, uint64_t key_id, KeySigner* signer,
                       const std::vector<std::string>& chain_der) {
  if (signer == nullptr)
    return absl::InvalidArgumentError("no signer for the certificate of " + identity);
  core.identity = identity;
  core.key_id = key_id;
  core.signer = signer;
  return Annotate(UseChain(core.ssl_ctx.get(), chain_der, nullptr), identity);
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<Core> core) : core_(std::move(core)) {}
TlsContext::~TlsContext() = default;

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Mesh(const MeshTlsOptions& options) {
  WEFT_ASSIGN_OR_RETURN(auto core, NewCore(Core::Kind::kMesh, TLS1_3_VERSION, {"h2"}));
  WEFT_RETURN_IF_ERROR(
      UseSigner(*core, options.identity, options.key_id, options.signer, options.chain_der));
  for (const TrustDomainRoots& domain : options.trust) {
    WEFT_ASSIGN_OR_RETURN(core->trust[domain.trust_domain],
                          MakeStore(domain.roots_der, domain.trust_domain));
  }
  if (core->trust.empty())
    return absl::InvalidArgumentError(options.identity + ": no trust bundle");
  SSL_CTX_set_custom_verify(core->ssl_ctx.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                            VerifyPeerCallback);
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(core)));
}

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Server(
    const ServerTlsOptions& options) {
  WEFT_ASSIGN_OR_RETURN(auto core, NewCore(Core::Kind::kServer, TLS1_3_VERSION, options.alpn));
  WEFT_RETURN_IF_ERROR(UseChainPem(core->ssl_ctx.get(), options.chain_pem, options.key_pem));
  int mode = SSL_VERIFY_NONE;
  if (!options.client_roots_pem.empty()) {
    WEFT_ASSIGN_OR_RETURN(const auto roots, CertificatesFromPem(options.client_roots_pem));
    WEFT_ASSIGN_OR_RETURN(core->trust[""], MakeStore(roots, "client roots"));
    mode = SSL_VERIFY_PEER |
           (options.client_certificate_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
  } else if (options.client_certificate_required) {
    return absl::InvalidArgumentError(
        "client certificates are required, but there are no roots for them");
  }
  SSL_CTX_set_custom_verify(core->ssl_ctx.get(), mode, VerifyPeerCallback);
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(core)));
}

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Client(
    const ClientTlsOptions& options) {
  WEFT_ASSIGN_OR_RETURN(auto core, NewCore(Core::Kind::kClient, TLS1_2_VERSION, options.alpn));
  core->server_name = options.server_name;
  core->server_name_is_ip = IpAddress::Parse(options.server_name).has_value();
  core->expected_spiffe = options.expected_spiffe;
  core->insecure_skip_verify = options.insecure_skip_verify;
  if (!options.insecure_skip_verify) {
    WEFT_ASSIGN_OR_RETURN(const auto roots, CertificatesFromPem(options.roots_pem));
    WEFT_ASSIGN_OR_RETURN(core->trust[""], MakeStore(roots, "roots"));
  }
  if (!options.chain_pem.empty() && options.signer != nullptr) {
    WEFT_ASSIGN_OR_RETURN(const auto chain, CertificatesFromPem(options.chain_pem));
    WEFT_RETURN_IF_ERROR(UseSigner(*core, options.identity, options.key_id, options.signer, chain));
  } else if (!options.chain_pem.empty()) {
    WEFT_RETURN_IF_ERROR(UseChainPem(core->ssl_ctx.get(), options.chain_pem, options.key_pem));
  }
  SSL_CTX_set_custom_verify(core->ssl_ctx.get(), SSL_VERIFY_PEER, VerifyPeerCallback);
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(core)));
}

absl::StatusOr<std::vector<std::string>> CertificatesFromPem(const std::string& pem) {
  if (pem.size() > kMaxPemBytes) return absl::InvalidArgumentError("PEM larger than 1 MiB");
  std::vector<std::string> out;
  auto bio = MemoryBio(pem);
  while (
      bssl::UniquePtr<X509> certificate{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    uint8_t* der = nullptr;
    const int length = i2d_X509(certificate.get(), &der);
    if (length <= 0) return SslError("certificate");
    const bssl::UniquePtr<uint8_t> owned(der);
    out.emplace_back(reinterpret_cast<const char*>(der), static_cast<size_t>(length));
  }
  const uint32_t error = ERR_peek_last_error();
  const bool at_end =
      ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (!at_end) return SslError("PEM certificate");
  ERR_clear_error();
  if (out.empty()) return absl::InvalidArgumentError("no certificate in the PEM text");
  return out;
}

std::string CertificateToPem(const std::string& der) {
  auto certificate = ParseDer(der);
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  if (!certificate || !PEM_write_bio_X509(bio.get(), certificate.get())) return "";
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  if (!BIO_mem_contents(bio.get(), &bytes, &length)) return "";
  return {reinterpret_cast<const char*>(bytes), length};
}

absl::StatusOr<CertificateInfo> InspectCertificate(const std::string& der) {
  auto certificate = ParseDer(der);
  if (!certificate) return SslError("certificate");
  CertificateInfo info;
  if (!OnlyUriSan(certificate.get(), &info.spiffe_id)) info.spiffe_id.clear();
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate.get());
  static constexpr char kHex[] = "0123456789abcdef";
  for (int i = 0; i < ASN1_STRING_length(serial); ++i) {
    const uint8_t byte = ASN1_STRING_get0_data(serial)[i];
    info.serial_hex += kHex[byte >> 4];
    info.serial_hex += kHex[byte & 15];
  }
  info.not_before = TimeOf(X509_get0_notBefore(certificate.get()));
  info.not_after = TimeOf(X509_get0_notAfter(certificate.get()));
  return info;
}

}  // namespace weft::tls
