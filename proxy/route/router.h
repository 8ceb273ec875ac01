// SPDX-License-Identifier: Apache-2.0
// Which route serves a request: a compiled, immutable model::RouteConfiguration. Virtual host by
// authority, then the first route that matches, both as Envoy does it. Any thread once built; holds
// the configuration it points into. Not here: what the route then does to the request (rewrite.h),
// clusters and endpoints.
#pragma once
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/http/message.h"
#include "xds/model/route.h"

namespace weft::route {

// Null: nothing matches. Both point into the router's configuration.
struct RouteMatch {
  const model::VirtualHost* virtual_host = nullptr;
  const model::Route* route = nullptr;
};

class CompiledHost;

class Router final {
 public:
  // Fails where ValidateRoutes() would.
  static absl::StatusOr<std::shared_ptr<const Router>> Create(
      std::shared_ptr<const model::RouteConfiguration> config);
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // `head.path` as it shall be matched (normalise it first, see path.h). A few string comparisons,
  // whatever the number of routes, as long as few routes share the path; no allocation unless the
  // authority has upper case.
  RouteMatch Match(const http::RequestHead& head) const;
  // The virtual host alone; null: none.
  const model::VirtualHost* FindVirtualHost(std::string_view authority) const;

  const model::RouteConfiguration& config() const { return *config_; }

 private:
  explicit Router(std::shared_ptr<const model::RouteConfiguration> config);
  const CompiledHost* FindHost(std::string_view authority) const;

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  using HostsByName = std::unordered_map<std::string, const CompiledHost*, Hash, std::equal_to<>>;
  // Wildcard domains of one length, without the star.
  struct Wildcards {
    size_t size;
    HostsByName hosts;
  };
  static void AddWildcard(std::vector<Wildcards>* all, std::string text, const CompiledHost* host);

  std::shared_ptr<const model::RouteConfiguration> config_;
  std::vector<std::unique_ptr<CompiledHost>> hosts_;
  HostsByName exact_;
  std::vector<Wildcards> suffixes_, prefixes_;  // longest first
  const CompiledHost* any_ = nullptr;
};

// What makes a configuration unusable: a regex that does not compile or is too large, a domain that
// two virtual hosts claim, a weight sum of zero, a header name that may not be changed. The text
// names the culprit. For the NACK (DecodeOptions).
absl::Status ValidateRoutes(const model::RouteConfiguration& config);

}  // namespace weft::route
