// SPDX-License-Identifier: Apache-2.0
// Makes certificates for tests: good ones, and every kind of bad one that a peer may show. Needs
// weft::boringssl, which a test gets with proxy_tls. Not the product's CA (control/identity/ca.h).
#pragma once
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <string>
#include <vector>

namespace weft::test {

struct TestCert {
  bssl::UniquePtr<X509> x509;
  bssl::UniquePtr<EVP_PKEY> key;

  std::string der() const {
    uint8_t* bytes = nullptr;
    const int length = i2d_X509(x509.get(), &bytes);
    const bssl::UniquePtr<uint8_t> owned(bytes);
    return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(length)};
  }
  std::string pem() const {
    bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(bio.get(), x509.get());
    return Contents(bio.get());
  }
  std::string key_pem() const {
    bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_PKCS8PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    return Contents(bio.get());
  }

 private:
  static std::string Contents(BIO* bio) {
    const uint8_t* bytes = nullptr;
    size_t length = 0;
    BIO_mem_contents(bio, &bytes, &length);
    return {reinterpret_cast<const char*>(bytes), length};
  }
};

struct CertOptions {
  std::string common_name = "weft test";
  std::vector<std::string> uris, dns, ips;
  int64_t not_before_seconds = -60;  // from now
  int64_t not_after_seconds = 3600;
  bool ca = false;
  // In OpenSSL's words; empty: no such extension.
  std::string key_usage = "critical,digitalSignature";
  std::string extended_key_usage = "serverAuth,clientAuth";
  std::string basic_constraints = "critical,CA:FALSE";
  std::string name_constraints;
  enum class Key { kP256, kP384, kRsa2048, kRsa1024, kEd25519 } key = Key::kP256;
  const EVP_MD* digest = EVP_sha256();
  bool break_signature = false;
};

inline bssl::UniquePtr<EVP_PKEY> MakeKey(CertOptions::Key kind) {
  bssl::UniquePtr<EVP_PKEY> key;
  const bool rsa = kind == CertOptions::Key::kRsa2048 || kind == CertOptions::Key::kRsa1024;
  const int id = rsa                                  ? EVP_PKEY_RSA
                 : kind == CertOptions::Key::kEd25519 ? EVP_PKEY_ED25519
                                                      : EVP_PKEY_EC;
  bssl::UniquePtr<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_id(id, nullptr));
  EXPECT_TRUE(EVP_PKEY_keygen_init(context.get()));
  if (rsa)
    EVP_PKEY_CTX_set_rsa_keygen_bits(context.get(),
                                     kind == CertOptions::Key::kRsa2048 ? 2048 : 1024);
  if (id == EVP_PKEY_EC) {
    const int curve = kind == CertOptions::Key::kP384 ? NID_secp384r1 : NID_X9_62_prime256v1;
    EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context.get(), curve);
  }
  EVP_PKEY* made = nullptr;
  EXPECT_TRUE(EVP_PKEY_keygen(context.get(), &made));
  key.reset(made);
  return key;
}

inline void AddNames(X509* x509, const CertOptions& options) {
  if (options.uris.empty() && options.dns.empty() && options.ips.empty()) return;
  bssl::UniquePtr<GENERAL_NAMES> names(sk_GENERAL_NAME_new_null());
  const auto add = [&](int type, const std::string& text) {
    GENERAL_NAME* name = GENERAL_NAME_new();
    ASN1_IA5STRING* value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, text.data(), static_cast<ossl_ssize_t>(text.size()));  // may hold a NUL
    GENERAL_NAME_set0_value(name, type, value);
    sk_GENERAL_NAME_push(names.get(), name);
  };
  for (const auto& uri : options.uris) add(GEN_URI, uri);
  for (const auto& dns : options.dns) add(GEN_DNS, dns);
  for (const auto& ip : options.ips) {
    GENERAL_NAME* name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, GEN_IPADD, a2i_IPADDRESS(ip.c_str()));
    sk_GENERAL_NAME_push(names.get(), name);
  }
  EXPECT_TRUE(X509_add1_ext_i2d(x509, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT));
}

inline void AddExtension(X509* x509, int nid, const std::string& value) {
  if (value.empty()) return;
  X509V3_CTX context;
  X509V3_set_ctx(&context, x509, x509, nullptr, nullptr, 0);
  bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, value.c_str()));
  ASSERT_TRUE(extension) << value;
  X509_add_ext(x509, extension.get(), -1);
}

// Signed by `issuer`, or by itself if that is null.
inline TestCert MakeCert(const CertOptions& options, const TestCert* issuer) {
  TestCert out;
  out.key = MakeKey(options.key);
  out.x509.reset(X509_new());
  X509* x509 = out.x509.get();
  X509_set_version(x509, X509_VERSION_3);
  bssl::UniquePtr<BIGNUM> serial(BN_new());
  BN_rand(serial.get(), 120, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY);
  BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x509));
  const int64_t now = time(nullptr);
  ASN1_TIME_set_posix(X509_getm_notBefore(x509), now + options.not_before_seconds);
  ASN1_TIME_set_posix(X509_getm_notAfter(x509), now + options.not_after_seconds);
  X509_NAME* name = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                             reinterpret_cast<const uint8_t*>(options.common_name.data()),
                             static_cast<ossl_ssize_t>(options.common_name.size()), -1, 0);
  X509_set_issuer_name(x509, issuer ? X509_get_subject_name(issuer->x509.get()) : name);
  X509_set_pubkey(x509, out.key.get());
  AddExtension(x509, NID_basic_constraints, options.basic_constraints);
  AddExtension(x509, NID_key_usage, options.key_usage);
  AddExtension(x509, NID_ext_key_usage, options.extended_key_usage);
  AddExtension(x509, NID_name_constraints, options.name_constraints);
  AddNames(x509, options);
  EVP_PKEY* signer = issuer ? issuer->key.get() : out.key.get();
  const EVP_MD* digest = EVP_PKEY_id(signer) == EVP_PKEY_ED25519 ? nullptr : options.digest;
  EXPECT_TRUE(X509_sign(x509, signer, digest) > 0);
  if (options.break_signature) {
    std::string der = out.der();
    der[der.size() - 3] = static_cast<char>(der[der.size() - 3] ^ 1);
    const auto* at = reinterpret_cast<const uint8_t*>(der.data());
    out.x509.reset(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  }
  return out;
}

inline TestCert MakeRoot(const std::string& name = "test root",
                         CertOptions::Key key = CertOptions::Key::kP256) {
  return MakeCert({.common_name = name,
                   .not_after_seconds = 864000,
                   .key_usage = "critical,keyCertSign,cRLSign",
                   .extended_key_usage = "",
                   .basic_constraints = "critical,CA:TRUE",
                   .key = key},
                  nullptr);
}

inline CertOptions IntermediateOptions(const std::string& name) {
  return {.common_name = name,
          .not_after_seconds = 864000,
          .key_usage = "critical,keyCertSign,cRLSign",
          .extended_key_usage = "",
          .basic_constraints = "critical,CA:TRUE"};
}

}  // namespace weft::test
