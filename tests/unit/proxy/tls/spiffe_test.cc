// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/spiffe.h"

#include <gtest/gtest.h>

#include <string>

namespace weft::tls {
namespace {

TEST(Spiffe, AcceptsIds) {
  for (const char* id : {"spiffe://td/ns/a/sa/b", "spiffe://cluster.local/ns/shop/sa/api-v1.2_x",
                         "spiffe://td/weft/node/N1"}) {
    EXPECT_TRUE(IsValidSpiffeId(id)) << id;
  }
  EXPECT_EQ(TrustDomainOf("spiffe://cluster.local/ns/a/sa/b"), "cluster.local");
  EXPECT_TRUE(IsValidSpiffeId("spiffe://td/" + std::string(2036, 'a')));
}

TEST(Spiffe, RefusesTheRest) {
  const std::string nul("spiffe://td/a\0b", 15);
  for (const std::string& id : {std::string(""),
                                std::string("spiffe://"),
                                std::string("spiffe://td"),
                                std::string("spiffe://td/"),
                                std::string("spiffe:///a"),
                                std::string("SPIFFE://td/a"),
                                std::string("spiffe://TD/a"),
                                std::string("spiffe://td/a/"),
                                std::string("spiffe://td//a"),
                                std::string("spiffe://td/./a"),
                                std::string("spiffe://td/../a"),
                                std::string("spiffe://td/%61"),
                                std::string("spiffe://u@td/a"),
                                std::string("spiffe://td:1/a"),
                                std::string("spiffe://td/a?b"),
                                std::string("spiffe://td/a#b"),
                                std::string("spiffe://td/a b"),
                                std::string("spiffe://td/\xc3\xa9"),
                                std::string("https://td/a"),
                                nul,
                                "spiffe://td/" + std::string(2037, 'a'),
                                "spiffe://" + std::string(256, 'a') + "/a"}) {
    EXPECT_FALSE(IsValidSpiffeId(id)) << id;
    EXPECT_TRUE(TrustDomainOf(id).empty());
  }
}

}  // namespace
}  // namespace weft::tls
