// SPDX-License-Identifier: Apache-2.0
#include "control/identity/ca.h"

#include <openssl/bn.h>
#include <openssl/digest.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>

#include "control/identity/ca_files.h"
#include "control/identity/x509_build.h"
#include "proxy/tls/spiffe.h"

namespace weft::identity {

using std::chrono::seconds;

struct CertificateAuthority::Core {
  bssl::UniquePtr<X509> root;
  bssl::UniquePtr<EVP_PKEY> key;
  std::string root_pem;
};

namespace {

constexpr int64_t kBackdateSeconds = 60;  // for clocks that are behind
constexpr size_t kMaxCsrBytes = 16 * 1024;
constexpr int kSerialBits = 127;  // positive in 16 bytes; RFC 5280 allows 20

absl::Status SslError(std::string_view what) {
  char text[160] = "unknown error";
  const uint32_t error = ERR_get_error();
  if (error != 0) ERR_error_string_n(error, text, sizeof text);
  ERR_clear_error();
  return absl::InternalError(std::string(what) + ": " + text);
}

absl::Status Refused(std::string_view why) {
  ERR_clear_error();
  return absl::InvalidArgumentError("CSR refused: " + std::string(why));
}

bssl::UniquePtr<BIO> MemoryBio(const std::string& text) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<ossl_ssize_t>(text.size())));
}

bool IsP256(const EVP_PKEY* key) {
  if (key == nullptr || EVP_PKEY_id(key) != EVP_PKEY_EC) return false;
  const EC_KEY* ec = EVP_PKEY_get0_EC_KEY(key);
  return ec != nullptr && EC_GROUP_get_curve_name(EC_KEY_get0_group(ec)) == NID_X9_62_prime256v1;
}

std::string PemOf(X509* certificate) {
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  return bio && PEM_write_bio_X509(bio.get(), certificate) ? BioText(bio.get()) : "";
}

std::string PemOf(const EVP_PKEY* key) {
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  const bool ok = bio && PEM_write_bio_PKCS8PrivateKey(bio.get(), const_cast<EVP_PKEY*>(key),
                                                       nullptr, nullptr, 0, nullptr, nullptr);
  return ok ? BioText(bio.get()) : "";
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, value));
  return extension && X509_add_ext(certificate, extension.get(), -1);
}

bool SetCommonName(X509* certificate, const std::string& name) {
  return X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                    MBSTRING_UTF8, reinterpret_cast<const uint8_t*>(name.data()),
                                    static_cast<ossl_ssize_t>(name.size()), -1, 0) == 1;
}

struct Validity {
  int64_t not_before = 0, not_after = 0;
};

// An unsigned certificate with version, random serial, validity and key.
bssl::UniquePtr<X509> NewCertificate(EVP_PKEY* key, Validity validity) {
  bssl::UniquePtr<X509> certificate(X509_new());
  bssl::UniquePtr<BIGNUM> serial(BN_new());
  if (!certificate || !serial) return nullptr;
  const bool ok =
      X509_set_version(certificate.get(), X509_VERSION_3) &&
      BN_rand(serial.get(), kSerialBits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) != nullptr &&
      ASN1_TIME_set_posix(X509_getm_notBefore(certificate.get()), validity.not_before) != nullptr &&
      ASN1_TIME_set_posix(X509_getm_notAfter(certificate.get()), validity.not_after) != nullptr &&
      X509_set_pubkey(certificate.get(), key);
  return ok ? std::move(certificate) : nullptr;
}

int64_t TimeOf(const ASN1_TIME* time) {
  int64_t value = 0;
  return ASN1_TIME_to_posix(time, &value) == 1 ? value : 0;
}

Validity LeafValidity(const X509* root, seconds lifetime) {
  const int64_t now = time(nullptr);
  return {.not_before = now - kBackdateSeconds,
          .not_after = std::min<int64_t>(now + lifetime.count(), TimeOf(X509_get0_notAfter(root)))};
}

absl::StatusOr<bssl::UniquePtr<X509>> SignLeaf(X509* root, EVP_PKEY* root_key, EVP_PKEY* leaf_key,
                                               const SanNames& names, Validity validity) {
  if (validity.not_after <= validity.not_before + kBackdateSeconds) {
    return absl::FailedPreconditionError(
        "the root certificate or the lifetime asked for has ended");
  }
  auto leaf = NewCertificate(leaf_key, validity);
  auto san =
      MakeSanExtension(names, true);  // critical, because the subject is empty (RFC 5280 4.2.1.6)
  const bool ok = leaf && san && X509_set_issuer_name(leaf.get(), X509_get_subject_name(root)) &&
                  AddExtension(leaf.get(), root, NID_basic_constraints, "critical,CA:FALSE") &&
                  AddExtension(leaf.get(), root, NID_key_usage, "critical,digitalSignature") &&
                  AddExtension(leaf.get(), root, NID_ext_key_usage, "serverAuth,clientAuth") &&
                  AddExtension(leaf.get(), root, NID_authority_key_identifier, "keyid:always") &&
                  X509_add_ext(leaf.get(), san.get(), -1) &&
                  X509_sign(leaf.get(), root_key, EVP_sha256()) > 0;
  if (!ok) return SslError("sign a certificate");
  return leaf;
}

// The only name a request asks for; an error if there are others, or none.
absl::StatusOr<std::string> OnlyUriOf(X509_REQ* csr) {
  const bssl::UniquePtr<STACK_OF(X509_EXTENSION)> extensions(X509_REQ_get_extensions(csr));
  if (!extensions) return Refused("no subject alternative name");
  const auto* all = extensions.get();
  const int first = X509v3_get_ext_by_NID(all, NID_subject_alt_name, -1);
  if (first < 0) return Refused("no subject alternative name");
  if (X509v3_get_ext_by_NID(all, NID_subject_alt_name, first) >= 0)
    return Refused("two subject alternative name extensions");
  const bssl::UniquePtr<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES*>(X509V3_EXT_d2i(X509v3_get_ext(all, first))));
  if (!names) return Refused("malformed subject alternative name");
  if (sk_GENERAL_NAME_num(names.get()) != 1)
    return Refused("not exactly one subject alternative name");
  const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), 0);
  if (name->type != GEN_URI) return Refused("its subject alternative name is no URI");
  const ASN1_IA5STRING* text = name->d.uniformResourceIdentifier;
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<size_t>(ASN1_STRING_length(text)));
}

}  // namespace

CertificateAuthority::CertificateAuthority(std::unique_ptr<Core> core) : core_(std::move(core)) {}
CertificateAuthority::~CertificateAuthority() = default;

absl::StatusOr<std::unique_ptr<CertificateAuthority>> CertificateAuthority::Create(
    std::string_view trust_domain, seconds lifetime) {
  const std::string uri = "spiffe://" + std::string(trust_domain);
  if (trust_domain.empty() || tls::TrustDomainOf(uri + "/x") != trust_domain) {
    return absl::InvalidArgumentError("not a trust domain: " + std::string(trust_domain));
  }
  auto core = std::make_unique<Core>();
  core->key = MakeP256();
  if (!core->key) return SslError("make a key");
  const int64_t now = time(nullptr);
  core->root = NewCertificate(
      core->key.get(), {.not_before = now - kBackdateSeconds, .not_after = now + lifetime.count()});
  X509* root = core->root.get();
  auto san = MakeSanExtension(
      {.uris = {uri}}, false);  // X509-SVID 4.1: a CA may carry its trust domain, without a path
  const bool ok = root != nullptr && san &&
                  SetCommonName(root, "Weft CA " + std::string(trust_domain).substr(0, 40)) &&
                  X509_set_issuer_name(root, X509_get_subject_name(root)) &&
                  AddExtension(root, root, NID_basic_constraints, "critical,CA:TRUE") &&
                  AddExtension(root, root, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                  AddExtension(root, root, NID_subject_key_identifier, "hash") &&
                  X509_add_ext(root, san.get(), -1) &&
                  X509_sign(root, core->key.get(), EVP_sha256()) > 0;
  if (!ok) return SslError("make a root certificate");
  core->root_pem = PemOf(root);
  return std::unique_ptr<CertificateAuthority>(new CertificateAuthority(std::move(core)));
}

absl::StatusOr<std::unique_ptr<CertificateAuthority>> CertificateAuthority::FromPem(
    const std::string& root_pem, const std::string& key_pem) {
  auto core = std::make_unique<Core>();
  auto root_bio = MemoryBio(root_pem);
  auto key_bio = MemoryBio(key_pem);
  core->root.reset(PEM_read_bio_X509(root_bio.get(), nullptr, nullptr, nullptr));
  if (!core->root) return SslError("root certificate");
  core->key.reset(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  if (!core->key) return SslError("root key");
  if (X509_check_private_key(core->root.get(), core->key.get()) != 1)
    return SslError("the root's key is another one");
  if (X509_check_ca(core->root.get()) != 1)
    return absl::InvalidArgumentError("the root certificate is no CA certificate");
  core->root_pem = PemOf(core->root.get());
  return std::unique_ptr<CertificateAuthority>(new CertificateAuthority(std::move(core)));
}

absl::StatusOr<std::unique_ptr<CertificateAuthority>> CertificateAuthority::LoadOrCreate(
    const std::string& directory, std::string_view trust_domain) {
  WEFT_ASSIGN_OR_RETURN(const CaFiles files, ReadCaFiles(directory));
  if (!files.root_pem.empty()) {
    auto loaded = FromPem(files.root_pem, files.key_pem);
    if (!loaded.ok()) return Annotate(loaded.status(), directory);
    return loaded;
  }
  WEFT_ASSIGN_OR_RETURN(auto created, Create(trust_domain));
  WEFT_RETURN_IF_ERROR(WriteCaFiles(directory, {.root_pem = created->core_->root_pem,
                                                .key_pem = PemOf(created->core_->key.get())}));
  return created;
}

absl::StatusOr<IssuedChain> CertificateAuthority::SignCsr(const std::string& csr_pem,
                                                          std::string_view spiffe_id,
                                                          seconds lifetime) const {
  if (!tls::IsValidSpiffeId(spiffe_id))
    return absl::InvalidArgumentError("not a SPIFFE id: " + std::string(spiffe_id));
  if (csr_pem.size() > kMaxCsrBytes) return Refused("longer than 16 KiB");
  auto bio = MemoryBio(csr_pem);
  const bssl::UniquePtr<X509_REQ> csr(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
  if (!csr) return Refused("not a PEM certificate request");
  const bssl::UniquePtr<EVP_PKEY> key(X509_REQ_get_pubkey(csr.get()));
  if (!IsP256(key.get())) return Refused("its key is not ECDSA P-256");
  if (X509_REQ_verify(csr.get(), key.get()) != 1) return Refused("its signature is wrong");
  WEFT_ASSIGN_OR_RETURN(const std::string uri, OnlyUriOf(csr.get()));
  if (uri != spiffe_id)
    return Refused("it asks for another identity than " + std::string(spiffe_id));

  const Validity validity = LeafValidity(core_->root.get(), lifetime);
  WEFT_ASSIGN_OR_RETURN(const auto leaf, SignLeaf(core_->root.get(), core_->key.get(), key.get(),
                                                  {.uris = {uri}}, validity));
  return IssuedChain{.pem = {PemOf(leaf.get()), core_->root_pem},
                     .not_before = validity.not_before,
                     .not_after = validity.not_after};
}

absl::StatusOr<CertificateAuthority::ServerCertificate>
CertificateAuthority::IssueServerCertificate(const std::vector<std::string>& names,
                                             std::string_view spiffe_id, seconds lifetime) const {
  SanNames san{.uris = {}, .dns_or_ip = names};
  if (!spiffe_id.empty()) san.uris.emplace_back(spiffe_id);
  if (san.uris.empty() && names.empty())
    return absl::InvalidArgumentError("a server certificate needs a name");
  const auto key = MakeP256();
  if (!key) return SslError("make a key");
  const Validity validity = LeafValidity(core_->root.get(), lifetime);
  WEFT_ASSIGN_OR_RETURN(const auto leaf,
                        SignLeaf(core_->root.get(), core_->key.get(), key.get(), san, validity));
  return ServerCertificate{.chain_pem = PemOf(leaf.get()) + core_->root_pem,
                           .key_pem = PemOf(key.get())};
}

const std::string& CertificateAuthority::root_pem() const { return core_->root_pem; }

std::string CertificateAuthority::root_der() const {
  uint8_t* bytes = nullptr;
  const int length = i2d_X509(core_->root.get(), &bytes);
  const bssl::UniquePtr<uint8_t> owned(bytes);
  return length > 0 ? std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length))
                    : "";
}

}  // namespace weft::identity
