// SPDX-License-Identifier: Apache-2.0
// DNS messages: what is a query, what is refused, what is answered, byte by byte where a resolver
// library looks at it.
#include "proxy/dns/message.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace weft::dns {
namespace {

std::vector<uint8_t> WireName(const std::string& dotted) {
  std::vector<uint8_t> out;
  for (size_t at = 0; at < dotted.size();) {
    const size_t end = std::min(dotted.find('.', at), dotted.size());
    out.push_back(static_cast<uint8_t>(end - at));
    for (; at < end; ++at) out.push_back(static_cast<uint8_t>(dotted[at]));
    ++at;
  }
  out.push_back(0);
  return out;
}

struct Message {
  std::vector<uint8_t> bytes;
  Message& Short(unsigned value) {
    bytes.push_back(static_cast<uint8_t>(value >> 8));
    bytes.push_back(static_cast<uint8_t>(value));
    return *this;
  }
  Message& Raw(std::initializer_list<int> values) {
    for (int value : values) bytes.push_back(static_cast<uint8_t>(value));
    return *this;
  }
  Message& Name(const std::string& dotted) {
    const auto name = WireName(dotted);
    bytes.insert(bytes.end(), name.begin(), name.end());
    return *this;
  }
  Message& Header(unsigned flags, unsigned questions, unsigned additional = 0,
                  unsigned id = 0x1234) {
    return Short(id).Short(flags).Short(questions).Short(0).Short(0).Short(additional);
  }
  Message& Opt(unsigned bytes_in, unsigned version = 0, bool dnssec = false) {
    return Raw({0})
        .Short(kTypeOpt)
        .Short(bytes_in)
        .Raw({0, static_cast<int>(version)})
        .Short(dnssec ? 0x8000 : 0)
        .Short(0);
  }
};

Message Ask(const std::string& name, unsigned type = kTypeA) {
  return Message().Header(0x0100, 1).Name(name).Short(type).Short(1);
}
Message AskEdns(const std::string& name, unsigned bytes, unsigned type = kTypeA,
                unsigned version = 0, bool dnssec = false) {
  return Message().Header(0x0100, 1, 1).Name(name).Short(type).Short(1).Opt(bytes, version, dnssec);
}
Query Parse(const Message& message) {
  Query query;
  EXPECT_EQ(ParseQuery(message.bytes, &query), Parsed::kQuery);
  return query;
}
unsigned ShortAt(const std::vector<uint8_t>& bytes, size_t at) {
  return static_cast<unsigned>(bytes.at(at) << 8 | bytes.at(at + 1));
}
std::vector<IpAddress> Addresses(int n, bool v6) {
  std::vector<IpAddress> out;
  for (int i = 1; i <= n; ++i) {
    out.push_back(
        *IpAddress::Parse(v6 ? "fd00::" + std::to_string(i) : "10.0.0." + std::to_string(i)));
  }
  return out;
}

TEST(DnsMessage, AQueryIsItsQuestion) {
  const Query query = Parse(Ask("WeB.Demo.svc", kTypeAaaa));
  EXPECT_EQ(query.id, 0x1234);
  EXPECT_EQ(query.name, "web.demo.svc");
  EXPECT_EQ(query.type, kTypeAaaa);
  EXPECT_EQ(query.class_number, kClassIn);
  EXPECT_EQ(query.question_end, 12u + 14 + 4);
  EXPECT_FALSE(query.edns);
  EXPECT_EQ(query.datagram_limit(), 512u);
  EXPECT_EQ(Parse(Ask("")).name, "");
}

TEST(DnsMessage, EdnsSaysHowMuchFits) {
  EXPECT_EQ(Parse(AskEdns("a", 1400)).datagram_limit(), 1400u);
  EXPECT_EQ(Parse(AskEdns("a", 0)).datagram_limit(), 512u);
  EXPECT_EQ(Parse(AskEdns("a", 65535)).datagram_limit(), kMaxDatagramBytes);
  EXPECT_TRUE(Parse(AskEdns("a", 512, kTypeA, 0, true)).dnssec_ok);
  EXPECT_EQ(Parse(AskEdns("a", 512, kTypeA, 3)).edns_version, 3);
}

TEST(DnsMessage, ADotInsideALabelIsNotASeparator) {
  Message message;
  message.Header(0, 1).Raw({3, 'a', '.', 'b', 1, 'c', 0}).Short(1).Short(1);
  EXPECT_EQ(Parse(message).name, "a\\.b.c");
}

struct Bad {
  const char* name;
  std::vector<uint8_t> bytes;
  Parsed expected;
};
std::vector<Bad> BadMessages() {
  std::vector<uint8_t> cut = Ask("web.demo").bytes;
  cut.resize(cut.size() - 1);
  std::string long_name = std::string(63, 'a');
  for (int i = 0; i < 3; ++i) long_name += "." + std::string(63, 'a');  // 257 bytes on the wire
  return {
      {"empty", {}, Parsed::kIgnore},
      {"short_header", std::vector<uint8_t>(11, 0), Parsed::kIgnore},
      {"a_response", Message().Header(0x8180, 1).Name("a").Short(1).Short(1).bytes,
       Parsed::kIgnore},
      {"no_question", Message().Header(0x0100, 0).bytes, Parsed::kMalformed},
      {"two_questions",
       Message().Header(0, 2).Name("a").Short(1).Short(1).Name("b").Short(1).Short(1).bytes,
       Parsed::kMalformed},
      {"cut", cut, Parsed::kMalformed},
      {"pointer_to_itself", Message().Header(0, 1).Raw({0xc0, 12}).Short(1).Short(1).bytes,
       Parsed::kMalformed},
      {"pointer_into_the_header",
       Message().Header(0, 1).Raw({1, 'a', 0xc0, 0}).Short(1).Short(1).bytes, Parsed::kMalformed},
      {"label_of_64", Message().Header(0, 1).Raw({64}).bytes, Parsed::kMalformed},
      {"name_too_long", Ask(long_name).bytes, Parsed::kMalformed},
      {"label_beyond_the_end", Message().Header(0, 1).Raw({9, 'a'}).bytes, Parsed::kMalformed},
      {"records_that_are_not_there",
       Message().Header(0, 1, 65535).Name("a").Short(1).Short(1).bytes, Parsed::kMalformed},
      {"two_opts", Message().Header(0, 1, 2).Name("a").Short(1).Short(1).Opt(512).Opt(512).bytes,
       Parsed::kMalformed},
      {"opt_with_a_name",
       Message()
           .Header(0, 1, 1)
           .Name("a")
           .Short(1)
           .Short(1)
           .Raw({1, 'x', 0})
           .Short(kTypeOpt)
           .Short(512)
           .Short(0)
           .Short(0)
           .Short(0)
           .bytes,
       Parsed::kMalformed},
      {"data_beyond_the_end",
       Message()
           .Header(0, 1, 1)
           .Name("a")
           .Short(1)
           .Short(1)
           .Raw({0})
           .Short(kTypeOpt)
           .Short(512)
           .Short(0)
           .Short(0)
           .Short(9)
           .bytes,
       Parsed::kMalformed},
  };
}

TEST(DnsMessage, WhatIsNoQuery) {
  for (const Bad& bad : BadMessages()) {
    Query query;
    EXPECT_EQ(ParseQuery(bad.bytes, &query), bad.expected) << bad.name;
    if (bad.expected != Parsed::kMalformed) continue;
    const auto answer = WriteFormErr(bad.bytes);
    ASSERT_EQ(answer.size(), kHeaderBytes) << bad.name;
    EXPECT_EQ(ShortAt(answer, 0), ShortAt(bad.bytes, 0));
    EXPECT_EQ(ShortAt(answer, 2) & 0x800f, 0x8001u);
  }
}

// A pointer ends a name, so one that points to itself or backwards costs nothing.
TEST(DnsMessage, CompressionInOtherRecordsIsNotFollowed) {
  Message message;
  message.Header(0, 1, 1).Name("a").Short(1).Short(1);
  const size_t at = message.bytes.size();
  message.Raw({0xc0, static_cast<int>(at)}).Short(1).Short(1).Short(0).Short(0).Short(0);
  EXPECT_EQ(Parse(message).name, "a");
}

TEST(DnsMessage, AnAnswerRepeatsTheQuestionWithItsCase) {
  const Message message = Ask("wEb.DEMO");
  const auto answer = WriteAnswer(message.bytes, Parse(message),
                                  {.addresses = Addresses(2, false), .ttl_seconds = 30}, 512);
  EXPECT_EQ(ShortAt(answer, 0), 0x1234u);
  EXPECT_EQ(ShortAt(answer, 2), 0x8580u);  // QR AA RD RA
  EXPECT_EQ(ShortAt(answer, 4), 1u);
  EXPECT_EQ(ShortAt(answer, 6), 2u);
  EXPECT_EQ(ShortAt(answer, 10), 0u);
  EXPECT_TRUE(std::equal(answer.begin() + 12, answer.begin() + 26, message.bytes.begin() + 12));
  const std::vector<uint8_t> record = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1};
  EXPECT_TRUE(std::equal(record.begin(), record.end(), answer.begin() + 26));
  EXPECT_EQ(answer.size(), 26u + 2 * 16);
}

TEST(DnsMessage, EdnsIsEchoedWithOurSize) {
  const Message message = AskEdns("web", 4096, kTypeAaaa, 0, true);
  const auto answer = WriteAnswer(message.bytes, Parse(message), {}, 4096);
  EXPECT_EQ(ShortAt(answer, 10), 1u);
  const std::vector<uint8_t> opt = {
      0, 0, kTypeOpt, kOurEdnsBytes >> 8, kOurEdnsBytes & 255, 0, 0, 0x80, 0, 0, 0};
  EXPECT_TRUE(std::equal(opt.rbegin(), opt.rend(), answer.rbegin()));
  const Message future = AskEdns("web", 4096, kTypeA, 1);
  const auto refused = WriteAnswer(future.bytes, Parse(future), {.rcode = kBadVers}, 4096);
  EXPECT_EQ(ShortAt(refused, 2) & 15u, 0u);
  EXPECT_EQ(refused[refused.size() - 6], 1) << "the upper bits of BADVERS";
}

TEST(DnsMessage, WhatDoesNotFitIsLeftOutAndSaidSo) {
  const Message message = Ask("web", kTypeAaaa);
  const auto answer =
      WriteAnswer(message.bytes, Parse(message), {.addresses = Addresses(40, true)}, 512);
  EXPECT_LE(answer.size(), 512u);
  EXPECT_EQ(ShortAt(answer, 2) & 0x0200, 0x0200u);
  EXPECT_EQ(ShortAt(answer, 6), (512u - 21) / 28);
  const auto whole =
      WriteAnswer(message.bytes, Parse(message), {.addresses = Addresses(40, true)}, 65535);
  EXPECT_EQ(ShortAt(whole, 2) & 0x0200, 0u);
  EXPECT_EQ(ShortAt(whole, 6), 40u);
}

TEST(DnsMessage, AnAnswerMustBelongToTheQuery) {
  const Message message = Ask("Web.demo", 65);  // HTTPS: its number is that of a letter
  const Query query = Parse(message);
  auto Answer = [](unsigned id, unsigned flags, const std::string& name, unsigned type = 65) {
    return Message().Header(flags, 1, 0, id).Name(name).Short(type).Short(1).bytes;
  };
  EXPECT_TRUE(Answers(Answer(7, 0x8180, "web.DEMO"), 7, message.bytes, query));
  EXPECT_FALSE(Answers(Answer(8, 0x8180, "web.demo"), 7, message.bytes, query)) << "id";
  EXPECT_FALSE(Answers(Answer(7, 0x0100, "web.demo"), 7, message.bytes, query)) << "a query";
  EXPECT_FALSE(Answers(Answer(7, 0x8180, "web.dem0"), 7, message.bytes, query)) << "name";
  EXPECT_FALSE(Answers(Answer(7, 0x8180, "web.demo", 97), 7, message.bytes, query)) << "type";
  EXPECT_FALSE(Answers(Answer(7, 0xa180, "web.demo"), 7, message.bytes, query)) << "opcode";
  EXPECT_FALSE(Answers(Message().Header(0x8180, 0, 0, 7).bytes, 7, message.bytes, query));
  EXPECT_FALSE(Answers(Message().Header(0x8183, 0, 0, 7).bytes, 7, message.bytes, query));
  EXPECT_TRUE(Answers(Message().Header(0x8185, 0, 0, 7).bytes, 7, message.bytes, query))
      << "REFUSED may leave the question out";
  EXPECT_FALSE(Answers({}, 7, message.bytes, query));
}

// Whatever was generated reads back as what it was.
TEST(DnsMessage, GeneratedRoundTrips) {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    std::string name;
    for (unsigned labels = random() % 5; labels-- > 0;) {
      if (!name.empty()) name += '.';
      for (unsigned n = 1 + random() % 20; n-- > 0;) name += "abcXYZ09-_"[random() % 10];
    }
    const unsigned type = random() % 2 == 0 ? kTypeA : kTypeAaaa;
    const unsigned bytes = random() % 5000;
    const bool edns = random() % 2 == 0;
    const Message message = edns ? AskEdns(name, bytes, type) : Ask(name, type);
    const Query query = Parse(message);
    EXPECT_EQ(query.type, type);
    const Answer answer{.addresses = Addresses(static_cast<int>(random() % 60), type == kTypeAaaa),
                        .ttl_seconds = static_cast<uint32_t>(random())};
    auto wire = WriteAnswer(message.bytes, query, answer, query.datagram_limit());
    EXPECT_LE(wire.size(), query.datagram_limit());
    EXPECT_TRUE(Answers(wire, query.id, message.bytes, query));
    EXPECT_EQ((ShortAt(wire, 2) & 0x0200) != 0, ShortAt(wire, 6) < answer.addresses.size());
    // As a query again, it is well-formed to the last byte.
    wire[2] &= 0x7f;
    Query again;
    ASSERT_EQ(ParseQuery(wire, &again), Parsed::kQuery);
    EXPECT_EQ(again.name, query.name);
    EXPECT_EQ(again.edns, edns);
    wire.pop_back();
    const bool records = ShortAt(wire, 6) + ShortAt(wire, 10) > 0;
    EXPECT_EQ(ParseQuery(wire, &again), Parsed::kMalformed) << records;
  }
}

}  // namespace
}  // namespace weft::dns
