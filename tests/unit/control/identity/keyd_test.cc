// SPDX-License-Identifier: Apache-2.0
// What weft-keyd does for whom: facts/security.md F3 asks that an exploited proxy gets nothing
// else.
#include "control/identity/keyd.h"

#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "proxy/ipc/keyd_protocol.h"

namespace weft::identity {
namespace {

using ipc::KeydAnswer;
using ipc::KeydOp;
using ipc::KeydRequest;
using Channel = Keyd::Channel;

constexpr char kId[] = "spiffe://td/ns/shop/sa/api";
constexpr char kOtherId[] = "spiffe://td/ns/shop/sa/admin";

struct Reply {
  KeydAnswer answer;
  std::string body;
  bool refused = false;
};

std::vector<uint8_t> Packet(KeydOp op, std::string_view identity, std::string_view body,
                            uint64_t key_id, uint32_t tenant) {
  KeydRequest request;
  request.op = op;
  request.id = 42;
  request.tenant = tenant;
  request.key_id = key_id;
  request.identity_bytes = static_cast<uint32_t>(identity.size());
  request.body_bytes = static_cast<uint32_t>(body.size());
  std::string bytes(reinterpret_cast<const char*>(&request), sizeof request);
  bytes += identity;
  bytes += body;
  return {bytes.begin(), bytes.end()};
}

std::string VerifyInput(std::string_view side, size_t hash_bytes) {
  std::string input(64, ' ');
  input += "TLS 1.3, " + std::string(side) + " CertificateVerify";
  input += '\0';
  return input + std::string(hash_bytes, '\x5a');
}

class KeydTest : public testing::Test {
 protected:
  Reply Ask(Channel channel, uint32_t tenant, const std::vector<uint8_t>& packet) {
    const Keyd::Answer answer = keyd_.Handle(channel, tenant, packet);
    Reply reply{.refused = answer.refused};
    EXPECT_GE(answer.bytes.size(), sizeof reply.answer);
    if (answer.bytes.size() < sizeof reply.answer) return reply;
    memcpy(&reply.answer, answer.bytes.data(), sizeof reply.answer);
    reply.body.assign(answer.bytes.begin() + sizeof reply.answer, answer.bytes.end());
    EXPECT_EQ(reply.answer.body_bytes, reply.body.size());
    EXPECT_EQ(reply.answer.id, 42u);
    return reply;
  }
  Reply Control(KeydOp op, std::string_view identity, uint64_t key_id = 0, uint32_t tenant = 0) {
    return Ask(Channel::kControl, 0, Packet(op, identity, {}, key_id, tenant));
  }
  Reply Sign(uint32_t tenant, std::string_view identity, uint64_t key_id, std::string_view input) {
    return Ask(Channel::kSigner, tenant, Packet(KeydOp::kSign, identity, input, key_id, 0));
  }
  Keyd keyd_;
};

TEST_F(KeydTest, SignsForWhomItIsGranted) {
  const Reply made = Control(KeydOp::kGenerate, kId);
  ASSERT_EQ(made.answer.error, 0);
  ASSERT_NE(made.answer.key_id, 0u);
  ASSERT_EQ(Control(KeydOp::kGrant, kId, made.answer.key_id, 7).answer.error, 0);

  bssl::UniquePtr<BIO> bio(
      BIO_new_mem_buf(made.body.data(), static_cast<ossl_ssize_t>(made.body.size())));
  bssl::UniquePtr<X509_REQ> csr(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
  ASSERT_TRUE(csr);
  bssl::UniquePtr<EVP_PKEY> key(X509_REQ_get_pubkey(csr.get()));
  EXPECT_EQ(X509_REQ_verify(csr.get(), key.get()), 1);

  for (const auto& [side, hash] :
       {std::pair<const char*, size_t>{"server", 32}, {"client", 32}, {"server", 48}}) {
    const std::string input = VerifyInput(side, hash);
    const Reply reply = Sign(7, kId, made.answer.key_id, input);
    ASSERT_EQ(reply.answer.error, 0);
    bssl::ScopedEVP_MD_CTX context;
    ASSERT_TRUE(EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()));
    EXPECT_TRUE(EVP_DigestVerify(context.get(), reinterpret_cast<const uint8_t*>(reply.body.data()),
                                 reply.body.size(), reinterpret_cast<const uint8_t*>(input.data()),
                                 input.size()));
  }
  const Reply status = Control(KeydOp::kStatus, "");
  EXPECT_NE(status.body.find("\"signatures\":3,\"refused\":0,\"too_often\":0,\"key_count\":1"),
            std::string::npos)
      << status.body;
}

TEST_F(KeydTest, RefusesWhatAnExploitedProxyMightAsk) {
  const uint64_t mine = Control(KeydOp::kGenerate, kId).answer.key_id;
  const uint64_t other = Control(KeydOp::kGenerate, kOtherId).answer.key_id;
  ASSERT_EQ(Control(KeydOp::kGrant, kId, mine, 7).answer.error, 0);
  ASSERT_EQ(Control(KeydOp::kGrant, kOtherId, other, 8).answer.error, 0);
  const std::string good = VerifyInput("client", 32);
  std::string no_zero = good;
  no_zero[64 + 33] = 'x';
  struct Case {
    const char* name;
    uint32_t tenant;
    const char* identity;
    uint64_t key_id;
    std::string input;
    int error;
  };
  const std::vector<Case> cases = {
      {"another tenant's key", 7, kOtherId, other, good, EPERM},
      {"another tenant", 8, kId, mine, good, EPERM},
      {"no tenant", 0, kId, mine, good, EPERM},
      {"own key in another's name", 7, kOtherId, mine, good, EPERM},
      {"another's key in the own name", 7, kId, other, good, EPERM},
      {"a key that does not exist", 7, kId, 999, good, EPERM},
      {"nothing", 7, kId, mine, "", EINVAL},
      {"arbitrary bytes", 7, kId, mine, std::string(130, 'a'), EINVAL},
      {"one space too few", 7, kId, mine, good.substr(1), EINVAL},
      {"another context", 7, kId, mine,
       std::string(64, ' ') + "TLS 1.3, server CertificateVerifx" + std::string(33, '\0'), EINVAL},
      {"no zero", 7, kId, mine, no_zero, EINVAL},
      {"sha-1 length", 7, kId, mine, VerifyInput("server", 20), EINVAL},
      {"one byte more", 7, kId, mine, VerifyInput("server", 33), EINVAL},
      {"sha-512 length", 7, kId, mine, VerifyInput("server", 64), EINVAL},
      {"no hash", 7, kId, mine, VerifyInput("server", 0), EINVAL},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    const Reply reply = Sign(test.tenant, test.identity, test.key_id, test.input);
    EXPECT_EQ(reply.answer.error, test.error);
    EXPECT_TRUE(reply.refused);
    EXPECT_TRUE(reply.body.empty());
  }
  for (const KeydOp op :
       {KeydOp::kGenerate, KeydOp::kGrant, KeydOp::kForget, KeydOp::kNewChannel, KeydOp::kStatus}) {
    const Reply reply = Ask(Channel::kSigner, 7, Packet(op, kId, {}, other, 7));
    EXPECT_EQ(reply.answer.error, EPERM);
    EXPECT_TRUE(reply.refused);
  }
  EXPECT_EQ(keyd_.key_count(), 2u);
  EXPECT_EQ(Sign(7, kId, mine, good).answer.error, 0);
}

TEST_F(KeydTest, ForgottenKeysSignNothing) {
  const uint64_t key = Control(KeydOp::kGenerate, kId).answer.key_id;
  Control(KeydOp::kGrant, kId, key, 7);
  EXPECT_EQ(Control(KeydOp::kForget, "", key).answer.error, 0);
  EXPECT_EQ(Control(KeydOp::kForget, "", key).answer.error, ENOENT);
  EXPECT_EQ(Sign(7, kId, key, VerifyInput("server", 32)).answer.error, EPERM);
  EXPECT_EQ(keyd_.key_count(), 0u);
  EXPECT_GT(Control(KeydOp::kGenerate, kId).answer.key_id, key);  // a number is never used twice
}

TEST_F(KeydTest, ControlRefusesNonsense) {
  EXPECT_EQ(Control(KeydOp::kGenerate, "").answer.error, EINVAL);
  EXPECT_EQ(Control(KeydOp::kGenerate, "spiffe://TD/x").answer.error, EINVAL);
  EXPECT_EQ(Control(KeydOp::kGenerate, "spiffe://td/a\"b").answer.error, EINVAL);
  const uint64_t key = Control(KeydOp::kGenerate, kId).answer.key_id;
  EXPECT_EQ(Control(KeydOp::kGrant, kOtherId, key, 7).answer.error, EPERM);
  EXPECT_EQ(Control(KeydOp::kGrant, kId, key + 1, 7).answer.error, ENOENT);
  EXPECT_EQ(Control(KeydOp::kSign, kId, key).answer.error, EPERM);
  EXPECT_EQ(Control(static_cast<KeydOp>(99), kId).answer.error, EPERM);
}

TEST_F(KeydTest, MalformedPacketsEndTheChannel) {
  const auto good = Packet(KeydOp::kSign, kId, VerifyInput("server", 32), 1, 0);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_TRUE(keyd_.Handle(Channel::kSigner, 7, std::span(good).first(size)).bytes.empty())
        << size;
  }
  auto longer = good;
  longer.push_back(0);
  EXPECT_TRUE(keyd_.Handle(Channel::kSigner, 7, longer).bytes.empty());
  for (const size_t field : {offsetof(KeydRequest, version), offsetof(KeydRequest, identity_bytes),
                             offsetof(KeydRequest, body_bytes)}) {
    auto bad = good;
    memset(bad.data() + field, 0xff, 4);
    EXPECT_TRUE(keyd_.Handle(Channel::kSigner, 7, bad).bytes.empty()) << field;
  }
}

TEST_F(KeydTest, RandomPacketsDoNoHarm) {
  uint32_t seed = 1;
  const auto good = Packet(KeydOp::kGenerate, kId, "", 1, 0);
  for (int i = 0; i < 20000; ++i) {
    auto packet = good;
    for (int flips = 0; flips < 3; ++flips) {
      seed = seed * 1664525 + 1013904223;
      packet[(seed >> 8) % packet.size()] = static_cast<uint8_t>(seed >> 24);
    }
    if (packet[4] == 16) continue;  // making keys is slow, and tested above
    (void)keyd_.Handle(i % 2 ? Channel::kControl : Channel::kSigner, 7, packet);
  }
  EXPECT_EQ(keyd_.key_count(), 0u);
}

}  // namespace
}  // namespace weft::identity
