// SPDX-License-Identifier: Apache-2.0
// The routes of one virtual host, compiled and indexed by path so that ten thousand of them cost
// about as much as ten. Immutable; any thread. Internal to proxy/route.
#pragma once
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/route/string_matcher.h"

namespace weft::route {

class CompiledRoute final {
 public:
  static absl::StatusOr<CompiledRoute> Create(const model::Route& route);
  // `path` and `query` are the two parts of head.path.
  bool Matches(const http::RequestHead& head, std::string_view path, std::string_view query) const;
  const model::Route& route() const { return *route_; }

 private:
  explicit CompiledRoute(const model::Route& route) : route_(&route) {}
  bool PathMatches(std::string_view path) const;

  const model::Route* route_;
  std::optional<Regex> path_;
  std::vector<HeaderMatcher> headers_;
  std::vector<QueryMatcher> query_;
};

class CompiledHost final {
 public:
  static absl::StatusOr<std::unique_ptr<CompiledHost>> Create(const model::VirtualHost& host);
  // The first route that matches; null: none.
  const model::Route* Match(const http::RequestHead& head) const;
  const model::VirtualHost& host() const { return *host_; }

 private:
  using Indices = std::vector<uint32_t>;  // of routes_, ascending
  // Routes that share one prefix. Sorted by `text`; `parent` is the longest other entry that is a
  // prefix of this one, so the entries that are prefixes of a path are one entry and its ancestors.
  struct Prefix {
    std::string_view text;
    int32_t parent = -1;
    Indices routes;
  };

  explicit CompiledHost(const model::VirtualHost& host) : host_(&host) {}
  void BuildIndex();
  int32_t LongestPrefix(std::string_view path) const;

  const model::VirtualHost* host_;
  std::vector<CompiledRoute> routes_;
  std::unordered_map<std::string_view, Indices> exact_;
  std::vector<Prefix> prefixes_;
  Indices others_;  // regexes and what ignores case: tried one by one
};

}  // namespace weft::route
