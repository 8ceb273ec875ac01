// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/local_signer.h"

#include <openssl/bio.h>
#include <openssl/digest.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <boost/asio/post.hpp>

namespace weft::tls {

struct LocalSigner::Key {
  bssl::UniquePtr<EVP_PKEY> pkey;
};

absl::StatusOr<std::unique_ptr<LocalSigner>> LocalSigner::Create(
    boost::asio::any_io_executor executor, const std::string& key_pem) {
  bssl::UniquePtr<BIO> bio(
      BIO_new_mem_buf(key_pem.data(), static_cast<ossl_ssize_t>(key_pem.size())));
  auto key = std::make_unique<Key>();
  key->pkey.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key->pkey || EVP_PKEY_id(key->pkey.get()) != EVP_PKEY_EC) {
    return absl::InvalidArgumentError("not an EC private key in PEM");
  }
  return std::unique_ptr<LocalSigner>(new LocalSigner(executor, std::move(key)));
}

LocalSigner::LocalSigner(boost::asio::any_io_executor executor, std::unique_ptr<Key> key)
    : executor_(std::move(executor)), key_(std::move(key)) {}
LocalSigner::~LocalSigner() = default;

void LocalSigner::Sign(std::string_view, uint64_t, std::span<const uint8_t> input, Done done) {
  std::vector<uint8_t> signature(128);  // DER ECDSA P-256 is at most 72
  size_t length = signature.size();
  bssl::ScopedEVP_MD_CTX context;
  const bool ok =
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_->pkey.get()) &&
      EVP_DigestSign(context.get(), signature.data(), &length, input.data(), input.size());
  signature.resize(ok ? length : 0);
  boost::asio::post(executor_,
                    [ok, signature = std::move(signature), done = std::move(done)]() mutable {
                      done(ok, std::move(signature));
                    });
}

}  // namespace weft::tls
