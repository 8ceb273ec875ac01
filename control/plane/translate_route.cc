// SPDX-License-Identifier: Apache-2.0
// HTTPRoutes of one Service port -> one route configuration. The listener is the Service's own
// address, so every Host belongs to it and one virtual host is enough.
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "control/plane/references.h"
#include "control/plane/translate.h"

namespace weft::plane {
namespace {

using model::PathMatch;
using model::RetryPolicy;

constexpr uint32_t kDefaultRetryAttempts = 2;
// A retry prefers an endpoint that this request has not tried (Istio's default).
constexpr uint32_t kHostSelectionAttempts = 5;

// One match of one rule, in the order that Gateway API demands.
struct Entry {
  const HttpRoute* route;
  const HttpRoute::Rule* rule;
  const HttpRoute::Match* match;
};

int PathRank(PathMatch::Kind kind) {
  switch (kind) {
    case PathMatch::Kind::kExact:
      return 0;
    case PathMatch::Kind::kRegex:
      return 1;  // Gateway API leaves its place open
    default:
      return 2;
  }
}

// Exact path, then the longest; a method; most headers; most query parameters; else routes by name
// and rules in their order (the sort is stable).
bool ComesBefore(const Entry& a, const Entry& b) {
  const auto key = [](const Entry& e) {
    return std::tuple(PathRank(e.match->path.kind),
                      -static_cast<int64_t>(e.match->path.value.size()), e.match->method.empty(),
                      -static_cast<int64_t>(e.match->headers.size()),
                      -static_cast<int64_t>(e.match->query.size()), e.route->meta.name);
  };
  return key(a) < key(b);
}

std::vector<Entry> CollectEntries(const ManifestSet& set, const Service& service,
                                  const Service::Port& port) {
  std::vector<Entry> entries;
  for (const HttpRoute* route : set.All<HttpRoute>()) {
    if (route->meta.namespace_name != service.meta.namespace_name) continue;
    const bool attached =
        std::any_of(route->parents.begin(), route->parents.end(), [&](const HttpRoute::Parent& p) {
          return p.service == service.meta.name && AttachesTo(p, port);
        });
    if (!attached) continue;
    for (const HttpRoute::Rule& rule : route->rules) {
      for (const HttpRoute::Match& match : rule.matches) entries.push_back({route, &rule, &match});
    }
  }
  std::stable_sort(entries.begin(), entries.end(), ComesBefore);
  return entries;
}

std::optional<RetryPolicy> RetryOf(const TrafficOptions& traffic, const HttpRoute::Rule* rule) {
  RetryPolicy retry{.num_retries = 0,
                    .avoid_previous_hosts = true,
                    .host_selection_attempts = kHostSelectionAttempts};
  retry.per_try_timeout = traffic.per_try_timeout.value_or(retry.per_try_timeout);
  if (rule != nullptr && rule->try_timeout.has_value()) retry.per_try_timeout = *rule->try_timeout;
  if (rule != nullptr && rule->retry.has_value()) {
    const HttpRoute::Retry& own = *rule->retry;
    // Gateway API: a retry stanza also covers failures to get any answer.
    retry.retry_on = model::kRetryConnectFailure | model::kRetryRefusedStream | model::kRetryReset;
    if (!own.codes.empty()) retry.retry_on |= model::kRetryRetriableStatusCodes;
    retry.status_codes = own.codes;
    retry.num_retries = own.attempts.value_or(kDefaultRetryAttempts);
    if (own.backoff.has_value() && own.backoff->count() > 0) {
      retry.base_interval = *own.backoff;
      retry.max_interval = *own.backoff * 10;
    }
  } else if (traffic.retry_on != 0) {
    retry.retry_on = traffic.retry_on;
    retry.status_codes = traffic.retry_codes;
    retry.num_retries = traffic.retry_attempts.value_or(kDefaultRetryAttempts);
  }
  // A time-out for the only try is a policy too.
  if (retry.num_retries == 0 && retry.per_try_timeout.count() == 0) return std::nullopt;
  return retry;
}

model::Forward ForwardTo(const Service& parent, const HttpRoute::Rule* rule,
                         const std::string& default_cluster, const TranslateOptions& options) {
  model::Forward forward{.timeout = parent.traffic.timeout.value_or(model::Milliseconds(0))};
  forward.retry = RetryOf(parent.traffic, rule);
  if (rule == nullptr) {
    forward.clusters = {{.cluster = default_cluster, .weight = 1}};
    return forward;
  }
  forward.timeout = rule->timeout.value_or(forward.timeout);
  forward.host_rewrite = rule->host_rewrite;
  for (const HttpRoute::Backend& backend : rule->backends) {
    if (backend.weight == 0) continue;
    Service named;  // may be gone by now: its cluster is missing then, and the requests fail
    named.meta.name = backend.service;
    named.meta.namespace_name = parent.meta.namespace_name;
    forward.clusters.push_back({.cluster = OutboundName(backend.port, "", HostOf(named, options)),
                                .weight = backend.weight,
                                .request_headers = backend.request_headers,
                                .response_headers = backend.response_headers});
  }
  return forward;
}

model::Redirect RedirectTo(const HttpRoute::Redirect& from) {
  model::Redirect redirect{.status = from.status};
  if (!from.scheme.empty()) redirect.scheme = from.scheme;
  if (!from.host.empty()) redirect.host = from.host;
  redirect.port = from.port;
  return redirect;
}

// A path match and what its prefix becomes. Gateway API replaces by segments, Envoy's
// prefix_rewrite by characters: where a slash would be lost or doubled, one match becomes two.
struct Variant {
  PathMatch path;
  std::optional<std::string> rewrite;  // prefix_rewrite
};

std::vector<Variant> Variants(const PathMatch& path,
                              const std::optional<HttpRoute::PathRewrite>& rewrite) {
  if (!rewrite.has_value() || rewrite->whole) {
    // With an exact match the prefix is the whole path.
    return {{path, rewrite.has_value()
                       ? std::optional(rewrite->value.empty() ? "/" : rewrite->value)
                       : std::nullopt}};
  }
  std::string to = rewrite->value;
  while (!to.empty() && to.back() == '/') to.pop_back();
  if (path.value == "/") return {{path, to + "/"}};
  if (!to.empty()) return {{path, to}};
  return {{{.kind = PathMatch::Kind::kExact, .value = path.value}, "/"},
          {{.kind = PathMatch::Kind::kPrefix, .value = path.value + "/"}, "/"}};
}

std::string RouteName(const Entry& entry) {
  const HttpRoute::Rule& rule = *entry.rule;
  const std::string last =
      rule.name.empty() ? std::to_string(&rule - entry.route->rules.data()) : rule.name;
  return absl::StrCat(entry.route->meta.namespace_name, "/", entry.route->meta.name, "/", last);
}

void AddRoutes(const Entry& entry, const Service& service, const TranslateOptions& options,
               std::vector<model::Route>* routes) {
  const HttpRoute::Rule& rule = *entry.rule;
  const auto& rewrite = rule.redirect.has_value() ? rule.redirect->path : rule.path_rewrite;
  for (Variant& variant : Variants(entry.match->path, rewrite)) {
    model::Route route{.name = RouteName(entry),
                       .path = std::move(variant.path),
                       .headers = entry.match->headers,
                       .query = entry.match->query};
    if (!entry.match->method.empty()) {
      route.headers.push_back(
          {.name = ":method", .value = model::StringMatch{.value = entry.match->method}});
    }
    if (rule.redirect.has_value()) {
      model::Redirect redirect = RedirectTo(*rule.redirect);
      (rewrite.has_value() && rewrite->whole ? redirect.path : redirect.prefix_rewrite) =
          variant.rewrite;
      route.action = std::move(redirect);
    } else {
      model::Forward forward = ForwardTo(service, &rule, "", options);
      forward.prefix_rewrite = variant.rewrite;
      route.action = std::move(forward);
    }
    route.request_headers = rule.request_headers;
    route.response_headers = rule.response_headers;
    routes->push_back(std::move(route));
  }
}

}  // namespace

model::RouteConfiguration TranslateRoutes(const ManifestSet& set, const Service& service,
                                          const Service::Port& port,
                                          const TranslateOptions& options) {
  const std::string host = HostOf(service, options);
  const std::string name = OutboundName(port.port, "", host);
  model::VirtualHost all{.name = absl::StrCat(host, ":", port.port), .domains = {"*"}};
  const std::vector<Entry> entries = CollectEntries(set, service, port);
  for (const Entry& entry : entries) AddRoutes(entry, service, options, &all.routes);
  // With routes attached, what none of them matches is 404 (Gateway API); without, everything goes
  // to the Service.
  if (entries.empty()) {
    all.routes.push_back({.name = "default", .action = ForwardTo(service, nullptr, name, options)});
  }
  return {.name = name, .virtual_hosts = {std::move(all)}};
}

}  // namespace weft::plane
