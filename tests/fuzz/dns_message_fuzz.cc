// SPDX-License-Identifier: Apache-2.0
// DNS: any bytes as a query and as its answer. What is written is well-formed, fits, and belongs to
// what it answers.
#include "proxy/dns/message.h"
#include "tests/fuzz/fuzz.h"

namespace {

using weft::dns::Parsed;

weft::dns::Answer AnswerOf(weft::fuzz::Decisions& decisions) {
  weft::dns::Answer answer{
      .rcode = decisions.Byte() % 2 == 0 ? weft::dns::kNoError : weft::dns::kBadVers,
      .addresses = {},
      .ttl_seconds = decisions.Byte() * 1000u};
  const bool v6 = decisions.Byte() % 2 == 0;
  for (unsigned n = decisions.Byte() % 100; n > 0; --n) {
    answer.addresses.push_back(*weft::IpAddress::Parse(v6 ? "fd00::1" : "10.0.0.1"));
  }
  return answer;
}

void CheckWritten(std::vector<uint8_t> wire, const weft::dns::Query& query, size_t limit) {
  FUZZ_CHECK(wire.size() <= limit || wire.size() < 12 + 255 + 4 + 11 + 1);
  wire[2] &= 0x7f;
  weft::dns::Query again;
  FUZZ_CHECK(weft::dns::ParseQuery(wire, &again) == Parsed::kQuery);
  FUZZ_CHECK(again.name == query.name && again.type == query.type && again.id == query.id);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  weft::fuzz::Decisions decisions({data, size});
  const size_t split = decisions.Byte();
  const weft::dns::Answer answer = AnswerOf(decisions);
  const auto wire = decisions.Rest();
  const auto message = wire.first(std::min(split, wire.size()));
  const auto reply = wire.subspan(message.size());
  weft::dns::Query query;
  const Parsed parsed = weft::dns::ParseQuery(message, &query);
  if (parsed == Parsed::kIgnore) return 0;
  if (parsed == Parsed::kMalformed) {
    FUZZ_CHECK(weft::dns::WriteFormErr(message).size() == weft::dns::kHeaderBytes);
    return 0;
  }
  FUZZ_CHECK(query.question_end <= message.size());
  const size_t limit = query.datagram_limit();
  const auto written = weft::dns::WriteAnswer(message, query, answer, limit);
  FUZZ_CHECK(weft::dns::Answers(written, query.id, message, query));
  CheckWritten(written, query, limit);
  if (weft::dns::Answers(reply, query.id, message, query)) {
    CheckWritten(weft::dns::WriteTruncated(message, query, reply), query, limit);
  }
  return 0;
}
