// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/message.h"

#include <gtest/gtest.h>

#include "proxy/http/detect.h"
#include "proxy/http/grpc_frame.h"
#include "session_pair.h"

namespace weft::http {
namespace {

TEST(HeaderList, KeepsOrderAndIgnoresCase) {
  HeaderList list;
  list.Add("Content-Type", "a");
  list.Add("x", "1");
  list.Add("X", "2");
  EXPECT_EQ(Show(list), " content-type=a x=1 x=2");
  EXPECT_EQ(list.Get("CONTENT-type"), "a");
  EXPECT_EQ(list.Get("X"), "1");
  EXPECT_EQ(list.Get("y"), std::nullopt);
  EXPECT_EQ(list.Count("x"), 2u);
  EXPECT_EQ(list.bytes(), 17u);
  list.Set("X", "longer value");
  EXPECT_EQ(Show(list), " content-type=a x=longer value");
  EXPECT_EQ(list.bytes(), 26u);
  list.Remove("content-Type");
  EXPECT_EQ(Show(list), " x=longer value");
  list.Set("new", "v");
  EXPECT_EQ(list.size(), 2u);
  list.Clear();
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.bytes(), 0u);
}

TEST(HeaderList, MayBeGivenItsOwnViews) {
  HeaderList list;
  list.Add("a", std::string(100, 'x'));
  for (int i = 0; i < 200; ++i) {
    const HeaderList::Field last = list[list.size() - 1];
    list.Add(last.name, last.value);
  }
  EXPECT_EQ(list[200].value, std::string(100, 'x'));
  list.Set("a", *list.Get("a"));
  EXPECT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].value, std::string(100, 'x'));
}

TEST(Detect, Protocols) {
  using enum Protocol;
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::pair<std::string, Protocol> cases[] = {
      {"", kNeedMore},
      {"G", kNeedMore},
      {"GET", kNeedMore},
      {"GET ", kNeedMore},
      {"GET /", kHttp1},
      {"GET h", kNeedMore},
      {"GET http://", kHttp1},
      {"GET key\r\n", kOther},
      {"get /", kOther},
      {"POST *", kHttp1},
      {"CONNECT a:1", kHttp1},
      {"CONNECT /", kHttp1},
      {"OPTIONS *", kHttp1},
      {"M-SEARCH *", kHttp1},
      {"PING\r\n", kOther},
      {"EHLO x", kOther},
      {"SSH-2.0-x", kOther},
      {"PR", kNeedMore},
      {"PRI * HTTP/2", kNeedMore},
      {preface, kHttp2},
      {preface + "xx", kHttp2},
      {"PRI * HTTP/1.1\r\n", kOther},
      {"\x16", kNeedMore},
      {"\x16\x03", kNeedMore},
      {"\x16\x03\x01", kTls},
      {"\x16\x04", kOther},
      {std::string("\0", 1), kOther},
      {"*1\r\n", kOther},
      {"GET\t/", kOther},
      {"GETS /", kOther},
  };
  for (const auto& [bytes, expected] : cases) {
    EXPECT_EQ(static_cast<int>(DetectProtocol(Bytes(bytes))), static_cast<int>(expected)) << bytes;
  }
}

// What was said once stays true when more bytes come, and 24 bytes are always enough.
TEST(Detect, AnswersAreFinal) {
  std::mt19937 random(3);
  const std::string seeds[] = {"GET /index HTTP/1.1\r\nHost: x\r\n", "UNSUBSCRIBE http://example/",
                               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                               "\x16\x03\x01\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08\x09\x10\x11"
                               "\x12\x13\x14\x15\x16\x17\x18\x19"};
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = seeds[random() % 4];
    if (random() % 2 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
    ASSERT_NE(DetectProtocol(Bytes(std::string_view(bytes).substr(0, kDetectMaxBytes))),
              Protocol::kNeedMore)
        << bytes;
    Protocol said = Protocol::kNeedMore;
    for (size_t size = 1; size <= bytes.size(); ++size) {
      const Protocol now = DetectProtocol(Bytes(std::string_view(bytes).substr(0, size)));
      ASSERT_TRUE(said == Protocol::kNeedMore || now == said) << bytes << " at " << size;
      said = now;
    }
  }
}

TEST(Grpc, MessagesInAnyCut) {
  std::string wire;
  EncodeGrpcMessage("one", &wire);
  EncodeGrpcMessage("", &wire);
  EncodeGrpcMessage(std::string(1000, 'x'), &wire);
  for (size_t step : {1u, 2u, 7u, 5000u}) {
    GrpcDecoder decoder(1000);
    std::vector<std::string> got;
    for (size_t at = 0; at < wire.size(); at += step) {
      ASSERT_TRUE(decoder.Feed(Bytes(std::string_view(wire).substr(at, step))));
      while (auto message = decoder.Next()) got.emplace_back(*message);
    }
    EXPECT_EQ(got, (std::vector<std::string>{"one", "", std::string(1000, 'x')}));
    EXPECT_EQ(decoder.pending_bytes(), 0u);
  }
}

TEST(Grpc, RefusesLargeAndCompressed) {
  std::string wire;
  EncodeGrpcMessage(std::string(1001, 'x'), &wire);
  GrpcDecoder large(1000);
  EXPECT_TRUE(large.Feed(Bytes(std::string_view(wire).substr(0, 4))));
  EXPECT_FALSE(large.Feed(Bytes(std::string_view(wire).substr(4, 1))))
      << "refused before its bytes are held";
  GrpcDecoder compressed(1000);
  EXPECT_FALSE(compressed.Feed(Bytes("\1")));
  // A bad one behind a good one.
  wire.clear();
  EncodeGrpcMessage("good", &wire);
  wire += "\1\0\0\0\0";
  GrpcDecoder both(1000);
  EXPECT_TRUE(both.Feed(Bytes(wire)));
  EXPECT_EQ(both.Next(), "good");
  EXPECT_TRUE(both.failed());
  EXPECT_EQ(both.Next(), std::nullopt);
}

}  // namespace
}  // namespace weft::http
