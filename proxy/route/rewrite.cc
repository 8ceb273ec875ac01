// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/rewrite.h"

#include <string>

namespace weft::route {
namespace {

// The path of `target` with what `match` has matched replaced by `replacement`; the query stays.
std::string ReplaceMatched(std::string_view target, const model::PathMatch& match,
                           std::string_view replacement) {
  using Kind = model::PathMatch::Kind;
  const size_t query_at = target.find('?');
  const std::string_view path = target.substr(0, query_at);
  const bool prefix = match.kind == Kind::kPrefix || match.kind == Kind::kSeparatedPrefix;
  std::string_view rest = prefix && path.size() >= match.value.size()
                              ? path.substr(match.value.size())
                              : std::string_view();
  // "/a" by "/" for "/a/b": one slash between the two (Gateway API, ReplacePrefixMatch).
  if (match.kind == Kind::kSeparatedPrefix && replacement.ends_with('/') && rest.starts_with('/')) {
    rest.remove_prefix(1);
  }
  std::string out(replacement);
  out += rest;
  if (!out.starts_with('/')) out.insert(0, "/");
  if (query_at != std::string_view::npos) out += target.substr(query_at);
  return out;
}

// Where the port begins, npos if there is none; an IPv6 address has colons of its own.
size_t PortAt(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  const size_t bracket = authority.rfind(']');
  if (colon == std::string_view::npos) return colon;
  if (bracket != std::string_view::npos && colon < bracket) return std::string_view::npos;
  return colon;
}

std::string RedirectHost(const model::Redirect& redirect, const http::RequestHead& request,
                         std::string_view scheme) {
  if (redirect.host.has_value() && !redirect.host->empty()) return *redirect.host;
  std::string_view host = request.authority;
  const size_t port_at = PortAt(host);
  if (port_at == std::string_view::npos) return std::string(host);
  const std::string_view port = host.substr(port_at + 1);
  // The default port of the old scheme would be wrong with the new one.
  const bool default_port =
      (request.scheme == "http" && port == "80") || (request.scheme == "https" && port == "443");
  const bool drop = redirect.port.has_value() || (scheme != request.scheme && default_port);
  return std::string(drop ? host.substr(0, port_at) : host);
}

std::string RedirectPath(const model::Redirect& redirect, const model::PathMatch& match,
                         const http::RequestHead& request) {
  std::string_view target = request.path;
  if (redirect.strip_query) target = target.substr(0, target.find('?'));
  if (redirect.path.has_value()) {
    std::string path = *redirect.path;
    const size_t query_at = target.find('?');
    const bool own_query = path.find('?') != std::string::npos;
    if (!own_query && query_at != std::string_view::npos) path += target.substr(query_at);
    return path;
  }
  if (redirect.prefix_rewrite.has_value()) {
    return ReplaceMatched(target, match, *redirect.prefix_rewrite);
  }
  return std::string(target);
}

}  // namespace

const model::WeightedCluster& ChooseCluster(const model::Forward& forward, uint64_t random) {
  if (forward.clusters.size() == 1) return forward.clusters.front();
  uint64_t sum = 0;
  for (const model::WeightedCluster& cluster : forward.clusters) sum += cluster.weight;
  uint64_t point = sum == 0 ? 0 : random % sum;
  for (const model::WeightedCluster& cluster : forward.clusters) {
    if (point < cluster.weight) return cluster;
    point -= cluster.weight;
  }
  return forward.clusters.back();
}

void ApplyChanges(std::span<const model::HeaderChange> changes, http::HeaderList* headers) {
  using Action = model::HeaderChange::Action;
  for (const model::HeaderChange& change : changes) {
    switch (change.action) {
      case Action::kAppendOrAdd:
        headers->Add(change.name, change.value);
        break;
      case Action::kAddIfAbsent:
        if (headers->Count(change.name) == 0) headers->Add(change.name, change.value);
        break;
      case Action::kOverwriteOrAdd:
        headers->Set(change.name, change.value);
        break;
      case Action::kOverwrite:
        if (headers->Count(change.name) > 0) headers->Set(change.name, change.value);
        break;
      case Action::kRemove:
        headers->Remove(change.name);
        break;
    }
  }
}

void ApplyRequestChanges(const model::WeightedCluster* cluster, const RouteMatch& match,
                         const model::RouteConfiguration& config, http::HeaderList* headers) {
  if (cluster != nullptr) ApplyChanges(cluster->request_headers, headers);
  ApplyChanges(match.route->request_headers, headers);
  ApplyChanges(match.virtual_host->request_headers, headers);
  ApplyChanges(config.request_headers, headers);
}

void ApplyResponseChanges(const model::WeightedCluster* cluster, const RouteMatch& match,
                          const model::RouteConfiguration& config, http::HeaderList* headers) {
  if (cluster != nullptr) ApplyChanges(cluster->response_headers, headers);
  ApplyChanges(match.route->response_headers, headers);
  ApplyChanges(match.virtual_host->response_headers, headers);
  ApplyChanges(config.response_headers, headers);
}

void ApplyRewrites(const model::Forward& forward, const model::PathMatch& path_match,
                   http::RequestHead* head) {
  if (forward.prefix_rewrite.has_value()) {
    head->path = ReplaceMatched(head->path, path_match, *forward.prefix_rewrite);
  }
  if (forward.host_rewrite.has_value()) head->authority = *forward.host_rewrite;
}

http::ResponseHead MakeRedirect(const model::Redirect& redirect, const model::PathMatch& path_match,
                                const http::RequestHead& request) {
  const std::string& scheme = redirect.scheme.has_value() ? *redirect.scheme : request.scheme;
  std::string location = scheme + "://" + RedirectHost(redirect, request, scheme);
  if (redirect.port.has_value()) location += ":" + std::to_string(*redirect.port);
  location += RedirectPath(redirect, path_match, request);
  http::ResponseHead head;
  head.status = redirect.status;
  head.headers.Add("location", location);
  head.headers.Add("content-length", "0");
  return head;
}

}  // namespace weft::route
