// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/compiled_host.h"

#include <algorithm>
#include <map>

#include "proxy/base/status.h"

namespace weft::route {
namespace {

bool IsGrpc(const http::RequestHead& head) {
  const std::optional<std::string_view> type = head.headers.Get("content-type");
  constexpr std::string_view kGrpc = "application/grpc";
  if (!type.has_value() || !type->starts_with(kGrpc)) return false;
  return type->size() == kGrpc.size() || (*type)[kGrpc.size()] == '+';
}

}  // namespace

absl::StatusOr<CompiledRoute> CompiledRoute::Create(const model::Route& route) {
  CompiledRoute compiled(route);
  if (route.path.kind == model::PathMatch::Kind::kRegex) {
    WEFT_ASSIGN_OR_RETURN(compiled.path_,
                          Regex::Create(route.path.value, !route.path.case_sensitive));
  }
  for (const model::HeaderMatch& header : route.headers) {
    WEFT_ASSIGN_OR_RETURN(HeaderMatcher matcher, HeaderMatcher::Create(header));
    compiled.headers_.push_back(std::move(matcher));
  }
  for (const model::QueryMatch& query : route.query) {
    WEFT_ASSIGN_OR_RETURN(QueryMatcher matcher, QueryMatcher::Create(query));
    compiled.query_.push_back(std::move(matcher));
  }
  return compiled;
}

bool CompiledRoute::PathMatches(std::string_view path) const {
  using Kind = model::PathMatch::Kind;
  const model::PathMatch& match = route_->path;
  if (match.kind == Kind::kRegex) return path_->Matches(path);
  const std::string_view value = match.value;
  if (path.size() < value.size()) return false;
  const std::string_view head = path.substr(0, value.size());
  if (!(match.case_sensitive ? head == value : EqualsIgnoreCase(head, value))) return false;
  if (match.kind == Kind::kPrefix) return true;
  if (path.size() == value.size()) return true;
  return match.kind == Kind::kSeparatedPrefix && path[value.size()] == '/';
}

bool CompiledRoute::Matches(const http::RequestHead& head, std::string_view path,
                            std::string_view query) const {
  if (!PathMatches(path)) return false;
  if (route_->grpc_only && !IsGrpc(head)) return false;
  for (const HeaderMatcher& matcher : headers_) {
    if (!matcher.Matches(head)) return false;
  }
  for (const QueryMatcher& matcher : query_) {
    if (!matcher.Matches(query)) return false;
  }
  return true;
}

absl::StatusOr<std::unique_ptr<CompiledHost>> CompiledHost::Create(const model::VirtualHost& host) {
  std::unique_ptr<CompiledHost> compiled(new CompiledHost(host));
  for (size_t i = 0; i < host.routes.size(); ++i) {
    absl::StatusOr<CompiledRoute> route = CompiledRoute::Create(host.routes[i]);
    if (!route.ok()) {
      return Annotate(route.status(), absl::StrCat("virtual host ", host.name, ": route ", i, " ",
                                                   host.routes[i].name));
    }
    compiled->routes_.push_back(*std::move(route));
  }
  compiled->BuildIndex();
  return compiled;
}

void CompiledHost::BuildIndex() {
  using Kind = model::PathMatch::Kind;
  std::map<std::string_view, Indices> prefixes;
  for (uint32_t i = 0; i < routes_.size(); ++i) {
    const model::PathMatch& path = routes_[i].route().path;
    if (path.kind == Kind::kRegex || !path.case_sensitive) {
      others_.push_back(i);
    } else if (path.kind == Kind::kExact) {
      exact_[path.value].push_back(i);
    } else {
      prefixes[path.value].push_back(i);
    }
  }
  std::vector<int32_t> open;  // the chain of entries that are prefixes of the last one
  for (auto& [text, routes] : prefixes) {
    while (!open.empty() && !text.starts_with(prefixes_[static_cast<size_t>(open.back())].text)) {
      open.pop_back();
    }
    const int32_t parent = open.empty() ? -1 : open.back();
    open.push_back(static_cast<int32_t>(prefixes_.size()));
    prefixes_.push_back({text, parent, std::move(routes)});
  }
}

// Every entry between the longest prefix of `path` and `path` itself in sort order descends from
// that prefix.
int32_t CompiledHost::LongestPrefix(std::string_view path) const {
  const auto after = std::upper_bound(
      prefixes_.begin(), prefixes_.end(), path,
      [](std::string_view text, const Prefix& prefix) { return text < prefix.text; });
  int32_t at = static_cast<int32_t>(after - prefixes_.begin()) - 1;
  while (at >= 0 && !path.starts_with(prefixes_[static_cast<size_t>(at)].text)) {
    at = prefixes_[static_cast<size_t>(at)].parent;
  }
  return at;
}

const model::Route* CompiledHost::Match(const http::RequestHead& head) const {
  const std::string_view whole = head.path;
  const size_t query_at = whole.find('?');
  const std::string_view path = whole.substr(0, query_at);
  const std::string_view query =
      query_at == std::string_view::npos ? std::string_view() : whole.substr(query_at + 1);

  const uint32_t none = static_cast<uint32_t>(routes_.size());
  uint32_t best = none;
  // Each list is ascending: its first match is its best, and nothing at or behind the best so far
  // is looked at.
  const auto try_list = [&](const Indices& list) {
    for (uint32_t i : list) {
      if (i >= best) return;
      if (routes_[i].Matches(head, path, query)) {
        best = i;
        return;
      }
    }
  };
  if (const auto exact = exact_.find(path); exact != exact_.end()) try_list(exact->second);
  for (int32_t at = LongestPrefix(path); at >= 0; at = prefixes_[static_cast<size_t>(at)].parent) {
    try_list(prefixes_[static_cast<size_t>(at)].routes);
  }
  try_list(others_);
  return best == none ? nullptr : &routes_[best].route();
}

}  // namespace weft::route
