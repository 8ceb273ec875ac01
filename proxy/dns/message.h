// SPDX-License-Identifier: Apache-2.0
// DNS messages (RFC 1035, 6891) as far as a forwarder that knows some names needs them: the one
// question of a query, whether an answer belongs to it, answers with addresses. Pure: no I/O, no
// clock. Names of other records are skipped, never expanded, so compression cannot loop.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "proxy/base/address.h"

namespace weft::dns {

using Bytes = std::span<const uint8_t>;

inline constexpr uint16_t kTypeA = 1, kTypeAaaa = 28, kTypeOpt = 41, kClassIn = 1;
enum Rcode : uint8_t {
  kNoError = 0,
  kFormErr = 1,
  kServFail = 2,
  kNxDomain = 3,
  kBadVers = 16,  // extended: needs an OPT record
};

inline constexpr size_t kHeaderBytes = 12;
// The largest datagram that is taken or sent. A pod talks to us over its loopback, whose MTU is
// larger; more than this asks for TCP.
inline constexpr size_t kMaxDatagramBytes = 4096;
inline constexpr size_t kMaxStreamBytes = 65535;
// What we say of ourselves in EDNS: what crosses common links unfragmented.
inline constexpr uint16_t kOurEdnsBytes = 1232;

struct Query {
  uint16_t id = 0;
  uint16_t flags = 0;  // as on the wire
  // Lower case, labels separated by dots, none at the end. A dot or backslash inside a label is
  // escaped, so such a label never reads as two.
  std::string name;
  uint16_t type = 0, class_number = 0;
  size_t question_end = 0;  // offset of the first byte behind the question
  bool edns = false;
  uint8_t edns_version = 0;
  bool dnssec_ok = false;
  uint16_t edns_bytes = 0;  // as the sender says, at least 512

  unsigned opcode() const { return flags >> 11 & 15u; }
  // The largest datagram that the sender takes.
  size_t datagram_limit() const;
};

enum class Parsed : uint8_t {
  kQuery,
  kMalformed,  // WriteFormErr() is the answer
  kIgnore,     // too short to answer, or itself an answer
};
Parsed ParseQuery(Bytes message, Query* out);

struct Answer {
  uint8_t rcode = kNoError;
  std::vector<IpAddress> addresses;  // of the family that the query's type asks for
  uint32_t ttl_seconds = 0;
};
// Repeats the question byte by byte (its letters' case matters to some senders) and echoes EDNS.
// What does not fit into `limit` is left out, and TC says so. `query` was parsed from `message`.
std::vector<uint8_t> WriteAnswer(Bytes message, const Query& query, const Answer& answer,
                                 size_t limit);
// `message` has at least a header.
std::vector<uint8_t> WriteFormErr(Bytes message);
// The upstream's `answer` without its records and with TC: too large for a datagram to the sender.
std::vector<uint8_t> WriteTruncated(Bytes message, const Query& query, Bytes answer);

uint16_t IdOf(Bytes message);
void SetId(uint16_t id, std::span<uint8_t> message);
// Is it an answer to the query that was sent under `id`? The question must be the same but for its
// letters' case; without a question only an error is one.
bool Answers(Bytes answer, uint16_t id, Bytes message, const Query& query);

}  // namespace weft::dns
