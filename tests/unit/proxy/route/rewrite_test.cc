// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/rewrite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/route/path.h"

namespace weft::route {
namespace {

using Action = model::HeaderChange::Action;
using Kind = model::PathMatch::Kind;

std::string Show(const http::HeaderList& headers) {
  std::string out;
  for (http::HeaderList::Field field : headers)
    out += std::string(field.name) + "=" + std::string(field.value) + ";";
  return out;
}

TEST(Rewrite, HeaderChanges) {
  http::HeaderList headers;
  headers.Add("a", "1");
  headers.Add("b", "2");
  const model::HeaderChange changes[] = {
      {Action::kAppendOrAdd, "A", "3"},    {Action::kAddIfAbsent, "a", "no"},
      {Action::kAddIfAbsent, "c", "4"},    {Action::kOverwrite, "d", "no"},
      {Action::kOverwrite, "c", "5"},      {Action::kOverwriteOrAdd, "e", "6"},
      {Action::kOverwriteOrAdd, "a", "7"}, {Action::kRemove, "B", ""},
  };
  ApplyChanges(changes, &headers);
  EXPECT_EQ(Show(headers), "a=7;c=5;e=6;");
}

TEST(Rewrite, MostSpecificChangesFirst) {
  model::RouteConfiguration config;
  model::VirtualHost host;
  model::Route route;
  model::WeightedCluster cluster;
  cluster.request_headers = {{Action::kAppendOrAdd, "x", "cluster"}};
  route.request_headers = {{Action::kAppendOrAdd, "x", "route"}};
  host.request_headers = {{Action::kAppendOrAdd, "x", "host"}};
  config.request_headers = {{Action::kAppendOrAdd, "x", "config"}};
  http::HeaderList headers;
  ApplyRequestChanges(&cluster, {&host, &route}, config, &headers);
  EXPECT_EQ(Show(headers), "x=cluster;x=route;x=host;x=config;");
}

TEST(Rewrite, Paths) {
  struct Case {
    Kind kind;
    const char *match, *rewrite, *path, *expected;
  };
  const Case cases[] = {
      {Kind::kPrefix, "/a", "/b", "/a/c?q=/a", "/b/c?q=/a"},
      {Kind::kPrefix, "/a/", "/", "/a/c", "/c"},
      {Kind::kPrefix, "/", "/v1/", "/x", "/v1/x"},
      {Kind::kExact, "/a", "/b", "/a?x", "/b?x"},
      {Kind::kSeparatedPrefix, "/a", "/", "/a/c", "/c"},
      {Kind::kSeparatedPrefix, "/a", "/", "/a", "/"},
      {Kind::kSeparatedPrefix, "/a", "/b", "/a?x", "/b?x"},
      {Kind::kRegex, "/a.*", "/b", "/abc?x", "/b?x"},
      {Kind::kPrefix, "/a", "", "/a", "/"},
  };
  for (const Case& c : cases) {
    http::RequestHead head;
    head.path = c.path;
    head.authority = "old";
    model::Forward forward;
    forward.prefix_rewrite = c.rewrite;
    forward.host_rewrite = "new";
    ApplyRewrites(forward, {.kind = c.kind, .value = c.match}, &head);
    EXPECT_EQ(head.path, c.expected) << c.match << " " << c.path;
    EXPECT_EQ(head.authority, "new");
  }
}

TEST(Rewrite, WeightsAreExact) {
  model::Forward forward;
  forward.clusters = {{.cluster = "a", .weight = 1},
                      {.cluster = "zero", .weight = 0},
                      {.cluster = "b", .weight = 3}};
  std::string chosen;
  for (uint64_t i = 0; i < 8; ++i) chosen += ChooseCluster(forward, i).cluster;
  EXPECT_EQ(chosen, "abbbabbb");
  forward.clusters = {{.cluster = "only", .weight = 0}};
  EXPECT_EQ(ChooseCluster(forward, 5).cluster, "only");
}

TEST(Rewrite, Redirects) {
  struct Case {
    model::Redirect redirect;
    const char *authority, *path, *expected;
  };
  const Case cases[] = {
      {{.scheme = "https"}, "h:80", "/a?b", "https://h/a?b"},
      {{.scheme = "https"}, "h:8080", "/a", "https://h:8080/a"},
      {{.scheme = "https", .port = 8443}, "h:8080", "/a", "https://h:8443/a"},
      {{.host = "new"}, "h:8080", "/a?b", "http://new/a?b"},
      {{.path = "/p"}, "h", "/a?b", "http://h/p?b"},
      {{.path = "/p?c"}, "h", "/a?b", "http://h/p?c"},
      {{.path = "/p", .strip_query = true}, "h", "/a?b", "http://h/p"},
      {{.prefix_rewrite = "/x"}, "h", "/pre/a?b", "http://h/x/a?b"},
      {{.port = 81}, "[::1]:80", "/", "http://[::1]:81/"},
      {{.port = 81}, "[::1]", "/", "http://[::1]:81/"},
  };
  for (const Case& c : cases) {
    http::RequestHead head;
    head.scheme = "http";
    head.authority = c.authority;
    head.path = c.path;
    model::Redirect redirect = c.redirect;
    redirect.status = 302;
    const http::ResponseHead response =
        MakeRedirect(redirect, {.kind = Kind::kPrefix, .value = "/pre"}, head);
    EXPECT_EQ(response.status, 302);
    EXPECT_EQ(response.headers.Get("location"), c.expected);
  }
}

TEST(Path, Normalisation) {
  struct Case {
    const char *path, *expected;  // null: refused
  };
  const Case cases[] = {
      {"/", "/"},
      {"/a/b?c=%2F..", "/a/b?c=%2F.."},
      {"/a/./b", "/a/b"},
      {"/a/../b", "/b"},
      {"/../../a", "/a"},
      {"/a/..", "/"},
      {"/a/b/..", "/a/"},
      {"/a/.", "/a/"},
      {"/..", "/"},
      {"/a/%2e%2E/b", "/b"},
      {"/a/.%2e", "/"},
      {"/%61b", "/ab"},
      {"/a%20b", "/a%20b"},
      {"/a%7eb", "/a~b"},
      {"/a\\..\\b", "/b"},
      {"/.hidden", "/.hidden"},
      {"/...", "/..."},
      {"/a/..b", "/a/..b"},
      {"//a//b", "//a//b"},
      {"/a//../b", "/a/b"},
      {"*", "*"},
      {"", nullptr},
      {"a", nullptr},
      {"/a%00", nullptr},
      {"/a%2fb", nullptr},
      {"/a%5Cb", nullptr},
      {"/a%zz", nullptr},
      {"/a%2", nullptr},
      {"/a%", nullptr},
      {"/a b", nullptr},
      {"/a#b", nullptr},
      {"/a/..;x/b", nullptr},
      {"/a/%2e;/b", nullptr},
      {"/a;x/b", "/a;x/b"},
      {"/\xc3\xa9", "/\xc3\xa9"},
      {"/%252e%252e/a", "/%252e%252e/a"},
  };
  for (const Case& c : cases) {
    std::string path = c.path;
    const PathResult result = NormalizePath({}, &path);
    ASSERT_EQ(result == PathResult::kOk, c.expected != nullptr) << c.path;
    EXPECT_EQ(path, c.expected == nullptr ? c.path : c.expected);
    if (c.expected == nullptr) continue;
    EXPECT_EQ(NormalizePath({}, &path), PathResult::kOk);
    EXPECT_EQ(path, c.expected) << "twice is as once";
  }
}

TEST(Path, Options) {
  std::string path = "//a///b/";
  EXPECT_EQ(NormalizePath({.merge_slashes = true}, &path), PathResult::kOk);
  EXPECT_EQ(path, "/a/b/");
  path = "/a//../b";
  EXPECT_EQ(NormalizePath({.merge_slashes = true}, &path), PathResult::kOk);
  EXPECT_EQ(path, "/b");
  path = "/a%2Fb";
  EXPECT_EQ(NormalizePath({.reject_escaped_slashes = false}, &path), PathResult::kOk);
  EXPECT_EQ(path, "/a%2Fb");
  path = "//";
  EXPECT_EQ(NormalizePath({.merge_slashes = true}, &path), PathResult::kOk);
  EXPECT_EQ(path, "/");
}

}  // namespace
}  // namespace weft::route
