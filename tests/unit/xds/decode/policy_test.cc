// SPDX-License-Identifier: Apache-2.0
// weft.policy.v1 at the edge: what is refused, by name, and that damaged bytes never become a
// policy with another meaning than its own text.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <random>

#include "xds/decode/decode.h"
#include "xds/wire/policy.pb.h"

namespace weft::xds {
namespace {

template <typename Proto>
std::string Bytes(const std::string& text) {
  Proto proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto.SerializeAsString();
}
absl::StatusOr<Decoded> Network(const std::string& text) {
  return DecodeResource(kNetworkPolicyType, Bytes<weft::policy::v1::NetworkPolicy>(text));
}
absl::StatusOr<Decoded> Process(const std::string& text) {
  return DecodeResource(kProcessPolicyType, Bytes<weft::policy::v1::ProcessPolicy>(text));
}
std::string ErrorOf(const absl::StatusOr<Decoded>& result) {
  return result.ok() ? "accepted" : std::string(result.status().message());
}

constexpr char kName[] = R"(name: "p" namespace: "s" )";

TEST(NetworkPolicy, IsReadAsItIs) {
  const auto decoded = Network(std::string(kName) + R"(
      subjects: ["a", "b"] isolates_ingress: true
      ingress { index: 3 workloads: "c"
                blocks { cidr { address: "\012\000\000\000" length: 8 }
                         except { address: "\012\001\000\000" length: 16 } }
                ports { protocol: SCTP first: 7 last: 9 } }
      egress { any_peer: true any_port: true })");
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->name, "s/p");
  const auto& policy = *std::get<std::shared_ptr<const model::NetworkPolicy>>(decoded->resource);
  EXPECT_EQ(policy.subjects, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(policy.isolates_ingress);
  EXPECT_FALSE(policy.isolates_egress);
  ASSERT_EQ(policy.ingress.size(), 1u);
  EXPECT_EQ(policy.ingress[0].index, 3u);
  EXPECT_EQ(policy.ingress[0].blocks[0].cidr.address.ToString(), "10.0.0.0");
  EXPECT_EQ(policy.ingress[0].blocks[0].except[0].length, 16u);
  EXPECT_EQ(policy.ingress[0].ports[0],
            (model::NetworkPolicy::Port{model::NetworkPolicy::Protocol::kSctp, 7, 9}));
  EXPECT_TRUE(policy.egress[0].any_peer && policy.egress[0].any_port);
}

struct Case {
  const char* text;
  const char* error;
};

TEST(NetworkPolicy, RefusalsNameTheField) {
  const Case cases[] = {
      {R"(subjects: ["b", "a"])", "subjects: not in order, or one is there twice"},
      {R"(subjects: ["a", "a"])", "subjects: not in order, or one is there twice"},
      {R"(subjects: "")", "subjects[0]: empty"},
      {R"(ingress { workloads: "" })", "ingress[0]: workloads[0]: empty"},
      {R"(ingress { any_peer: true workloads: "a" })", "ingress[0]: any_peer: and peers beside it"},
      {R"(egress {} egress { any_port: true ports { last: 1 } })",
       "egress[1]: any_port: and ports beside it"},
      {R"(egress { ports { first: 2 last: 1 } })", "egress[0]: ports[0]: last is before first"},
      {R"(egress { ports { last: 65536 } })", "egress[0]: ports[0].last: port 65536"},
      {R"(ingress { blocks { cidr { address: "abc" } } })",
       "ingress[0]: blocks[0]: cidr: address: "},
      {R"(ingress { blocks { cidr { address: "\012\000\000\000" length: 33 } } })",
       "ingress[0]: blocks[0]: cidr: length: 33 is longer than the address"},
      {R"(ingress { blocks { cidr { address: "\012\000\000\001" length: 8 } } })",
       "ingress[0]: blocks[0]: cidr: address: has bits beyond its length"},
      {R"(ingress { blocks { cidr { address: "\012\000\000\000" length: 8 }
                    except { address: "\013\000\000\000" length: 16 } } })",
       "ingress[0]: blocks[0]: except[0]: is not within cidr"},
      {R"(ingress { blocks { cidr { address: "\012\000\000\000" length: 8 }
                    except { address: "\000\000\000\000" length: 0 } } })",
       "ingress[0]: blocks[0]: except[0]: is not within cidr"},
  };
  for (const Case& each : cases) {
    const std::string error = ErrorOf(Network(std::string(kName) + each.text));
    EXPECT_TRUE(error.starts_with("network policy s/p: " + std::string(each.error)))
        << each.text << "\n"
        << error;
  }
  EXPECT_EQ(ErrorOf(Network(R"(namespace: "s")")), "network policy s/: name: missing");
  EXPECT_EQ(ErrorOf(Network(R"(name: "a/b" namespace: "s")")),
            "network policy s/a/b: name: must not contain /");
}

TEST(NetworkPolicy, AFieldOfANewerApiRefusesThePolicy) {
  weft::policy::v1::NetworkPolicy policy;
  policy.set_name("p");
  policy.set_namespace_("s");
  auto* rule = policy.add_ingress();
  rule->GetReflection()->MutableUnknownFields(rule)->AddVarint(77, 1);
  EXPECT_EQ(ErrorOf(DecodeResource(kNetworkPolicyType, policy.SerializeAsString())),
            "network policy s/p: ingress[0]: unknown field number 77");
}

TEST(ProcessPolicy, IsReadAsItIs) {
  const auto decoded = Process(std::string(kName) + R"(
      subjects: "a" enforce: true
      rules { name: "r" not_binaries: "/usr/bin/*" arguments: "-k" connects: true
              destinations: "u" identities: "spiffe://td/ns/n/sa/a" ports { last: 65535 }
              action: KILL })");
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const auto& policy = *std::get<std::shared_ptr<const model::ProcessPolicy>>(decoded->resource);
  EXPECT_TRUE(policy.enforce);
  ASSERT_EQ(policy.rules.size(), 1u);
  EXPECT_EQ(policy.rules[0].not_binaries[0], "/usr/bin/*");
  EXPECT_EQ(policy.rules[0].identities[0], "spiffe://td/ns/n/sa/a");
  EXPECT_EQ(policy.rules[0].action, model::ProcessPolicy::Action::kKill);
}

TEST(ProcessPolicy, RefusalsNameTheField) {
  const Case cases[] = {
      {R"(rules { binaries: "curl" })", "rules[0]: binaries[0]: not an absolute path"},
      {R"(rules { not_binaries: "/a*b" })", "rules[0]: not_binaries[0]: '*' may be last only"},
      {R"(rules { binaries: "/a\000b" })", "rules[0]: binaries[0]: contains a zero byte"},
      {R"(rules { arguments: "" })", "rules[0]: arguments[0]: empty, too long"},
      {R"(rules { connects: true identities: "x" })", "rules[0]: identities[0]: not of the form"},
      {R"(rules { destinations: "u" })", "rules[0]: connects: not set, but destinations are named"},
      {R"(rules { connects: true blocks { cidr { address: "a" } } })", "rules[0]: blocks[0]: cidr"},
  };
  for (const Case& each : cases) {
    const std::string error = ErrorOf(Process(std::string(kName) + each.text));
    EXPECT_TRUE(error.starts_with("process policy s/p: " + std::string(each.error)))
        << each.text << "\n"
        << error;
  }
  weft::policy::v1::ProcessPolicy policy;
  policy.set_name("p");
  policy.set_namespace_("s");
  policy.add_rules()->set_action(static_cast<weft::policy::v1::ProcessPolicy::Action>(9));
  EXPECT_EQ(ErrorOf(DecodeResource(kProcessPolicyType, policy.SerializeAsString())),
            "process policy s/p: rules[0]: action 9 is not supported");
}

// What is accepted holds what the kernel's compiler counts on, however the bytes were damaged.
TEST(PolicyTypes, DamagedBytesAreRefusedOrStillSound) {
  const std::string good = Bytes<weft::policy::v1::NetworkPolicy>(std::string(kName) + R"(
      subjects: ["a", "b"] isolates_ingress: true
      ingress { workloads: "c" blocks { cidr { address: "\012\000\000\000" length: 8 }
                         except { address: "\012\001\000\000" length: 16 } }
                ports { first: 7 last: 9 } })");
  std::mt19937 random(7);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % bytes.size();
      if (random() % 4 == 0) {
        bytes.erase(at, 1 + random() % 3);
      } else {
        bytes[at] = static_cast<char>(random() % 128);  // no UTF-8 noise in the log
      }
    }
    const auto decoded = DecodeResource(kNetworkPolicyType, bytes);
    (void)DecodeResource(kProcessPolicyType, bytes);
    if (!decoded.ok()) continue;
    ++accepted;
    const auto& policy = *std::get<std::shared_ptr<const model::NetworkPolicy>>(decoded->resource);
    EXPECT_TRUE(std::is_sorted(policy.subjects.begin(), policy.subjects.end()));
    for (const auto& rule : policy.ingress) {
      for (const auto& port : rule.ports) EXPECT_LE(port.first, port.last);
      for (const auto& block : rule.blocks) {
        EXPECT_LE(block.cidr.length, block.cidr.address.is_v4() ? 32u : 128u);
        EXPECT_TRUE(block.cidr.address.InPrefix(block.cidr.address, block.cidr.length));
        for (const auto& except : block.except) {
          EXPECT_TRUE(except.address.InPrefix(block.cidr.address, block.cidr.length));
        }
      }
    }
  }
  EXPECT_GT(accepted, 500);
}

}  // namespace
}  // namespace weft::xds
