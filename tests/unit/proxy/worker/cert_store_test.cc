// SPDX-License-Identifier: Apache-2.0
// What becomes of a worker's TLS contexts when certificates and roots change, for the worse too.
#include "proxy/worker/cert_store.h"

#include <gtest/gtest.h>

#include "proxy/base/task.h"
#include "proxy/tls/local_signer.h"
#include "tests/support/cert_factory.h"

namespace weft::worker {
namespace {

const char kAlice[] = "spiffe://cluster.local/ns/prod/sa/alice";

class CertStoreTest : public testing::Test {
 protected:
  CertStoreTest() { Adopt(); }
  void Adopt() {
    model::Snapshot snapshot;
    if (roots_ != bundled_) {
      bundles_.clear();
      for (const auto& [domain, roots] : roots_) {
        bundles_[domain] = std::make_shared<model::TrustBundle>(
            model::TrustBundle{.trust_domain = domain, .roots = roots});
      }
      bundled_ = roots_;
    }
    snapshot.trust_bundles.insert(bundles_.begin(), bundles_.end());
    auto certificate = std::make_shared<model::Certificate>();
    certificate->identity = kAlice;
    certificate->chain = {chain_};
    snapshot.certificates[kAlice] = certificate;
    store_.Adopt(snapshot);
  }

  asio::io_context io_{1};
  test::TestCert root_ = test::MakeRoot();
  test::TestCert cert_ = test::MakeCert({.uris = {kAlice}}, &root_);
  std::unique_ptr<tls::LocalSigner> signer_ =
      *tls::LocalSigner::Create(io_.get_executor(), cert_.key_pem());
  std::map<std::string, std::vector<std::string>> roots_ = {{"cluster.local", {root_.der()}}};
  std::map<std::string, std::vector<std::string>> bundled_;
  std::map<std::string, std::shared_ptr<const model::TrustBundle>> bundles_;
  std::string chain_ = cert_.der();
  CertStore store_{signer_.get()};
};

TEST_F(CertStoreTest, ABadRenewalLeavesTheOneBefore) {
  auto before = store_.Find(kAlice);
  ASSERT_NE(before, nullptr);
  chain_ = "garbage";
  Adopt();
  EXPECT_EQ(store_.Find(kAlice), before);
}

TEST_F(CertStoreTest, RootsThatCannotBeUsedAreNotReplacedByThoseBefore) {
  for (std::vector<std::string> roots : {std::vector<std::string>{"garbage"}, {}}) {
    roots_["cluster.local"] = roots;
    Adopt();
    EXPECT_EQ(store_.Find(kAlice), nullptr);
    EXPECT_EQ(store_.WhyNot(kAlice), WEFT_R_CERT_UNTRUSTED);
    roots_["cluster.local"] = {root_.der()};
    Adopt();
    EXPECT_NE(store_.Find(kAlice), nullptr);
  }
}

TEST_F(CertStoreTest, ABundleThatIsGoneIsRevoked) {
  roots_.clear();
  Adopt();
  EXPECT_EQ(store_.Find(kAlice), nullptr);
  EXPECT_EQ(store_.WhyNot(kAlice), WEFT_R_CERT_UNTRUSTED);
  EXPECT_EQ(store_.WhyNot("spiffe://cluster.local/ns/prod/sa/bob"), WEFT_R_NO_CERTIFICATE);
}

TEST_F(CertStoreTest, OneBadTrustDomainIsNoHarmToTheOthers) {
  auto before = store_.Find(kAlice);
  roots_["other.example"] = {"garbage"};
  Adopt();
  EXPECT_NE(store_.Find(kAlice), nullptr);
  EXPECT_NE(store_.Find(kAlice), before);
}

TEST_F(CertStoreTest, NewRootsAndABadRenewalTogether) {
  auto before = store_.Find(kAlice);
  roots_["cluster.local"] = {test::MakeRoot().der()};
  chain_ = "garbage";
  Adopt();
  auto after = store_.Find(kAlice);
  EXPECT_NE(after, nullptr);  // the certificate before, the roots of today
  EXPECT_NE(after, before);
}

}  // namespace
}  // namespace weft::worker
