// SPDX-License-Identifier: Apache-2.0
#include "control/identity/ca.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "control/identity/keyd.h"
#include "proxy/net/stream_pair.h"
#include "proxy/tls/local_signer.h"
#include "proxy/tls/tls_stream.h"
#include "tests/support/cert_factory.h"
#include "tests/support/run_task.h"

namespace weft::identity {
namespace {

using std::chrono::seconds;

constexpr char kId[] = "spiffe://td/ns/shop/sa/api";

struct CsrOptions {
  std::vector<std::string> uris = {kId};
  std::vector<std::string> dns;
  test::CertOptions::Key key = test::CertOptions::Key::kP256;
  bool break_signature = false;
  bool no_san = false;
};

struct Csr {
  std::string pem, key_pem;
};

Csr MakeCsr(const CsrOptions& options) {
  // A certificate of the factory has the names; the request copies its extension.
  const auto names =
      test::MakeCert({.uris = options.uris, .dns = options.dns, .key = options.key}, nullptr);
  bssl::UniquePtr<X509_REQ> csr(X509_REQ_new());
  X509_REQ_set_version(csr.get(), X509_REQ_VERSION_1);
  X509_REQ_set_pubkey(csr.get(), names.key.get());
  if (!options.no_san) {
    bssl::UniquePtr<STACK_OF(X509_EXTENSION)> extensions(sk_X509_EXTENSION_new_null());
    const int at = X509_get_ext_by_NID(names.x509.get(), NID_subject_alt_name, -1);
    if (at >= 0)
      sk_X509_EXTENSION_push(extensions.get(),
                             X509_EXTENSION_dup(X509_get_ext(names.x509.get(), at)));
    X509_REQ_add_extensions(csr.get(), extensions.get());
  }
  const auto other = test::MakeKey(test::CertOptions::Key::kP256);
  EVP_PKEY* signer = options.break_signature ? other.get() : names.key.get();
  EXPECT_TRUE(X509_REQ_sign(csr.get(), signer,
                            EVP_PKEY_id(signer) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256()) > 0);
  bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(bio.get(), csr.get());
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  BIO_mem_contents(bio.get(), &bytes, &length);
  return {.pem = {reinterpret_cast<const char*>(bytes), length}, .key_pem = names.key_pem()};
}

std::unique_ptr<CertificateAuthority> NewCa() {
  auto ca = CertificateAuthority::Create("td");
  EXPECT_TRUE(ca.ok()) << ca.status().ToString();
  return std::move(*ca);
}

TEST(CertificateAuthority, RefusesOtherRequests) {
  const auto ca = NewCa();
  const std::vector<std::pair<const char*, CsrOptions>> bad = {
      {"another identity", {.uris = {"spiffe://td/ns/shop/sa/admin"}}},
      {"another trust domain", {.uris = {"spiffe://other/ns/shop/sa/api"}}},
      {"two uris", {.uris = {kId, "spiffe://td/ns/shop/sa/admin"}}},
      {"a dns name too", {.dns = {"api.shop.svc"}}},
      {"dns only", {.uris = {}, .dns = {"api.shop.svc"}}},
      {"no names", {.no_san = true}},
      {"nul", {.uris = {std::string(kId) + std::string("\0x", 2)}}},
      {"wrong signature", {.break_signature = true}},
      {"rsa key", {.key = test::CertOptions::Key::kRsa2048}},
      {"p-384 key", {.key = test::CertOptions::Key::kP384}},
      {"ed25519 key", {.key = test::CertOptions::Key::kEd25519}},
  };
  for (const auto& [name, options] : bad) {
    const auto chain = ca->SignCsr(MakeCsr(options).pem, kId, seconds(3600));
    EXPECT_FALSE(chain.ok()) << name;
  }
  EXPECT_FALSE(ca->SignCsr("", kId, seconds(3600)).ok());
  EXPECT_FALSE(ca->SignCsr(std::string(100000, 'x'), kId, seconds(3600)).ok());
  EXPECT_FALSE(ca->SignCsr(MakeCsr({}).pem, "not an id", seconds(3600)).ok());
  EXPECT_FALSE(ca->SignCsr(MakeCsr({}).pem, kId, seconds(0)).ok());
  EXPECT_TRUE(ca->SignCsr(MakeCsr({}).pem, kId, seconds(3600)).ok());
}

TEST(CertificateAuthority, LeafIsAnSvid) {
  const auto ca = NewCa();
  const auto chain = ca->SignCsr(MakeCsr({}).pem, kId, seconds(3600));
  ASSERT_TRUE(chain.ok()) << chain.status().ToString();
  ASSERT_EQ(chain->pem.size(), 2u);
  EXPECT_EQ(chain->pem[1], ca->root_pem());
  const auto ders = tls::CertificatesFromPem(chain->pem[0]);
  ASSERT_TRUE(ders.ok());
  const auto info = tls::InspectCertificate(ders->front());
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->spiffe_id, kId);
  EXPECT_EQ(info->not_before, chain->not_before);
  EXPECT_EQ(info->not_after, chain->not_after);
  EXPECT_EQ(chain->not_after - chain->not_before, 3660);
  const auto again = ca->SignCsr(MakeCsr({}).pem, kId, seconds(3600));
  EXPECT_NE(tls::InspectCertificate(tls::CertificatesFromPem(again->pem[0])->front())->serial_hex,
            info->serial_hex);
}

TEST(CertificateAuthority, LeavesDoNotOutliveTheRoot) {
  auto ca = CertificateAuthority::Create("td", seconds(100));
  ASSERT_TRUE(ca.ok());
  const auto chain = (*ca)->SignCsr(MakeCsr({}).pem, kId, seconds(3600));
  ASSERT_TRUE(chain.ok());
  EXPECT_LE(chain->not_after - chain->not_before, 160);
  auto dead = CertificateAuthority::Create("td", seconds(0));
  EXPECT_FALSE((*dead)->SignCsr(MakeCsr({}).pem, kId, seconds(3600)).ok());
  for (const char* domain : {"", "TD", "a/b", "a b"})
    EXPECT_FALSE(CertificateAuthority::Create(domain).ok()) << domain;
}

Task<void> Connect(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                   std::shared_ptr<const tls::TlsContext> context, tls::HandshakeResult& out) {
  auto result = co_await tls::TlsConnect(executor, std::move(transport), context, {});
  out = std::move(result);
}
Task<void> Accept(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                  std::shared_ptr<const tls::TlsContext> context, tls::HandshakeResult& out) {
  auto result = co_await tls::TlsAccept(executor, std::move(transport), context);
  out = std::move(result);
}

TEST(CertificateAuthority, ItsCertificatesWorkInAHandshake) {
  const auto ca = NewCa();
  test::TaskRunner runner;
  const Csr csr = MakeCsr({});
  const auto chain = ca->SignCsr(csr.pem, kId, seconds(3600));
  ASSERT_TRUE(chain.ok());
  auto signer = tls::LocalSigner::Create(runner.executor(), csr.key_pem);
  ASSERT_TRUE(signer.ok());
  auto mesh =
      tls::TlsContext::Mesh({.identity = kId,
                             .chain_der = {tls::CertificatesFromPem(chain->pem[0])->front()},
                             .trust = {{"td", {ca->root_der()}}},
                             .signer = signer->get()});
  ASSERT_TRUE(mesh.ok());
  auto [a, b] = net::MakeStreamPair(runner.executor());
  tls::HandshakeResult client, server;
  runner.Spawn(Connect(runner.executor(), std::move(a), *mesh, client));
  runner.Spawn(Accept(runner.executor(), std::move(b), *mesh, server));
  runner.Run();
  ASSERT_NE(client.stream, nullptr) << ReasonName(client.reason) << client.detail;
  EXPECT_EQ(server.peer_identity, kId);

  auto issued = ca->IssueServerCertificate({"weft-control", "10.1.2.3", "::1"},
                                           "spiffe://td/weft/control", seconds(3600));
  ASSERT_TRUE(issued.ok());
  auto control =
      tls::TlsContext::Server({.chain_pem = issued->chain_pem, .key_pem = issued->key_pem});
  ASSERT_TRUE(control.ok());
  for (const char* name : {"weft-control", "10.1.2.3", "::1"}) {
    auto node = tls::TlsContext::Client({.roots_pem = ca->root_pem(), .server_name = name});
    ASSERT_TRUE(node.ok());
    auto [c, d] = net::MakeStreamPair(runner.executor());
    runner.Spawn(Connect(runner.executor(), std::move(c), *node, client));
    runner.Spawn(Accept(runner.executor(), std::move(d), *control, server));
    runner.Run();
    EXPECT_NE(client.stream, nullptr) << name << ReasonName(client.reason) << client.detail;
  }
}

class CaFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "weft_ca_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern + "/state";
  }
  void TearDown() override {
    std::filesystem::remove_all(std::filesystem::path(directory_).parent_path());
  }
  std::string directory_;
};

TEST_F(CaFilesTest, MadeOnceAndLoadedAgain) {
  auto first = CertificateAuthority::LoadOrCreate(directory_, "td");
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  struct stat info{};
  ASSERT_EQ(stat((directory_ + "/root-key.pem").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  auto second = CertificateAuthority::LoadOrCreate(directory_, "td");
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_EQ((*first)->root_pem(), (*second)->root_pem());
  EXPECT_TRUE((*second)->SignCsr(MakeCsr({}).pem, kId, seconds(60)).ok());
}

TEST_F(CaFilesTest, RefusesAReadableOrMissingOrForeignKey) {
  ASSERT_TRUE(CertificateAuthority::LoadOrCreate(directory_, "td").ok());
  const std::string key = directory_ + "/root-key.pem";
  ASSERT_EQ(chmod(key.c_str(), 0640), 0);
  EXPECT_FALSE(CertificateAuthority::LoadOrCreate(directory_, "td").ok());
  ASSERT_EQ(chmod(key.c_str(), 0600), 0);
  EXPECT_TRUE(CertificateAuthority::LoadOrCreate(directory_, "td").ok());
  const auto other = test::MakeRoot();
  std::ofstream(key) << other.key_pem();
  EXPECT_FALSE(CertificateAuthority::LoadOrCreate(directory_, "td").ok());
  std::filesystem::remove(key);
  EXPECT_FALSE(CertificateAuthority::LoadOrCreate(directory_, "td").ok());
}

TEST(CertificateAuthority, SignsWhatKeydAsksFor) {
  Keyd keyd;
  // The request's layout: proxy/ipc/keyd_protocol.h. 16 is kGenerate.
  const std::string id = kId;
  std::vector<uint8_t> packet(32 + id.size());
  packet[0] = 1;
  packet[4] = 16;
  packet[24] = static_cast<uint8_t>(id.size());
  std::copy(id.begin(), id.end(), packet.begin() + 32);
  const auto answer = keyd.Handle(Keyd::Channel::kControl, 0, packet);
  ASSERT_GT(answer.bytes.size(), 24u);
  const std::string csr(answer.bytes.begin() + 24, answer.bytes.end());
  const auto chain = NewCa()->SignCsr(csr, kId, seconds(60));
  EXPECT_TRUE(chain.ok()) << chain.status().ToString();
}

}  // namespace
}  // namespace weft::identity
