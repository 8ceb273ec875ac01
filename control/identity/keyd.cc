// SPDX-License-Identifier: Apache-2.0
#include "control/identity/keyd.h"

#include <openssl/bio.h>
#include <openssl/digest.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string_view>

#include "control/identity/x509_build.h"
#include "proxy/ipc/keyd_protocol.h"
#include "proxy/tls/spiffe.h"

namespace weft::identity {

using ipc::KeydAnswer;
using ipc::KeydOp;
using ipc::KeydRequest;

namespace {

constexpr size_t kMaxKeys = 16384;  // two of each of 8192 identities of a node, during renewal
constexpr size_t kMaxStatusBytes = 7 * 1024;  // an answer is one packet

struct Key {
  std::string identity;
  bssl::UniquePtr<EVP_PKEY> pkey;  // BoringSSL overwrites what it frees
  std::set<uint32_t> tenants;
};

struct Parsed {
  KeydRequest request;
  std::string_view identity;
  std::span<const uint8_t> body;
};

// False unless the packet is exactly as long as its own fields say.
bool Parse(std::span<const uint8_t> packet, Parsed* out) {
  if (packet.size() < sizeof out->request || packet.size() > ipc::kMaxKeydPacket) return false;
  memcpy(&out->request, packet.data(), sizeof out->request);
  const KeydRequest& request = out->request;
  const uint64_t rest = packet.size() - sizeof request;
  if (request.version != ipc::kKeydVersion || request.identity_bytes > ipc::kMaxIdentityBytes)
    return false;
  if (uint64_t{request.identity_bytes} + request.body_bytes != rest) return false;
  const auto* text = reinterpret_cast<const char*>(packet.data()) + sizeof request;
  out->identity = {text, request.identity_bytes};
  out->body = packet.subspan(sizeof request + request.identity_bytes);
  return true;
}

// A PEM CSR with `identity` as its only name; empty on failure.
std::string MakeCsr(EVP_PKEY* pkey, std::string_view identity) {
  bssl::UniquePtr<X509_REQ> csr(X509_REQ_new());
  bssl::UniquePtr<X509_EXTENSION> names = MakeSanExtension({.uris = {std::string(identity)}}, true);
  bssl::UniquePtr<STACK_OF(X509_EXTENSION)> extensions(sk_X509_EXTENSION_new_null());
  if (!csr || !names || !extensions || !bssl::PushToStack(extensions.get(), std::move(names)))
    return "";
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  const bool ok = bio && X509_REQ_set_version(csr.get(), X509_REQ_VERSION_1) &&
                  X509_REQ_set_pubkey(csr.get(), pkey) &&
                  X509_REQ_add_extensions(csr.get(), extensions.get()) &&
                  X509_REQ_sign(csr.get(), pkey, EVP_sha256()) > 0 &&
                  PEM_write_bio_X509_REQ(bio.get(), csr.get());
  return ok ? BioText(bio.get()) : "";
}

std::vector<uint8_t> SignEcdsa(EVP_PKEY* pkey, std::span<const uint8_t> input) {
  std::vector<uint8_t> signature(128);  // DER ECDSA P-256 is at most 72
  size_t length = signature.size();
  bssl::ScopedEVP_MD_CTX context;
  const bool ok =
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, pkey) &&
      EVP_DigestSign(context.get(), signature.data(), &length, input.data(), input.size());
  signature.resize(ok ? length : 0);
  return signature;
}

Keyd::Answer Encode(const KeydRequest& request, KeydAnswer answer, std::span<const uint8_t> body) {
  answer.version = ipc::kKeydVersion;
  answer.id = request.id;
  answer.body_bytes = static_cast<uint32_t>(body.size());
  Keyd::Answer out;
  out.bytes.resize(sizeof answer + body.size());
  memcpy(out.bytes.data(), &answer, sizeof answer);
  if (!body.empty()) memcpy(out.bytes.data() + sizeof answer, body.data(), body.size());
  return out;
}

Keyd::Answer Error(const KeydRequest& request, int error) {
  return Encode(request, {.error = error}, {});
}

std::span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

struct Keyd::Core {
  std::map<uint64_t, Key> keys;
  uint64_t next_key_id = 1;
  uint64_t signatures = 0;
  uint64_t refused = 0;
  uint64_t too_often = 0;

  Answer Sign(uint32_t tenant, const Parsed& in);
  Answer Generate(const Parsed& in);
  Answer Grant(const Parsed& in);
  Answer Status(const Parsed& in) const;
};

Keyd::Answer Keyd::Core::Sign(uint32_t tenant, const Parsed& in) {
  const auto found = keys.find(in.request.key_id);
  const bool granted = found != keys.end() && found->second.identity == in.identity &&
                       found->second.tenants.contains(tenant);
  // Whether a key exists is nobody's business who may not use it.
  const int error = !granted ? EPERM : !IsCertificateVerifyInput(in.body) ? EINVAL : 0;
  if (error != 0) {
    ++refused;
    Answer answer = Error(in.request, error);
    answer.refused = true;
    return answer;
  }
  const std::vector<uint8_t> signature = SignEcdsa(found->second.pkey.get(), in.body);
  if (signature.empty()) return Error(in.request, EIO);
  ++signatures;
  return Encode(in.request, {.key_id = in.request.key_id}, signature);
}

Keyd::Answer Keyd::Core::Generate(const Parsed& in) {
  if (!tls::IsValidSpiffeId(in.identity)) return Error(in.request, EINVAL);
  if (keys.size() >= kMaxKeys) return Error(in.request, ENOSPC);
  Key key{.identity = std::string(in.identity), .pkey = MakeP256(), .tenants = {}};
  if (!key.pkey) return Error(in.request, EIO);
  const std::string csr = MakeCsr(key.pkey.get(), in.identity);
  if (csr.empty() || csr.size() + sizeof(KeydAnswer) > ipc::kMaxKeydPacket)
    return Error(in.request, EIO);
  const uint64_t key_id = next_key_id++;
  keys.emplace(key_id, std::move(key));
  return Encode(in.request, {.key_id = key_id}, BytesOf(csr));
}

Keyd::Answer Keyd::Core::Grant(const Parsed& in) {
  const auto found = keys.find(in.request.key_id);
  if (found == keys.end()) return Error(in.request, ENOENT);
  if (found->second.identity != in.identity) return Error(in.request, EPERM);
  found->second.tenants.insert(in.request.tenant);
  return Error(in.request, 0);
}

Keyd::Answer Keyd::Core::Status(const Parsed& in) const {
  // Identities are valid SPIFFE ids, so nothing needs escaping.
  std::string text = "{\"signatures\":" + std::to_string(signatures) +
                     ",\"refused\":" + std::to_string(refused) +
                     ",\"too_often\":" + std::to_string(too_often) +
                     ",\"key_count\":" + std::to_string(keys.size()) + ",\"keys\":[";
  bool first = true;
  for (const auto& [key_id, key] : keys) {
    std::string entry =
        "{\"identity\":\"" + key.identity + "\",\"key_id\":" + std::to_string(key_id) + "}";
    if (text.size() + entry.size() + 3 > kMaxStatusBytes) break;
    text += (first ? "" : ",") + entry;
    first = false;
  }
  return Encode(in.request, {}, BytesOf(text + "]}"));
}

Keyd::Keyd() : core_(std::make_unique<Core>()) {}
Keyd::~Keyd() = default;

size_t Keyd::key_count() const { return core_->keys.size(); }

Keyd::Answer Keyd::Handle(Channel channel, uint32_t tenant, std::span<const uint8_t> packet) {
  Parsed in;
  if (!Parse(packet, &in)) return {};
  if (channel == Channel::kSigner) {
    if (in.request.op == KeydOp::kSign) return core_->Sign(tenant, in);
    ++core_->refused;
    Answer answer = Error(in.request, EPERM);
    answer.refused = true;
    return answer;
  }
  switch (in.request.op) {
    case KeydOp::kGenerate:
      return core_->Generate(in);
    case KeydOp::kGrant:
      return core_->Grant(in);
    case KeydOp::kForget:
      return Error(in.request, core_->keys.erase(in.request.key_id) == 1 ? 0 : ENOENT);
    case KeydOp::kNewChannel: {
      Answer answer = Error(in.request, 0);
      answer.wants_channel = true;
      answer.tenant = in.request.tenant;
      return answer;
    }
    case KeydOp::kStatus:
      return core_->Status(in);
    default:
      return Error(in.request, EPERM);  // the control channel gets no signatures either
  }
}

Keyd::Answer Keyd::RefuseTooOften(std::span<const uint8_t> packet) {
  Parsed in;
  if (!Parse(packet, &in)) return {};
  ++core_->too_often;
  Answer answer = Error(in.request, EBUSY);
  answer.refused = true;
  return answer;
}

bool IsCertificateVerifyInput(std::span<const uint8_t> input) {
  constexpr size_t kSpaces = 64;
  constexpr std::string_view kContexts[] = {"TLS 1.3, server CertificateVerify",
                                            "TLS 1.3, client CertificateVerify"};
  if (input.size() < kSpaces) return false;
  for (size_t i = 0; i < kSpaces; ++i) {
    if (input[i] != 0x20) return false;
  }
  const std::string_view rest(reinterpret_cast<const char*>(input.data()) + kSpaces,
                              input.size() - kSpaces);
  for (const std::string_view context : kContexts) {
    if (!rest.starts_with(context)) continue;
    const std::string_view tail = rest.substr(context.size());
    return !tail.empty() && tail[0] == '\0' && (tail.size() == 1 + 32 || tail.size() == 1 + 48);
  }
  return false;
}

}  // namespace weft::identity
