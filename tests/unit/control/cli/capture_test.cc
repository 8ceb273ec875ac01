// SPDX-License-Identifier: Apache-2.0
// The wire check must find what it looks for: canaries, bytes outside TLS records, holes.
#include "control/cli/capture.h"

#include <gtest/gtest.h>

#include <vector>

namespace weft::cli {
namespace {

constexpr const char* kCanary = "weft-canary-0123456789abcdef0123";

// An Ethernet frame with IPv4 and TCP.
std::vector<uint8_t> Frame(uint32_t sequence, const std::string& payload, bool syn = false,
                           uint16_t source_port = 40000) {
  std::vector<uint8_t> f(14 + 20 + 20, 0);
  f[12] = 0x08;
  f[14] = 0x45;
  const size_t total = 40 + payload.size();
  f[16] = static_cast<uint8_t>(total >> 8);
  f[17] = static_cast<uint8_t>(total);
  f[23] = 6;
  f[26] = f[30] = 10;
  f[29] = 1;
  f[33] = 2;
  f[34] = static_cast<uint8_t>(source_port >> 8);
  f[35] = static_cast<uint8_t>(source_port);
  for (int i = 0; i < 4; ++i) f[38 + i] = static_cast<uint8_t>(sequence >> (24 - 8 * i));
  f[46] = 5 << 4;
  f[47] = syn ? 2 : 16;
  f.insert(f.end(), payload.begin(), payload.end());
  return f;
}

std::string Record(uint8_t type, const std::string& body) {
  std::string out = {static_cast<char>(type), 3, 3, static_cast<char>(body.size() >> 8),
                     static_cast<char>(body.size())};
  return out + body;
}

TEST(FrameCounter, TlsRecordsAcrossSegmentsAreTls) {
  FrameCounter counter(kCanary);
  const std::string stream = Record(22, std::string(700, 'h')) + Record(23, std::string(900, 'd'));
  counter.Count(Frame(99, "", true));
  uint32_t sequence = 100;
  for (size_t at = 0; at < stream.size(); at += 333) {
    const std::string part = stream.substr(at, 333);
    counter.Count(Frame(sequence, part));
    sequence += part.size();
  }
  EXPECT_EQ(counter.counts.tls_bytes, stream.size());
  EXPECT_EQ(counter.counts.clear_bytes, 0u);
  EXPECT_EQ(counter.counts.unknown_bytes, 0u);
  EXPECT_EQ(counter.counts.canary_packets, 0u);
}

TEST(FrameCounter, PlaintextWithTheCanaryIsFound) {
  FrameCounter counter(kCanary);
  counter.Count(Frame(99, "", true));
  counter.Count(Frame(100, std::string("GET / HTTP/1.1\r\nx: ") + kCanary + "\r\n\r\n"));
  EXPECT_EQ(counter.counts.canary_packets, 1u);
  EXPECT_EQ(counter.counts.tls_bytes, 0u);
  EXPECT_GT(counter.counts.clear_bytes, 0u);
  EXPECT_EQ(counter.counts.clear_stream, "10.0.0.1:40000 > 10.0.0.2:0");
}

TEST(FrameCounter, PlaintextAfterGoodRecordsIsFound) {
  FrameCounter counter("");
  counter.Count(Frame(99, "", true));
  counter.Count(Frame(100, Record(23, "abcd")));
  counter.Count(Frame(109, "hello plaintext"));
  EXPECT_EQ(counter.counts.tls_bytes, 9u);
  EXPECT_EQ(counter.counts.clear_bytes, 15u);
}

TEST(FrameCounter, RetransmissionsDoNotConfuseIt) {
  FrameCounter counter("");
  counter.Count(Frame(99, "", true));
  counter.Count(Frame(100, Record(23, "abcd")));
  counter.Count(Frame(100, Record(23, "abcd") + Record(23, "ef")));
  EXPECT_EQ(counter.counts.clear_bytes, 0u);
  EXPECT_EQ(counter.counts.tls_bytes, 9u + 9u + 7u);
}

TEST(FrameCounter, AStreamWithoutItsBeginningIsUnknownNotTls) {
  FrameCounter counter(kCanary);
  counter.Count(Frame(5000, Record(23, "abcd")));
  EXPECT_EQ(counter.counts.tls_bytes, 0u);
  EXPECT_EQ(counter.counts.unknown_bytes, 9u);
}

TEST(FrameCounter, GarbageFramesAreIgnored) {
  FrameCounter counter(kCanary);
  counter.Count({});
  std::vector<uint8_t> frame = Frame(1, "x", true);
  for (size_t n = 0; n < frame.size(); ++n) counter.Count(std::span(frame).first(n));
  frame[14] = 0x4f;
  counter.Count(frame);
  frame = Frame(1, "x");
  frame[46] = 0xf0;
  counter.Count(frame);
  EXPECT_EQ(counter.counts.canary_packets, 0u);
}

TEST(TlsRecordCheck, AnOversizedRecordIsNotTls) {
  TlsRecordCheck check;
  const uint8_t header[] = {23, 3, 3, 0x7f, 0xff};
  EXPECT_FALSE(check.Feed(header));
}

}  // namespace
}  // namespace weft::cli
