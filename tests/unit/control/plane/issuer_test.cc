// SPDX-License-Identifier: Apache-2.0
// Who gets which certificate, and which tokens count.
#include "control/plane/issuer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "proxy/tls/tls_context.h"
#include "tests/support/test_csr.h"
#include "xds/decode/ca_messages.h"

namespace weft::plane {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kNode[] = "spiffe://cluster.local/weft/node/node-a";
constexpr char kWeb[] = "spiffe://cluster.local/ns/demo/sa/web";
constexpr char kToken[] = "0123456789abcdef-a";

class TokenTest : public ::testing::Test {
 protected:
  TokenTest() {
    std::string path = (fs::temp_directory_path() / "plane-tokens-XXXXXX").string();
    dir_ = mkdtemp(path.data());
    file_ = dir_ + "/tokens";
  }
  ~TokenTest() override { fs::remove_all(dir_); }
  void Write(const std::string& text, mode_t mode = 0600) {
    std::ofstream(file_) << text;
    ASSERT_EQ(chmod(file_.c_str(), mode), 0);
  }
  std::string dir_, file_;
};

TEST_F(TokenTest, EachTokenAdmitsItsNode) {
  Write("# nodes\n\nnode-a 0123456789abcdef-a\n  node-b\t0123456789abcdef-b \r\n");
  JoinTokens tokens(file_);
  ASSERT_TRUE(tokens.Refresh().ok()) << tokens.Refresh();
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a"), "node-a");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-b"), "node-b");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-c"), "");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a "), "");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-"), "");
  EXPECT_EQ(tokens.NodeOf(""), "");
}

TEST_F(TokenTest, IsReadAgainWhenItChanges) {
  Write("node-a 0123456789abcdef-a\n");
  JoinTokens tokens(file_);
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a"), "node-a");
  Write("node-a 0123456789abcdef-new\n");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a"), "");
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-new"), "node-a");
  fs::remove(file_);
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-new"), "");
}

TEST_F(TokenTest, AFileThatIsNotAsItShouldBeAdmitsNobody) {
  struct Case {
    std::string text;
    mode_t mode;
    std::string error;
  };
  const std::string good = "node-a 0123456789abcdef-a\n";
  const Case cases[] = {
      {good, 0640, ": others may read the tokens (mode 0640); chmod 0600 it"},
      {good, 0604, ": others may read the tokens (mode 0604)"},
      {good + "node-b\n", 0600, ":2: expected NODE TOKEN"},
      {good + "node-b short\n", 0600, ":2: a token is one word of 16 to 512 characters"},
      {good + "node-b 0123456789abcdef two\n", 0600, ":2: a token is one word"},
      {good + "Node/b 0123456789abcdef\n", 0600, ":2: \"Node/b\" is no node name"},
      {good + "node-b 0123456789abcdef-a\n", 0600, ":2: the token of node-a again"},
  };
  JoinTokens tokens(file_);
  for (const Case& c : cases) {
    Write(c.text, c.mode);
    EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a"), "") << c.error;
    EXPECT_THAT(std::string(tokens.Refresh().message()), StartsWith(file_ + c.error));
    EXPECT_THAT(std::string(tokens.Refresh().message()),
                ::testing::Not(HasSubstr("0123456789abcdef")));
  }
  Write(good);
  EXPECT_EQ(tokens.NodeOf("0123456789abcdef-a"), "node-a");
}

TEST(ConstantTime, Compares) {
  EXPECT_TRUE(EqualInConstantTime("", ""));
  EXPECT_TRUE(EqualInConstantTime("abc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", "abd"));
  EXPECT_FALSE(EqualInConstantTime("abc", "abcabc"));
  EXPECT_FALSE(EqualInConstantTime("abcabc", "abc"));
  EXPECT_FALSE(EqualInConstantTime("abc", ""));
}

class IssuerTest : public TokenTest {
 protected:
  void SetUp() override {
    Write(std::string("node-a ") + kToken + "\n");
    auto ca = identity::CertificateAuthority::Create("cluster.local");
    ASSERT_TRUE(ca.ok()) << ca.status();
    ca_ = *std::move(ca);
    tokens_ = std::make_unique<JoinTokens>(file_);
    issuer_ = std::make_unique<Issuer>(
        IssuerOptions{}, *ca_, *tokens_,
        [](std::string_view id, std::string_view node) { return id == kWeb && node == "node-a"; });
  }

  struct Ask {
    std::string peer = {}, authorization = {}, csr_for = {}, wanted = {};
    int64_t seconds = 0;
  };
  xds::GrpcReply Create(const Ask& ask) {
    xds::GrpcRequest request{.peer = {.identity = ask.peer, .address = "127.0.0.1:1"}};
    if (!ask.authorization.empty()) request.metadata.Add("authorization", ask.authorization);
    request.message =
        xds::EncodeCertificateRequest({.csr_pem = test::MakeTestCsr(ask.csr_for).csr_pem,
                                       .validity_seconds = ask.seconds,
                                       .impersonated_identity = ask.wanted});
    return issuer_->Create(request);
  }
  static tls::CertificateInfo Leaf(const xds::GrpcReply& reply) {
    const auto response = xds::DecodeCertificateResponse(reply.message);
    EXPECT_TRUE(response.ok());
    EXPECT_EQ(response->chain_pem.size(), 2u);
    const auto der = tls::CertificatesFromPem(response->chain_pem.at(0));
    return tls::InspectCertificate(der->at(0)).value();
  }

  std::unique_ptr<identity::CertificateAuthority> ca_;
  std::unique_ptr<JoinTokens> tokens_;
  std::unique_ptr<Issuer> issuer_;
};

TEST_F(IssuerTest, ATokenBuysTheNodesOwnCertificate) {
  for (const std::string& wanted : {std::string(), std::string(kNode)}) {
    const xds::GrpcReply reply = Create(
        {.authorization = std::string("Bearer ") + kToken, .csr_for = kNode, .wanted = wanted});
    ASSERT_EQ(reply.status, xds::GrpcStatus::kOk) << reply.error;
    EXPECT_EQ(Leaf(reply).spiffe_id, kNode);
  }
}

TEST_F(IssuerTest, ANodeGetsItsOwnAndThoseThatRunOnIt) {
  const xds::GrpcReply own = Create({.peer = kNode, .csr_for = kNode});
  ASSERT_EQ(own.status, xds::GrpcStatus::kOk) << own.error;
  EXPECT_EQ(Leaf(own).spiffe_id, kNode);
  const xds::GrpcReply web = Create({.peer = kNode, .csr_for = kWeb, .wanted = kWeb});
  ASSERT_EQ(web.status, xds::GrpcStatus::kOk) << web.error;
  EXPECT_EQ(Leaf(web).spiffe_id, kWeb);
}

TEST_F(IssuerTest, LifetimeIsAnHourAndNoMore) {
  struct Case {
    int64_t asked, least, most;
  };
  for (const Case& c :
       {Case{0, 3600, 3700}, Case{86400, 3600, 3700}, Case{600, 600, 700}, Case{-5, 3600, 3700}}) {
    const xds::GrpcReply reply = Create({.peer = kNode, .csr_for = kNode, .seconds = c.asked});
    ASSERT_EQ(reply.status, xds::GrpcStatus::kOk) << reply.error;
    const tls::CertificateInfo leaf = Leaf(reply);
    EXPECT_GE(leaf.not_after - leaf.not_before, c.least);
    EXPECT_LE(leaf.not_after - leaf.not_before, c.most);
  }
}

TEST_F(IssuerTest, EverythingElseIsDeniedWithTheReason) {
  struct Case {
    Ask ask;
    const char* reason;
  };
  const std::string bearer = std::string("Bearer ") + kToken;
  const Case cases[] = {
      {{.csr_for = kNode}, "neither a node's certificate nor a join token was shown"},
      {{.authorization = "Bearer wrong-wrong-wrong-wrong", .csr_for = kNode},
       "the join token is not known"},
      {{.authorization = kToken, .csr_for = kNode},
       "neither a node's certificate nor a join token"},
      {{.authorization = bearer, .csr_for = kWeb, .wanted = kWeb},
       "a join token gives the node's own certificate"},
      {{.peer = kNode,
        .csr_for = "spiffe://cluster.local/ns/demo/sa/redis",
        .wanted = "spiffe://cluster.local/ns/demo/sa/redis"},
       "no workload with the identity spiffe://cluster.local/ns/demo/sa/redis runs on node node-a"},
      {{.peer = "spiffe://cluster.local/weft/node/node-b", .csr_for = kWeb, .wanted = kWeb},
       "no workload with the identity spiffe://cluster.local/ns/demo/sa/web runs on node node-b"},
      {{.peer = kNode, .csr_for = kWeb, .wanted = "spiffe://other.domain/ns/demo/sa/web"},
       "is not of the trust domain cluster.local"},
      {{.peer = kNode, .csr_for = kWeb, .wanted = "spiffe://cluster.local/weft/node/node-b"},
       "is no workload identity"},
      {{.peer = kNode, .csr_for = kWeb, .wanted = "spiffe://cluster.local/weft/control"},
       "is no workload identity"},
      {{.peer = kWeb, .csr_for = kWeb, .wanted = kWeb}, "is not a node; only nodes may ask"},
      // A certificate that is no node's does not become one by a token.
      {{.peer = kWeb, .authorization = bearer, .csr_for = kNode}, "is not a node"},
      {{.peer = "spiffe://other.domain/weft/node/node-a", .csr_for = kNode}, "is not a node"},
      {{.peer = "spiffe://cluster.local/weft/node/a/b", .csr_for = kNode}, "is not a node"},
  };
  for (const Case& c : cases) {
    const xds::GrpcReply reply = Create(c.ask);
    EXPECT_EQ(reply.status, xds::GrpcStatus::kPermissionDenied) << c.reason;
    EXPECT_THAT(reply.error, HasSubstr(c.reason));
    EXPECT_TRUE(reply.message.empty());
  }
}

TEST_F(IssuerTest, ARequestForAnotherNameIsInvalid) {
  const xds::GrpcReply reply = Create({.peer = kNode, .csr_for = kWeb});
  EXPECT_EQ(reply.status, xds::GrpcStatus::kInvalidArgument);
  EXPECT_FALSE(reply.error.empty());
  xds::GrpcRequest garbage{.message = "\xff\xff garbage"};
  EXPECT_EQ(issuer_->Create(garbage).status, xds::GrpcStatus::kInvalidArgument);
  xds::GrpcRequest no_csr{.message = xds::EncodeCertificateRequest({.csr_pem = "no"}),
                          .peer = {.identity = kNode}};
  EXPECT_EQ(issuer_->Create(no_csr).status, xds::GrpcStatus::kInvalidArgument);
}

}  // namespace
}  // namespace weft::plane
