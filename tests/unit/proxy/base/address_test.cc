// SPDX-License-Identifier: Apache-2.0
#include "proxy/base/address.h"

#include <arpa/inet.h>

#include "gtest/gtest.h"

namespace weft {
namespace {

IpAddress Ip(std::string_view text) { return *IpAddress::Parse(text); }

TEST(IpAddress, TextRoundTrips) {
  for (const char* text : {"10.0.0.1", "0.0.0.0", "255.255.255.255", "fd00::1", "::", "::1"}) {
    EXPECT_EQ(Ip(text).ToString(), text);
  }
  EXPECT_EQ(Ip("::ffff:10.0.0.1"), Ip("10.0.0.1")) << "mapped and plain are one address";
  EXPECT_TRUE(Ip("::ffff:10.0.0.1").is_v4());
  EXPECT_FALSE(Ip("::1").is_v4());
}

TEST(IpAddress, RefusesWhatIsNotAnAddress) {
  using namespace std::string_view_literals;
  for (std::string_view text :
       {""sv, "10.0.0"sv, "10.0.0.256"sv, "10.0.0.1 "sv, "fd00::1%eth0"sv, "a"sv, "10.0.0.1\0x"sv,
        "0000:0000:0000:0000:0000:ffff:255.255.255.2555555"sv}) {
    EXPECT_FALSE(IpAddress::Parse(text)) << text;
  }
}

TEST(IpAddress, FromBytesTakesOnlyWholeAddresses) {
  const uint8_t bytes[17] = {10, 1, 2, 3};
  EXPECT_EQ(IpAddress::FromBytes({bytes, 4}), Ip("10.1.2.3"));
  EXPECT_EQ(IpAddress::FromBytes({bytes, 16}), Ip("a01:203::"));
  for (size_t size : {0u, 3u, 5u, 15u, 17u}) EXPECT_FALSE(IpAddress::FromBytes({bytes, size}));
}

TEST(IpAddress, KnowsLoopbackAndUnspecified) {
  EXPECT_TRUE(Ip("127.9.9.9").is_loopback());
  EXPECT_TRUE(Ip("::1").is_loopback());
  EXPECT_FALSE(Ip("128.0.0.1").is_loopback());
  EXPECT_TRUE(Ip("0.0.0.0").is_unspecified());
  EXPECT_TRUE(Ip("::").is_unspecified());
  EXPECT_FALSE(Ip("0.0.0.1").is_unspecified());
}

TEST(IpAddress, PrefixesCountInTheirOwnFamily) {
  EXPECT_TRUE(Ip("10.1.2.3").InPrefix(Ip("10.0.0.0"), 8));
  EXPECT_FALSE(Ip("11.1.2.3").InPrefix(Ip("10.0.0.0"), 8));
  EXPECT_TRUE(Ip("10.1.2.3").InPrefix(Ip("10.1.2.2"), 31));
  EXPECT_FALSE(Ip("10.1.2.3").InPrefix(Ip("10.1.2.2"), 32));
  EXPECT_TRUE(Ip("10.1.2.3").InPrefix(Ip("0.0.0.0"), 0));
  EXPECT_FALSE(Ip("10.1.2.3").InPrefix(Ip("::"), 0)) << "another family";
  EXPECT_FALSE(Ip("fd00::1").InPrefix(Ip("0.0.0.0"), 0)) << "another family";
  EXPECT_TRUE(Ip("fd00:1::1").InPrefix(Ip("fd00:1::"), 127));
  EXPECT_FALSE(Ip("10.1.2.3").InPrefix(Ip("10.1.2.3"), 33)) << "longer than the family has";
}

TEST(SocketAddress, TextRoundTrips) {
  for (const char* text : {"10.0.0.1:80", "[fd00::1]:65535", "0.0.0.0:0"}) {
    ASSERT_TRUE(SocketAddress::Parse(text)) << text;
    EXPECT_EQ(SocketAddress::Parse(text)->ToString(), text);
  }
  for (const char* text : {"10.0.0.1", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:8x", "fd00::1:80",
                           "[10.0.0.1]:80", ":80", "10.0.0.1:-1", "[fd00::1]80"}) {
    EXPECT_FALSE(SocketAddress::Parse(text)) << text;
  }
}

TEST(SocketAddress, SockaddrRoundTrips) {
  const SocketAddress v4 = *SocketAddress::Parse("10.0.0.1:80");
  const SocketAddress v6 = *SocketAddress::Parse("[fd00::1]:443");
  sockaddr_storage raw;
  ASSERT_EQ(v4.ToSockaddr(AF_INET, &raw), sizeof(sockaddr_in));
  EXPECT_EQ(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&raw), sizeof(sockaddr_in)),
            v4);
  ASSERT_EQ(v4.ToSockaddr(AF_INET6, &raw), sizeof(sockaddr_in6)) << "mapped";
  EXPECT_EQ(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&raw), sizeof(sockaddr_in6)),
            v4);
  ASSERT_EQ(v6.ToSockaddr(AF_INET6, &raw), sizeof(sockaddr_in6));
  EXPECT_EQ(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&raw), sizeof raw), v6);
  EXPECT_EQ(v6.ToSockaddr(AF_INET, &raw), 0u);
  EXPECT_EQ(v4.ToSockaddr(AF_UNIX, &raw), 0u);
  EXPECT_FALSE(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&raw), sizeof(sa_family_t)));
}

}  // namespace
}  // namespace weft
