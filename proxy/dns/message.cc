// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns/message.h"

#include <algorithm>

namespace weft::dns {
namespace {

constexpr uint16_t kResponse = 0x8000, kAuthoritative = 0x0400, kTruncated = 0x0200;
constexpr uint16_t kRecursionDesired = 0x0100, kRecursionAvailable = 0x0080;
constexpr uint16_t kCheckingDisabled = 0x0010, kOpcodeMask = 0x7800, kRcodeMask = 0x000f;
constexpr uint32_t kDnssecOk = 0x8000;
constexpr size_t kMinDatagramBytes = 512, kMaxNameBytes = 255, kMaxLabelBytes = 63;
constexpr size_t kOptBytes = 11;
constexpr uint16_t kPointerToQuestion = 0xc000 | kHeaderBytes;

// Reads in order; after the first read beyond the end everything is zero and ok() false.
class Reader final {
 public:
  explicit Reader(Bytes bytes, size_t at = 0) : bytes_(bytes), at_(at) {}
  bool ok() const { return ok_; }
  size_t at() const { return at_; }
  uint8_t Byte() {
    if (!Has(1)) return 0;
    return bytes_[at_++];
  }
  uint16_t Short() {
    const uint16_t high = Byte();
    return static_cast<uint16_t>(high << 8 | Byte());
  }
  uint32_t Long() {
    const uint32_t high = Short();
    return high << 16 | Short();
  }
  void Skip(size_t bytes) {
    if (Has(bytes)) at_ += bytes;
  }
  // A name of any record: labels, or a pointer, which ends it.
  void SkipName() {
    for (;;) {
      const uint8_t length = Byte();
      if (!ok_ || length == 0) return;
      if ((length & 0xc0) == 0xc0) return Skip(1);
      if (length > kMaxLabelBytes) ok_ = false;
      Skip(length);
    }
  }

 private:
  bool Has(size_t bytes) {
    ok_ = ok_ && bytes_.size() - at_ >= bytes;
    return ok_;
  }
  Bytes bytes_;
  size_t at_;
  bool ok_ = true;
};

class Writer final {
 public:
  void Byte(uint8_t value) { out.push_back(value); }
  void Short(unsigned value) {
    Byte(static_cast<uint8_t>(value >> 8));
    Byte(static_cast<uint8_t>(value));
  }
  void Long(uint32_t value) {
    Short(value >> 16);
    Short(value & 0xffff);
  }
  void Append(Bytes bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }
  void SetShort(size_t at, unsigned value) {
    out[at] = static_cast<uint8_t>(value >> 8);
    out[at + 1] = static_cast<uint8_t>(value);
  }
  std::vector<uint8_t> out;
};

uint8_t Lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? static_cast<uint8_t>(c | 0x20) : c; }

// A question's name has nothing before it that it could point to.
bool ReadQuestionName(Reader& reader, std::string* name) {
  const size_t start = reader.at();
  for (;;) {
    const uint8_t length = reader.Byte();
    if (!reader.ok() || length > kMaxLabelBytes) return false;
    if (length == 0) return reader.at() - start <= kMaxNameBytes;
    if (!name->empty()) name->push_back('.');
    for (uint8_t i = 0; i < length; ++i) {
      const char c = static_cast<char>(Lower(reader.Byte()));
      if (c == '.' || c == '\\') name->push_back('\\');
      name->push_back(c);
    }
  }
}

// One record of the sections behind the question; OPT is noted.
bool ReadRecord(Reader& reader, Bytes message, Query* out) {
  const size_t start = reader.at();
  reader.SkipName();
  const uint16_t type = reader.Short();
  const uint16_t class_number = reader.Short();
  const uint32_t ttl = reader.Long();
  reader.Skip(reader.Short());
  if (!reader.ok()) return false;
  if (type != kTypeOpt) return true;
  if (out->edns || message[start] != 0) return false;
  out->edns = true;
  out->edns_version = static_cast<uint8_t>(ttl >> 16);
  out->dnssec_ok = (ttl & kDnssecOk) != 0;
  out->edns_bytes = std::max<uint16_t>(class_number, kMinDatagramBytes);
  return true;
}

void WriteHeader(Writer& writer, uint16_t id, unsigned flags, unsigned questions) {
  writer.Short(id);
  writer.Short(flags);
  writer.Short(questions);
  for (int i = 0; i < 3; ++i) writer.Short(0);
}

void WriteAddress(Writer& writer, const IpAddress& address, uint32_t ttl_seconds) {
  const Bytes bytes = address.is_v4() ? Bytes(address.bytes).subspan(12) : Bytes(address.bytes);
  writer.Short(kPointerToQuestion);
  writer.Short(address.is_v4() ? kTypeA : kTypeAaaa);
  writer.Short(kClassIn);
  writer.Long(ttl_seconds);
  writer.Short(static_cast<unsigned>(bytes.size()));
  writer.Append(bytes);
}

void WriteOpt(Writer& writer, const Query& query, uint8_t rcode) {
  writer.Byte(0);
  writer.Short(kTypeOpt);
  writer.Short(kOurEdnsBytes);
  writer.Long(static_cast<uint32_t>(rcode >> 4) << 24 | (query.dnssec_ok ? kDnssecOk : 0));
  writer.Short(0);
}

size_t AddressBytes(const IpAddress& address) { return 12 + (address.is_v4() ? 4 : 16); }

}  // namespace

size_t Query::datagram_limit() const {
  if (!edns) return kMinDatagramBytes;
  return std::min<size_t>(edns_bytes, kMaxDatagramBytes);
}

Parsed ParseQuery(Bytes message, Query* out) {
  *out = {};
  if (message.size() < kHeaderBytes) return Parsed::kIgnore;
  Reader reader(message);
  out->id = reader.Short();
  out->flags = reader.Short();
  if ((out->flags & kResponse) != 0) return Parsed::kIgnore;
  const uint16_t questions = reader.Short();
  uint32_t records = 0;
  for (int section = 0; section < 3; ++section) records += reader.Short();
  if (questions != 1 || !ReadQuestionName(reader, &out->name)) return Parsed::kMalformed;
  out->type = reader.Short();
  out->class_number = reader.Short();
  if (!reader.ok()) return Parsed::kMalformed;
  out->question_end = reader.at();
  // Each takes 11 bytes at least, so their number is bounded by the message.
  for (uint32_t i = 0; i < records; ++i) {
    if (!ReadRecord(reader, message, out)) return Parsed::kMalformed;
  }
  return Parsed::kQuery;
}

std::vector<uint8_t> WriteAnswer(Bytes message, const Query& query, const Answer& answer,
                                 size_t limit) {
  Writer writer;
  const uint16_t kept =
      query.flags & (kOpcodeMask | kRecursionDesired | kCheckingDisabled);  // RFC 4035 3.1.6
  const bool ours = answer.rcode == kNoError;
  unsigned flags = kept | kResponse | kRecursionAvailable | (ours ? kAuthoritative : 0u) |
                   (answer.rcode & kRcodeMask);
  WriteHeader(writer, query.id, flags, 1);
  writer.Append(message.subspan(kHeaderBytes, query.question_end - kHeaderBytes));
  const size_t reserved = query.edns ? kOptBytes : 0;
  unsigned written = 0;
  for (const IpAddress& address : answer.addresses) {
    if (writer.out.size() + AddressBytes(address) + reserved > limit) {
      flags |= kTruncated;
      break;
    }
    WriteAddress(writer, address, answer.ttl_seconds);
    ++written;
  }
  if (query.edns) WriteOpt(writer, query, answer.rcode);
  writer.SetShort(2, flags);
  writer.SetShort(6, written);
  writer.SetShort(10, query.edns ? 1 : 0);
  return std::move(writer.out);
}

std::vector<uint8_t> WriteFormErr(Bytes message) {
  Reader reader(message);
  const uint16_t id = reader.Short();
  const uint16_t kept = reader.Short() & (kOpcodeMask | kRecursionDesired);
  Writer writer;
  WriteHeader(writer, id, kept | kResponse | kRecursionAvailable | kFormErr, 0);
  return std::move(writer.out);
}

std::vector<uint8_t> WriteTruncated(Bytes message, const Query& query, Bytes answer) {
  Reader reader(answer, 2);
  const uint16_t flags = reader.Short();
  Writer writer;
  WriteHeader(writer, query.id, flags | kTruncated, 1);
  writer.Append(message.subspan(kHeaderBytes, query.question_end - kHeaderBytes));
  return std::move(writer.out);
}

uint16_t IdOf(Bytes message) { return Reader(message).Short(); }

void SetId(uint16_t id, std::span<uint8_t> message) {
  message[0] = static_cast<uint8_t>(id >> 8);
  message[1] = static_cast<uint8_t>(id);
}

bool Answers(Bytes answer, uint16_t id, Bytes message, const Query& query) {
  if (answer.size() < kHeaderBytes) return false;
  Reader reader(answer);
  if (reader.Short() != id) return false;
  const uint16_t flags = reader.Short();
  if ((flags & kResponse) == 0 || (flags & kOpcodeMask) != (query.flags & kOpcodeMask))
    return false;
  const uint16_t questions = reader.Short();
  if (questions == 0) return (flags & kRcodeMask) != kNoError && (flags & kRcodeMask) != kNxDomain;
  if (questions != 1 || answer.size() < query.question_end) return false;
  // Lengths of labels are below the letters; type and class are not letters.
  const size_t name_end = query.question_end - 4;
  for (size_t i = kHeaderBytes; i < query.question_end; ++i) {
    const bool same =
        i < name_end ? Lower(answer[i]) == Lower(message[i]) : answer[i] == message[i];
    if (!same) return false;
  }
  return true;
}

}  // namespace weft::dns
