// SPDX-License-Identifier: Apache-2.0
#include "control/identity/x509_build.h"

#include <openssl/asn1.h>
#include <openssl/ec_key.h>
#include <openssl/nid.h>
#include <openssl/x509v3.h>

#include "proxy/base/address.h"

namespace weft::identity {
namespace {

bool PushName(GENERAL_NAMES* names, int type, bssl::UniquePtr<ASN1_STRING> value) {
  bssl::UniquePtr<GENERAL_NAME> name(GENERAL_NAME_new());
  if (!name || !value) return false;
  GENERAL_NAME_set0_value(name.get(), type, value.release());
  return bssl::PushToStack(names, std::move(name));
}

bssl::UniquePtr<ASN1_STRING> MakeString(int type, const void* bytes, size_t length) {
  bssl::UniquePtr<ASN1_STRING> value(ASN1_STRING_type_new(type));
  if (!value || length == 0 ||
      !ASN1_STRING_set(value.get(), bytes, static_cast<ossl_ssize_t>(length)))
    return nullptr;
  return value;
}

bssl::UniquePtr<ASN1_STRING> MakeIp(const IpAddress& ip) {
  const size_t skip = ip.is_v4() ? 12 : 0;
  return MakeString(V_ASN1_OCTET_STRING, ip.bytes.data() + skip, ip.bytes.size() - skip);
}

}  // namespace

bssl::UniquePtr<X509_EXTENSION> MakeSanExtension(const SanNames& names, bool critical) {
  bssl::UniquePtr<GENERAL_NAMES> list(sk_GENERAL_NAME_new_null());
  if (!list) return nullptr;
  for (const std::string& uri : names.uris) {
    if (!PushName(list.get(), GEN_URI, MakeString(V_ASN1_IA5STRING, uri.data(), uri.size())))
      return nullptr;
  }
  for (const std::string& name : names.dns_or_ip) {
    const auto ip = IpAddress::Parse(name);
    auto value = ip ? MakeIp(*ip) : MakeString(V_ASN1_IA5STRING, name.data(), name.size());
    if (!PushName(list.get(), ip ? GEN_IPADD : GEN_DNS, std::move(value))) return nullptr;
  }
  return bssl::UniquePtr<X509_EXTENSION>(
      X509V3_EXT_i2d(NID_subject_alt_name, critical ? 1 : 0, list.get()));
}

std::string BioText(BIO* bio) {
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  if (!BIO_mem_contents(bio, &bytes, &length)) return "";
  return {reinterpret_cast<const char*>(bytes), length};
}

bssl::UniquePtr<EVP_PKEY> MakeP256() {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> pkey(EVP_PKEY_new());
  if (!ec || !pkey || !EC_KEY_generate_key(ec.get()) || !EVP_PKEY_set1_EC_KEY(pkey.get(), ec.get()))
    return nullptr;
  return pkey;
}

}  // namespace weft::identity
