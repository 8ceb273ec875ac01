// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/router.h"

#include <algorithm>
#include <set>

#include "proxy/base/status.h"
#include "proxy/route/compiled_host.h"

namespace weft::route {
namespace {

bool HasUpper(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

std::string Lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  }
  return out;
}

absl::Status CheckChanges(std::string_view where, const std::vector<model::HeaderChange>& changes) {
  for (const model::HeaderChange& change : changes) {
    if (change.name.empty() || change.name[0] == ':' || EqualsIgnoreCase(change.name, "host")) {
      return absl::InvalidArgumentError(
          absl::StrCat(AbslView(where), ": header \"", change.name, "\" may not be changed"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRoute(const model::Route& route) {
  WEFT_RETURN_IF_ERROR(CheckChanges("request headers", route.request_headers));
  WEFT_RETURN_IF_ERROR(CheckChanges("response headers", route.response_headers));
  const auto* forward = std::get_if<model::Forward>(&route.action);
  if (forward == nullptr) return absl::OkStatus();
  uint64_t sum = 0;
  for (const model::WeightedCluster& cluster : forward->clusters) {
    sum += cluster.weight;
    WEFT_RETURN_IF_ERROR(CheckChanges(cluster.cluster, cluster.request_headers));
    WEFT_RETURN_IF_ERROR(CheckChanges(cluster.cluster, cluster.response_headers));
  }
  if (forward->clusters.empty()) return absl::InvalidArgumentError("no cluster");
  if (forward->clusters.size() > 1 && sum == 0) {
    return absl::InvalidArgumentError("the weights of its clusters sum up to 0");
  }
  return absl::OkStatus();
}

absl::Status CheckHost(const model::VirtualHost& host, std::set<std::string>* domains) {
  if (host.domains.empty()) return absl::InvalidArgumentError("no domain");
  for (const std::string& domain : host.domains) {
    if (domain.empty()) return absl::InvalidArgumentError("empty domain");
    const size_t star = domain.find('*');
    const bool star_inside = star != std::string::npos && star != 0 && star + 1 != domain.size();
    if (star_inside || std::count(domain.begin(), domain.end(), '*') > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("domain \"", domain, "\": a star at the beginning or at the end"));
    }
    if (!domains->insert(Lowered(domain)).second) {
      return absl::InvalidArgumentError(absl::StrCat("domain \"", domain, "\" is claimed twice"));
    }
  }
  for (size_t i = 0; i < host.routes.size(); ++i) {
    const absl::Status status = CheckRoute(host.routes[i]);
    if (!status.ok()) return Annotate(status, absl::StrCat("route ", i, " ", host.routes[i].name));
  }
  return absl::OkStatus();
}

absl::Status CheckConfig(const model::RouteConfiguration& config) {
  std::set<std::string> domains;
  for (const model::VirtualHost& host : config.virtual_hosts) {
    const absl::Status status = CheckHost(host, &domains);
    if (!status.ok()) return Annotate(status, absl::StrCat("virtual host ", host.name));
  }
  return absl::OkStatus();
}

}  // namespace

Router::Router(std::shared_ptr<const model::RouteConfiguration> config)
    : config_(std::move(config)) {}
Router::~Router() = default;

void Router::AddWildcard(std::vector<Wildcards>* all, std::string text, const CompiledHost* host) {
  const size_t size = text.size();
  const auto at = std::find_if(all->begin(), all->end(),
                               [&](const Wildcards& wildcards) { return wildcards.size <= size; });
  if (at != all->end() && at->size == size) {
    at->hosts.emplace(std::move(text), host);
    return;
  }
  Wildcards wildcards{size, {}};
  wildcards.hosts.emplace(std::move(text), host);
  all->insert(at, std::move(wildcards));
}

absl::StatusOr<std::shared_ptr<const Router>> Router::Create(
    std::shared_ptr<const model::RouteConfiguration> config) {
  WEFT_RETURN_IF_ERROR(CheckConfig(*config));
  std::shared_ptr<Router> router(new Router(std::move(config)));
  for (const model::VirtualHost& host : router->config_->virtual_hosts) {
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<CompiledHost> compiled, CompiledHost::Create(host));
    const CompiledHost* at = compiled.get();
    router->hosts_.push_back(std::move(compiled));
    for (const std::string& domain : host.domains) {
      std::string text = Lowered(domain);
      if (text == "*") {
        router->any_ = at;
      } else if (text.front() == '*') {
        AddWildcard(&router->suffixes_, text.substr(1), at);
      } else if (text.back() == '*') {
        text.pop_back();
        AddWildcard(&router->prefixes_, std::move(text), at);
      } else {
        router->exact_.emplace(std::move(text), at);
      }
    }
  }
  return router;
}

// The star stands for at least one character.
const CompiledHost* Router::FindHost(std::string_view authority) const {
  if (exact_.empty() && suffixes_.empty() && prefixes_.empty()) return any_;
  std::string lowered;
  if (HasUpper(authority)) {
    lowered = Lowered(authority);
    authority = lowered;
  }
  if (const auto at = exact_.find(authority); at != exact_.end()) return at->second;
  for (const Wildcards& wildcards : suffixes_) {
    if (wildcards.size >= authority.size()) continue;
    const auto at = wildcards.hosts.find(authority.substr(authority.size() - wildcards.size));
    if (at != wildcards.hosts.end()) return at->second;
  }
  for (const Wildcards& wildcards : prefixes_) {
    if (wildcards.size >= authority.size()) continue;
    const auto at = wildcards.hosts.find(authority.substr(0, wildcards.size));
    if (at != wildcards.hosts.end()) return at->second;
  }
  return any_;
}

const model::VirtualHost* Router::FindVirtualHost(std::string_view authority) const {
  const CompiledHost* host = FindHost(authority);
  return host == nullptr ? nullptr : &host->host();
}

RouteMatch Router::Match(const http::RequestHead& head) const {
  const CompiledHost* host = FindHost(head.authority);
  if (host == nullptr) return {};
  const model::Route* route = host->Match(head);
  if (route == nullptr) return {};
  return {&host->host(), route};
}

absl::Status ValidateRoutes(const model::RouteConfiguration& config) {
  WEFT_RETURN_IF_ERROR(CheckConfig(config));
  for (const model::VirtualHost& host : config.virtual_hosts) {
    const absl::Status status = CompiledHost::Create(host).status();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace weft::route
