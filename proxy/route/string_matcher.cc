// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/string_matcher.h"

#include <re2/re2.h>

#include <algorithm>
#include <charconv>

#include "proxy/base/status.h"

namespace weft::route {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr int64_t kMaxRegexMemoryBytes = 1 << 20;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool Equal(std::string_view a, std::string_view b, bool ignore_case) {
  return ignore_case ? EqualsIgnoreCase(a, b) : a == b;
}

bool Contains(std::string_view text, std::string_view part, bool ignore_case) {
  if (!ignore_case) return text.find(part) != std::string_view::npos;
  const auto same = [](char a, char b) { return Lower(a) == Lower(b); };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end() ||
         part.empty();
}

// Calls visit(value) for each value of a field until it returns true; what it returned last.
// `present` tells if there was any. Every value counts on its own, as in Envoy: a rule about "b"
// sees the b of "a" and "b", whatever their order.
template <typename Visit>
bool AnyValue(const http::RequestHead& head, std::string_view name, bool* present, Visit visit) {
  *present = true;
  if (name == ":method") return visit(head.method);
  if (name == ":authority" || name == "host") return visit(head.authority);
  if (name == ":path") return visit(head.path);
  if (name == ":scheme") return visit(head.scheme);
  *present = false;
  for (http::HeaderList::Field field : head.headers) {
    if (field.name != name) continue;
    *present = true;
    if (visit(field.value)) return true;
  }
  return false;
}

bool InRange(std::string_view text, const model::HeaderMatch::Range& range) {
  int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return !text.empty() && parsed.ec == std::errc() && parsed.ptr == end && number >= range.begin &&
         number < range.end;
}

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return Lower(x) == Lower(y); });
}

Regex::Regex(std::unique_ptr<re2::RE2> re) : re_(std::move(re)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Create(std::string_view pattern, bool ignore_case) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex of ", pattern.size(), " bytes; the limit is ", kMaxPatternBytes));
  }
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxRegexMemoryBytes);
  options.set_case_sensitive(!ignore_case);
  // Bytes, not UTF-8: a path that is no valid UTF-8 must match or not like any other, never fail.
  options.set_encoding(re2::RE2::Options::EncodingLatin1);
  auto re = std::make_unique<re2::RE2>(re2::StringPiece(pattern.data(), pattern.size()), options);
  if (!re->ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("regex \"", AbslView(pattern), "\": ", re->error()));
  }
  return Regex(std::move(re));
}

bool Regex::Matches(std::string_view text) const {
  return re2::RE2::FullMatch(re2::StringPiece(text.data(), text.size()), *re_);
}

absl::StatusOr<StringMatcher> StringMatcher::Create(const model::StringMatch& match) {
  StringMatcher matcher(match);
  if (match.kind == model::StringMatch::Kind::kRegex) {
    WEFT_ASSIGN_OR_RETURN(matcher.regex_, Regex::Create(match.value, match.ignore_case));
  }
  return matcher;
}

bool StringMatcher::Matches(std::string_view text) const {
  using Kind = model::StringMatch::Kind;
  const std::string_view value = match_->value;
  const bool ignore_case = match_->ignore_case;
  switch (match_->kind) {
    case Kind::kExact:
      return Equal(text, value, ignore_case);
    case Kind::kPrefix:
      return text.size() >= value.size() && Equal(text.substr(0, value.size()), value, ignore_case);
    case Kind::kSuffix:
      return text.size() >= value.size() &&
             Equal(text.substr(text.size() - value.size()), value, ignore_case);
    case Kind::kContains:
      return Contains(text, value, ignore_case);
    case Kind::kRegex:
      return regex_->Matches(text);
  }
  return false;
}

absl::StatusOr<HeaderMatcher> HeaderMatcher::Create(const model::HeaderMatch& match) {
  HeaderMatcher matcher(match);
  if (match.value.has_value()) {
    WEFT_ASSIGN_OR_RETURN(matcher.value_, StringMatcher::Create(*match.value));
  }
  return matcher;
}

bool HeaderMatcher::Matches(const http::RequestHead& head) const {
  const auto matches = [this](std::string_view value) {
    if (value_.has_value()) return value_->Matches(value);
    return match_->range.has_value() && InRange(value, *match_->range);
  };
  bool present = false;
  const bool matched = AnyValue(head, match_->name, &present, matches);
  if (!value_.has_value() && !match_->range.has_value()) {
    return (present == match_->present) != match_->invert;
  }
  // A missing field matches nothing, inverted or not, unless it counts as empty.
  if (!present) return match_->treat_missing_as_empty && matches({}) != match_->invert;
  return matched != match_->invert;
}

absl::StatusOr<QueryMatcher> QueryMatcher::Create(const model::QueryMatch& match) {
  QueryMatcher matcher(match);
  if (match.value.has_value()) {
    WEFT_ASSIGN_OR_RETURN(matcher.value_, StringMatcher::Create(*match.value));
  }
  return matcher;
}

// The first parameter of that name decides, undecoded, as in Envoy.
bool QueryMatcher::Matches(std::string_view query) const {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) == match_->name) {
      const std::string_view value =
          equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1);
      return !value_.has_value() || value_->Matches(value);
    }
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace weft::route
