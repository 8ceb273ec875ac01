// SPDX-License-Identifier: Apache-2.0
// Paths and authorities from peers, patterns from configurations: "PATTERN\nAUTHORITY\nPATH".
// Properties: normalising twice is as once and leaves no dot segment; the index agrees with trying
// the routes one by one.
#include <memory>

#include "proxy/route/compiled_host.h"
#include "proxy/route/path.h"
#include "proxy/route/router.h"
#include "tests/fuzz/fuzz.h"

namespace weft {
namespace {

void CheckPath(std::string path) {
  for (const bool merge : {false, true}) {
    const route::PathOptions options{.merge_slashes = merge};
    std::string once = path;
    if (route::NormalizePath(options, &once) != route::PathResult::kOk) continue;
    std::string twice = once;
    FUZZ_CHECK(route::NormalizePath(options, &twice) == route::PathResult::kOk);
    FUZZ_CHECK(once == twice);
    const std::string bare = once.substr(0, once.find('?')) + "/";
    FUZZ_CHECK(bare == "*/" || bare.starts_with('/'));
    FUZZ_CHECK(bare.find("/./") == std::string::npos && bare.find("/../") == std::string::npos);
    FUZZ_CHECK(!merge || bare.substr(0, bare.size() - 1).find("//") == std::string::npos);
  }
}

std::shared_ptr<model::RouteConfiguration> Config(const std::string& pattern) {
  auto config = std::make_shared<model::RouteConfiguration>();
  model::VirtualHost host;
  host.name = "fuzzed";
  host.domains = {pattern};
  using Kind = model::PathMatch::Kind;
  for (const Kind kind : {Kind::kRegex, Kind::kSeparatedPrefix, Kind::kExact, Kind::kPrefix}) {
    for (const size_t size : {pattern.size(), pattern.size() / 2, size_t{1}}) {
      model::Route r;
      r.name = std::to_string(host.routes.size());
      r.path = {.kind = kind,
                .value = pattern.substr(0, size),
                .case_sensitive = host.routes.size() % 5 != 1};
      r.action = model::Forward{.clusters = {{.cluster = "c", .weight = 1}}};
      host.routes.push_back(std::move(r));
    }
  }
  config->virtual_hosts = {host, {.name = "rest", .domains = {"*"}, .routes = host.routes}};
  return config;
}

void CheckRoutes(const std::string& pattern, const http::RequestHead& head) {
  const auto config = Config(pattern);
  const auto router = route::Router::Create(config);
  FUZZ_CHECK(router.ok() == route::ValidateRoutes(*config).ok());
  if (!router.ok()) return;
  const model::VirtualHost* host = (*router)->FindVirtualHost(head.authority);
  FUZZ_CHECK(host != nullptr);
  const std::string path = head.path.substr(0, head.path.find('?'));
  const model::Route* expected = nullptr;
  for (const model::Route& r : host->routes) {
    const auto compiled = route::CompiledRoute::Create(r);
    FUZZ_CHECK(compiled.ok());
    if (compiled->Matches(head, path, "")) {
      expected = &r;
      break;
    }
  }
  FUZZ_CHECK((*router)->Match(head).route == expected);
}

}  // namespace
}  // namespace weft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;
  std::string text(reinterpret_cast<const char*>(data), size);
  const size_t first = text.find('\n');
  const size_t second = first == std::string::npos ? first : text.find('\n', first + 1);
  if (second == std::string::npos) {
    weft::CheckPath(text);
    return 0;
  }
  weft::http::RequestHead head;
  head.method = "GET";
  head.authority = text.substr(first + 1, second - first - 1);
  head.path = text.substr(second + 1);
  weft::CheckPath(head.path);
  weft::CheckRoutes(text.substr(0, first), head);
  return 0;
}
