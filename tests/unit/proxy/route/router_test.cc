// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "proxy/route/compiled_host.h"

namespace weft::route {
namespace {

using ::testing::HasSubstr;
using Kind = model::PathMatch::Kind;

model::Route MakeRoute(std::string name, Kind kind, std::string path) {
  model::Route route;
  route.name = std::move(name);
  route.path = {.kind = kind, .value = std::move(path)};
  route.action = model::Forward{.clusters = {{.cluster = "c", .weight = 1}}};
  return route;
}

model::VirtualHost MakeHost(std::string name, std::vector<std::string> domains,
                            std::vector<model::Route> routes) {
  model::VirtualHost host;
  host.name = std::move(name);
  host.domains = std::move(domains);
  host.routes = std::move(routes);
  return host;
}

http::RequestHead Get(std::string authority, std::string path) {
  http::RequestHead head;
  head.method = "GET";
  head.scheme = "http";
  head.authority = std::move(authority);
  head.path = std::move(path);
  return head;
}

std::shared_ptr<const Router> Compile(std::vector<model::VirtualHost> hosts) {
  auto config = std::make_shared<model::RouteConfiguration>();
  config->virtual_hosts = std::move(hosts);
  auto router = Router::Create(config);
  EXPECT_TRUE(router.ok()) << router.status();
  return router.ok() ? *router : nullptr;
}

std::string RouteOf(const Router& router, const http::RequestHead& head) {
  const RouteMatch match = router.Match(head);
  return match.route == nullptr ? "none" : match.route->name;
}

TEST(Router, VirtualHostsInEnvoysOrder) {
  const auto router = Compile({
      MakeHost("any", {"*"}, {}),
      MakeHost("exact", {"www.foo.com", "svc:8080"}, {}),
      MakeHost("foo", {"*.foo.com"}, {}),
      MakeHost("dash", {"*-bar.foo.com"}, {}),
      MakeHost("prefix", {"foo.*"}, {}),
      MakeHost("longer", {"foo.b*"}, {}),
  });
  const std::pair<const char*, const char*> cases[] = {
      {"www.foo.com", "exact"},
      {"WWW.Foo.COM", "exact"},
      {"www.foo.com:80", "any"},
      {"svc:8080", "exact"},
      {"svc", "any"},
      {"a.foo.com", "foo"},
      {"baz-bar.foo.com", "dash"},
      {".foo.com", "any"},
      {"-bar.foo.com", "foo"},
      {"foo.", "any"},
      {"foo.x", "prefix"},
      {"foo.b", "prefix"},
      {"foo.bar", "longer"},
      {"", "any"},
      {"foo.foo.com", "foo"},
  };
  for (const auto& [authority, name] : cases) {
    ASSERT_NE(router->FindVirtualHost(authority), nullptr) << authority;
    EXPECT_EQ(router->FindVirtualHost(authority)->name, name) << authority;
  }
  EXPECT_EQ(Compile({MakeHost("a", {"a"}, {})})->FindVirtualHost("b"), nullptr);
}

TEST(Router, PathsAndFirstMatch) {
  model::Route loose = MakeRoute("loose", Kind::kExact, "/CaSe");
  loose.path.case_sensitive = false;
  const auto router = Compile({MakeHost("h", {"*"},
                                        {
                                            MakeRoute("exact", Kind::kExact, "/a/b"),
                                            MakeRoute("regex", Kind::kRegex, "/r/[0-9]+"),
                                            MakeRoute("sep", Kind::kSeparatedPrefix, "/sep"),
                                            MakeRoute("deep", Kind::kPrefix, "/a/b/c"),
                                            MakeRoute("a", Kind::kPrefix, "/a"),
                                            MakeRoute("hidden", Kind::kExact, "/a/x"),
                                            loose,
                                            MakeRoute("root", Kind::kPrefix, "/"),
                                        })});
  const std::pair<const char*, const char*> cases[] = {
      {"/a/b", "exact"},     {"/a/b?q=1", "exact"}, {"/a/b/", "a"},     {"/a/b/cd", "deep"},
      {"/a/x", "a"},         {"/abc", "a"},         {"/r/42", "regex"}, {"/r/42?x", "regex"},
      {"/r/42x", "root"},    {"/sep", "sep"},       {"/sep/x", "sep"},  {"/sep?x", "sep"},
      {"/separate", "root"}, {"/case", "loose"},    {"/", "root"},      {"*", "none"},
  };
  for (const auto& [path, name] : cases) EXPECT_EQ(RouteOf(*router, Get("x", path)), name) << path;
}

TEST(Router, Headers) {
  struct Case {
    const char* name;
    model::HeaderMatch match;
    std::vector<std::pair<std::string, std::string>> headers;
    bool expected;
  };
  using S = model::StringMatch;
  const auto exact = [](std::string value) {
    return S{.kind = S::Kind::kExact, .value = std::move(value)};
  };
  const Case cases[] = {
      {"exact", {.name = "a", .value = exact("1")}, {{"A", "1"}}, true},
      {"exact differs", {.name = "a", .value = exact("1")}, {{"a", "2"}}, false},
      {"several are not joined",
       {.name = "a", .value = exact("1,2")},
       {{"a", "1"}, {"a", "2"}},
       false},
      {"each of several counts",
       {.name = "a", .value = exact("2")},
       {{"a", "1"}, {"a", "2"}},
       true},
      {"none may match if inverted",
       {.name = "a", .value = exact("2"), .invert = true},
       {{"a", "1"}, {"a", "2"}},
       false},
      {"absent", {.name = "a", .value = exact("1")}, {}, false},
      {"absent inverted", {.name = "a", .value = exact("1"), .invert = true}, {}, false},
      {"absent as empty",
       {.name = "a", .value = exact(""), .treat_missing_as_empty = true},
       {},
       true},
      {"absent as empty inverted",
       {.name = "a", .value = exact("1"), .invert = true, .treat_missing_as_empty = true},
       {},
       true},
      {"inverted", {.name = "a", .value = exact("1"), .invert = true}, {{"a", "2"}}, true},
      {"present", {.name = "a"}, {{"a", ""}}, true},
      {"present not", {.name = "a"}, {{"b", ""}}, false},
      {"absence", {.name = "a", .present = false}, {{"b", ""}}, true},
      {"absence not", {.name = "a", .present = false}, {{"a", ""}}, false},
      {"present inverted", {.name = "a", .invert = true}, {}, true},
      {"prefix",
       {.name = "a", .value = S{.kind = S::Kind::kPrefix, .value = "ab"}},
       {{"a", "abc"}},
       true},
      {"suffix",
       {.name = "a", .value = S{.kind = S::Kind::kSuffix, .value = "bc"}},
       {{"a", "abc"}},
       true},
      {"suffix longer",
       {.name = "a", .value = S{.kind = S::Kind::kSuffix, .value = "abcd"}},
       {{"a", "bcd"}},
       false},
      {"contains",
       {.name = "a", .value = S{.kind = S::Kind::kContains, .value = "B", .ignore_case = true}},
       {{"a", "abc"}},
       true},
      {"contains case",
       {.name = "a", .value = S{.kind = S::Kind::kContains, .value = "B"}},
       {{"a", "abc"}},
       false},
      {"regex whole",
       {.name = "a", .value = S{.kind = S::Kind::kRegex, .value = "b+"}},
       {{"a", "abb"}},
       false},
      {"regex",
       {.name = "a", .value = S{.kind = S::Kind::kRegex, .value = "a.*"}},
       {{"a", "a\xff\xfe"}},
       true},
      {"range", {.name = "a", .range = model::HeaderMatch::Range{1, 5}}, {{"a", "4"}}, true},
      {"range end", {.name = "a", .range = model::HeaderMatch::Range{1, 5}}, {{"a", "5"}}, false},
      {"range text", {.name = "a", .range = model::HeaderMatch::Range{1, 5}}, {{"a", "4x"}}, false},
      {"range negative",
       {.name = "a", .range = model::HeaderMatch::Range{-5, 0}},
       {{"a", "-3"}},
       true},
      {"method", {.name = ":method", .value = exact("GET")}, {}, true},
      {"path", {.name = ":path", .value = exact("/p?q")}, {}, true},
      {"authority", {.name = ":authority", .value = exact("h")}, {}, true},
      {"host", {.name = "host", .value = exact("h")}, {}, true},
  };
  for (const Case& c : cases) {
    model::Route route = MakeRoute("r", Kind::kPrefix, "/");
    route.headers = {c.match};
    http::RequestHead head = Get("h", "/p?q");
    for (const auto& [name, value] : c.headers) head.headers.Add(name, value);
    EXPECT_EQ(RouteOf(*Compile({MakeHost("h", {"*"}, {route})}), head) == "r", c.expected)
        << c.name;
  }
}

TEST(Router, QueryAndGrpc) {
  model::Route query = MakeRoute("query", Kind::kPrefix, "/");
  query.query = {{.name = "a", .value = model::StringMatch{.value = "1"}}, {.name = "b"}};
  model::Route grpc = MakeRoute("grpc", Kind::kPrefix, "/");
  grpc.grpc_only = true;
  const auto router =
      Compile({MakeHost("h", {"*"}, {query, grpc, MakeRoute("rest", Kind::kPrefix, "/")})});
  EXPECT_EQ(RouteOf(*router, Get("h", "/?a=1&b")), "query");
  EXPECT_EQ(RouteOf(*router, Get("h", "/?b=2&a=1")), "query");
  EXPECT_EQ(RouteOf(*router, Get("h", "/?b=2&a=2&a=1")), "rest");
  EXPECT_EQ(RouteOf(*router, Get("h", "/?a=1")), "rest");
  EXPECT_EQ(RouteOf(*router, Get("h", "/")), "rest");
  for (const auto& [type, name] :
       std::map<std::string, std::string>{{"application/grpc", "grpc"},
                                          {"application/grpc+proto", "grpc"},
                                          {"application/grpc-web", "rest"}}) {
    http::RequestHead head = Get("h", "/");
    head.headers.Add("content-type", type);
    EXPECT_EQ(RouteOf(*router, head), name) << type;
  }
}

// The index against the plain meaning: the first route, in order, that matches.
TEST(Router, IndexAgreesWithTheListOnRandomTables) {
  std::mt19937 random(7);
  const auto path = [&] {
    std::string out = "/";
    for (unsigned i = random() % 6; i > 0; --i) out += "ab/"[random() % 3];
    return out;
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<model::Route> routes;
    for (unsigned i = random() % 30; i > 0; --i) {
      const Kind kind = std::array{Kind::kExact, Kind::kPrefix, Kind::kSeparatedPrefix,
                                   Kind::kRegex}[random() % 4];
      model::Route route = MakeRoute(std::to_string(routes.size()), kind, path());
      if (kind == Kind::kRegex) route.path.value += ".?";
      route.path.case_sensitive = random() % 5 != 0;
      if (random() % 3 == 0) route.headers = {{.name = "x"}};
      routes.push_back(std::move(route));
    }
    const auto router = Compile({MakeHost("h", {"*"}, routes)});
    for (int i = 0; i < 50; ++i) {
      http::RequestHead head = Get("h", path());
      if (random() % 2 == 0) head.headers.Add("x", "");
      std::string expected = "none";
      for (const model::Route& route : router->config().virtual_hosts[0].routes) {
        if (CompiledRoute::Create(route)->Matches(head, head.path, "")) {
          expected = route.name;
          break;
        }
      }
      ASSERT_EQ(RouteOf(*router, head), expected) << head.path;
    }
  }
}

TEST(Router, TenThousandRoutesCostLittleMoreThanOne) {
  std::vector<model::Route> routes;
  for (int i = 0; i < 10'000; ++i) {
    routes.push_back(MakeRoute(std::to_string(i), i % 2 == 0 ? Kind::kExact : Kind::kPrefix,
                               "/api/v1/items/" + std::to_string(i)));
  }
  const auto router = Compile({MakeHost("h", {"*"}, routes)});
  EXPECT_EQ(RouteOf(*router, Get("h", "/api/v1/items/9998")), "9") << "its prefix comes first";
  EXPECT_EQ(RouteOf(*router, Get("h", "/api/v1/items/2")), "2");
  EXPECT_EQ(RouteOf(*router, Get("h", "/api/v1/items/x")), "none");
  const http::RequestHead head = Get("h", "/api/v1/items/8888");
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) ASSERT_NE(router->Match(head).route, nullptr);
  const auto each = (std::chrono::steady_clock::now() - begin) / 10'000;
  EXPECT_LT(each, std::chrono::microseconds(50)) << "a linear search takes longer even unchecked";
}

TEST(Router, BadConfigurationsAreRefusedByName) {
  const auto status = [](std::vector<model::VirtualHost> hosts) {
    model::RouteConfiguration config;
    config.virtual_hosts = std::move(hosts);
    return std::string(ValidateRoutes(config).message());
  };
  EXPECT_THAT(status({MakeHost("shop", {"*"}, {MakeRoute("r1", Kind::kRegex, "(")})}),
              ::testing::AllOf(HasSubstr("virtual host shop"), HasSubstr("route 0 r1"),
                               HasSubstr("regex \"(\"")));
  EXPECT_THAT(
      status({MakeHost("shop", {"*"}, {MakeRoute("r1", Kind::kRegex, std::string(5000, 'a'))})}),
      HasSubstr("5000 bytes"));
  EXPECT_THAT(
      status({MakeHost("shop", {"*"},
                       {MakeRoute("r1", Kind::kRegex, "((((a{1000}){1000}){1000}){1000})")})}),
      HasSubstr("regex"));
  EXPECT_THAT(status({MakeHost("a", {"x"}, {}), MakeHost("b", {"X"}, {})}),
              HasSubstr("virtual host b: domain \"X\" is claimed twice"));
  EXPECT_THAT(status({MakeHost("a", {"x*y"}, {})}), HasSubstr("star"));
  EXPECT_THAT(status({MakeHost("a", {}, {})}), HasSubstr("no domain"));
  model::Route route = MakeRoute("r", Kind::kPrefix, "/");
  std::get<model::Forward>(route.action).clusters = {{.cluster = "a"}, {.cluster = "b"}};
  EXPECT_THAT(status({MakeHost("a", {"*"}, {route})}), HasSubstr("weights"));
  route = MakeRoute("r", Kind::kPrefix, "/");
  route.request_headers = {{.name = ":path", .value = "/"}};
  EXPECT_THAT(status({MakeHost("a", {"*"}, {route})}), HasSubstr("\":path\" may not be changed"));
  EXPECT_EQ(status({MakeHost("a", {"*"}, {MakeRoute("r", Kind::kRegex, "(a+)+$")})}), "");
}

TEST(Router, HostileRegexIsLinear) {
  const auto router = Compile({MakeHost("a", {"*"}, {MakeRoute("r", Kind::kRegex, "/(a+)+b")})});
  EXPECT_EQ(RouteOf(*router, Get("h", "/" + std::string(60'000, 'a'))), "none");
}

}  // namespace
}  // namespace weft::route
