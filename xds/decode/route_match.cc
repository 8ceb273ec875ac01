// SPDX-License-Identifier: Apache-2.0
#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

namespace rt = envoy::config::route::v3;
using envoy::type::matcher::v3::RegexMatcher;
using envoy::type::matcher::v3::StringMatcher;
using Kind = model::StringMatch::Kind;

// Whether it compiles is for the router to say (DecodeOptions::check_routes).
constexpr size_t kMaxRegexBytes = 1024;

absl::Status DecodeRegex(const RegexMatcher& in, std::string* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"google_re2", "regex"}));
  if (in.regex().empty()) return Bad("regex: missing");
  if (in.regex().size() > kMaxRegexBytes) return Bad("regex: longer than 1024 bytes");
  *out = in.regex();
  return absl::OkStatus();
}

absl::Status NotEmpty(const std::string& value) {
  return value.empty() ? Bad("empty") : absl::OkStatus();
}

absl::Status DecodeString(const StringMatcher& in, model::StringMatch* out) {
  out->ignore_case = in.ignore_case();
  switch (in.match_pattern_case()) {
    case StringMatcher::kExact:
      *out = {Kind::kExact, in.exact(), in.ignore_case()};
      break;
    case StringMatcher::kPrefix:
      WEFT_FIELD("prefix", NotEmpty(in.prefix()));
      *out = {Kind::kPrefix, in.prefix(), in.ignore_case()};
      break;
    case StringMatcher::kSuffix:
      WEFT_FIELD("suffix", NotEmpty(in.suffix()));
      *out = {Kind::kSuffix, in.suffix(), in.ignore_case()};
      break;
    case StringMatcher::kContains:
      WEFT_FIELD("contains", NotEmpty(in.contains()));
      *out = {Kind::kContains, in.contains(), in.ignore_case()};
      break;
    case StringMatcher::kSafeRegex:
      out->kind = Kind::kRegex;
      out->ignore_case = false;  // has no effect on a regex
      WEFT_FIELD("safe_regex", DecodeRegex(in.safe_regex(), &out->value));
      break;
    case StringMatcher::kCustom:
      return NotSupported("custom");
    default:
      return Bad("no pattern");
  }
  return OnlyFields(in, {"exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"});
}

absl::Status DecodeHeader(const rt::HeaderMatcher& in, model::HeaderMatch* out) {
  WEFT_FIELD("name", DecodeHeaderName(in.name(), true, &out->name));
  if (out->name == "host") out->name = ":authority";  // one thing, whatever the version of HTTP
  out->invert = in.invert_match();
  out->treat_missing_as_empty = in.treat_missing_header_as_empty();
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  switch (in.header_match_specifier_case()) {
    case rt::HeaderMatcher::kExactMatch:
      out->value = {Kind::kExact, in.exact_match()};
      return absl::OkStatus();
    case rt::HeaderMatcher::kPrefixMatch:
      out->value = {Kind::kPrefix, in.prefix_match()};
      return Annotate(NotEmpty(in.prefix_match()), "prefix_match");
    case rt::HeaderMatcher::kSuffixMatch:
      out->value = {Kind::kSuffix, in.suffix_match()};
      return Annotate(NotEmpty(in.suffix_match()), "suffix_match");
    case rt::HeaderMatcher::kContainsMatch:
      out->value = {Kind::kContains, in.contains_match()};
      return Annotate(NotEmpty(in.contains_match()), "contains_match");
    case rt::HeaderMatcher::kSafeRegexMatch:
      out->value.emplace().kind = Kind::kRegex;
      return Annotate(DecodeRegex(in.safe_regex_match(), &out->value->value), "safe_regex_match");
    case rt::HeaderMatcher::kStringMatch:
      return Annotate(DecodeString(in.string_match(), &out->value.emplace()), "string_match");
    case rt::HeaderMatcher::kRangeMatch:
      out->range = {in.range_match().start(), in.range_match().end()};
      return absl::OkStatus();
    case rt::HeaderMatcher::kPresentMatch:
      out->present = in.present_match();
      return absl::OkStatus();
    default:
      return absl::OkStatus();  // the field must be there
  }
}

absl::Status DecodeQuery(const rt::QueryParameterMatcher& in, model::QueryMatch* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"name", "string_match", "present_match"}));
  WEFT_FIELD("name", NotEmpty(in.name()));
  if (in.name().size() > 1024) return Bad("name: longer than 1024 bytes");
  out->name = in.name();
  if (in.has_string_match()) {
    return Annotate(DecodeString(in.string_match(), &out->value.emplace()), "string_match");
  }
  const bool absent =
      in.query_parameter_match_specifier_case() == rt::QueryParameterMatcher::kPresentMatch &&
      !in.present_match();
  return absent ? NotSupported("present_match: false") : absl::OkStatus();
}

absl::Status CheckPath(const std::string& path) {
  if (path.find_first_of("?#") != std::string::npos) return Bad("must not contain ? or #");
  return absl::OkStatus();
}

absl::Status DecodePath(const rt::RouteMatch& in, model::PathMatch* out) {
  using Path = model::PathMatch::Kind;
  out->case_sensitive = !in.has_case_sensitive() || in.case_sensitive().value();
  switch (in.path_specifier_case()) {
    case rt::RouteMatch::kPrefix:
      out->kind = Path::kPrefix;
      out->value = in.prefix();
      return Annotate(CheckPath(in.prefix()), "prefix");
    case rt::RouteMatch::kPath:
      out->kind = Path::kExact;
      out->value = in.path();
      return Annotate(CheckPath(in.path()), "path");
    case rt::RouteMatch::kSafeRegex:
      out->kind = Path::kRegex;
      out->case_sensitive = true;  // has no effect on a regex
      return Annotate(DecodeRegex(in.safe_regex(), &out->value), "safe_regex");
    case rt::RouteMatch::kPathSeparatedPrefix:
      out->kind = Path::kSeparatedPrefix;
      out->value = in.path_separated_prefix();
      if (out->value.size() < 2 || out->value.back() == '/') {
        return Bad("path_separated_prefix: must be longer than 1 and not end with /");
      }
      return Annotate(CheckPath(out->value), "path_separated_prefix");
    case rt::RouteMatch::kConnectMatcher:
      return NotSupported("connect_matcher");
    case rt::RouteMatch::kPathMatchPolicy:
      return NotSupported("path_match_policy");
    default:
      return Bad("prefix: missing, and every other way to match a path too");
  }
}

}  // namespace

absl::Status DecodePathAndConditions(const rt::RouteMatch& in, model::Route* out) {
  WEFT_RETURN_IF_ERROR(DecodePath(in, &out->path));
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"prefix", "path", "safe_regex", "path_separated_prefix",
                                       "case_sensitive", "headers", "query_parameters", "grpc"}));
  for (int i = 0; i < in.headers_size(); ++i) {
    WEFT_FIELD(Indexed("headers", i), DecodeHeader(in.headers(i), &out->headers.emplace_back()));
  }
  for (int i = 0; i < in.query_parameters_size(); ++i) {
    WEFT_FIELD(Indexed("query_parameters", i),
               DecodeQuery(in.query_parameters(i), &out->query.emplace_back()));
  }
  WEFT_FIELD("grpc", OnlyFields(in.grpc(), {}));
  out->grpc_only = in.has_grpc();
  return absl::OkStatus();
}

}  // namespace weft::xds
