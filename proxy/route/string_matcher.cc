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

// All values of a field as one, as Envoy joins them; the storage is used only if there are several.
std::optional<std::string_view> FieldValue(const http::RequestHead& head, std::string_view name,
                                           std::string* storage) {
  if (!name.empty() && name[0] == ':') {
    if (name == ":method") return head.method;
    if (name == ":authority") return head.authority;
    if (name == ":path") return head.path;
    if (name == ":scheme") return head.scheme;
    return std::nullopt;
  }
  if (name == "host") return head.authority;
  std::optional<std::string_view> first;
  bool several = false;
  for (http::HeaderList::Field field : head.headers) {
    if (field.name != name) continue;
    if (!first.has_value()) {
      first = field.value;
      continue;
    }
    if (!several) *storage = *first;
    several = true;
    storage->append(",").append(field.value);
  }
  return several ? std::optional<std::string_view>(*storage) : first;
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
  std::string storage;
  std::optional<std::string_view> value = FieldValue(head, match_->name, &storage);
  if (!value_.has_value() && !match_->range.has_value()) {
    return (value.has_value() == match_->present) != match_->invert;
  }
  // A missing field matches nothing, inverted or not, unless it counts as empty.
  if (!value.has_value()) {
    if (!match_->treat_missing_as_empty) return false;
    value = std::string_view();
  }
  if (value_.has_value()) return value_->Matches(*value) != match_->invert;
  int64_t number = 0;
  const char* end = value->data() + value->size();
  const auto parsed = std::from_chars(value->data(), end, number);
  const bool in_range = !value->empty() && parsed.ec == std::errc() && parsed.ptr == end &&
                        number >= match_->range->begin && number < match_->range->end;
  return in_range != match_->invert;
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
