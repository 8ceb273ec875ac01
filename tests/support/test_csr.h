// SPDX-License-Identifier: Apache-2.0
// A P-256 key and a certificate request for a SPIFFE id, for tests of those who sign and those who
// ask. Needs weft::boringssl.
#pragma once
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/stack.h>
#include <openssl/x509.h>

#include <string>

#include "tests/support/cert_factory.h"

namespace weft::test {

struct TestCsr {
  std::string csr_pem, key_pem;
};

inline std::string BioText(BIO* bio) {
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  BIO_mem_contents(bio, &bytes, &length);
  return {reinterpret_cast<const char*>(bytes), length};
}

inline TestCsr MakeTestCsr(const std::string& spiffe_id) {
  const bssl::UniquePtr<EVP_PKEY> key = MakeKey(CertOptions::Key::kP256);
  const bssl::UniquePtr<X509_REQ> request(X509_REQ_new());
  X509_REQ_set_version(request.get(), X509_REQ_VERSION_1);
  X509_REQ_set_pubkey(request.get(), key.get());
  const bssl::UniquePtr<STACK_OF(X509_EXTENSION)> extensions(sk_X509_EXTENSION_new_null());
  const std::string san = "URI:" + spiffe_id;
  sk_X509_EXTENSION_push(extensions.get(),
                         X509V3_EXT_nconf_nid(nullptr, nullptr, NID_subject_alt_name, san.c_str()));
  X509_REQ_add_extensions(request.get(), extensions.get());
  EXPECT_GT(X509_REQ_sign(request.get(), key.get(), EVP_sha256()), 0);
  TestCsr out;
  const bssl::UniquePtr<BIO> csr(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(csr.get(), request.get());
  out.csr_pem = BioText(csr.get());
  const bssl::UniquePtr<BIO> pem(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(pem.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  out.key_pem = BioText(pem.get());
  return out;
}

}  // namespace weft::test
