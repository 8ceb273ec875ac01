// SPDX-License-Identifier: Apache-2.0
// Compiled matchers for strings, headers and query parameters. Immutable; any thread. Internal to
// proxy/route.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/http/message.h"
#include "xds/model/route.h"

namespace re2 {
class RE2;
}

namespace weft::route {

// Full matches only. Bounded in size: hostile configurations are refused here.
class Regex final {
 public:
  static absl::StatusOr<Regex> Create(std::string_view pattern, bool ignore_case);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();
  bool Matches(std::string_view text) const;

 private:
  explicit Regex(std::unique_ptr<re2::RE2> re);
  std::unique_ptr<re2::RE2> re_;
};

class StringMatcher final {
 public:
  static absl::StatusOr<StringMatcher> Create(const model::StringMatch& match);
  bool Matches(std::string_view text) const;

 private:
  explicit StringMatcher(const model::StringMatch& match) : match_(&match) {}
  const model::StringMatch* match_;
  std::optional<Regex> regex_;
};

class HeaderMatcher final {
 public:
  static absl::StatusOr<HeaderMatcher> Create(const model::HeaderMatch& match);
  bool Matches(const http::RequestHead& head) const;

 private:
  explicit HeaderMatcher(const model::HeaderMatch& match) : match_(&match) {}
  const model::HeaderMatch* match_;
  std::optional<StringMatcher> value_;
};

class QueryMatcher final {
 public:
  static absl::StatusOr<QueryMatcher> Create(const model::QueryMatch& match);
  // `query` without the '?'.
  bool Matches(std::string_view query) const;

 private:
  explicit QueryMatcher(const model::QueryMatch& match) : match_(&match) {}
  const model::QueryMatch* match_;
  std::optional<StringMatcher> value_;
};

bool EqualsIgnoreCase(std::string_view a, std::string_view b);

}  // namespace weft::route
