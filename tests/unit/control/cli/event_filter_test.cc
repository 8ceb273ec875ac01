// SPDX-License-Identifier: Apache-2.0
// Which events `weft events` shows.
#include "control/cli/event_filter.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"

namespace weft::cli {
namespace {

using nlohmann::json;

const json kDenied = {{"kind", "connect"},
                      {"reason", "process_denied"},
                      {"verdict", "denied"},
                      {"source", {{"address", "10.0.0.1:0"}, {"workload", "shop/web"}}},
                      {"destination", {{"address", "10.96.0.1:80"}}},
                      {"picked_workload", "data/db"},
                      {"binary", "/usr/bin/python3.11"},
                      {"maker", {{"pid", 7}, {"binary", "/usr/bin/psql"}}}};
const json kExec = {{"kind", "exec"},
                    {"reason", "none"},
                    {"verdict", "allowed"},
                    {"source", {{"workload", "shop/web-2"}}},
                    {"binary", "/bin/sh"}};
const json kBare = {{"kind", "accept"}, {"reason", "not_admitted"}, {"source", "?"}};

bool Shows(const std::function<void(Options&)>& ask, const json& event) {
  Options options;
  ask(options);
  const absl::StatusOr<EventFilter> filter = EventFilter::Create(options);
  EXPECT_TRUE(filter.ok()) << filter.status();
  return filter.ok() && filter->Matches(event);
}

TEST(EventFilter, NothingAskedShowsEverything) {
  for (const json& event : {kDenied, kExec, kBare}) EXPECT_TRUE(Shows([](Options&) {}, event));
}

TEST(EventFilter, PodsByNameOrWithTheirNamespaceAtEitherEnd) {
  const auto pod = [](const char* name, const json& event) {
    return Shows([&](Options& o) { o.pod = name; }, event);
  };
  EXPECT_TRUE(pod("shop/web", kDenied));
  EXPECT_TRUE(pod("web", kDenied));
  EXPECT_TRUE(pod("data/db", kDenied));
  EXPECT_FALSE(pod("data/web", kDenied));
  EXPECT_FALSE(pod("web", kExec));  // no prefix of a name
  EXPECT_TRUE(pod("web-2", kExec));
  EXPECT_FALSE(pod("web", kBare));
}

TEST(EventFilter, Namespaces) {
  const auto in = [](const char* name, const json& event) {
    return Shows([&](Options& o) { o.namespace_name = name; }, event);
  };
  EXPECT_TRUE(in("shop", kDenied));
  EXPECT_TRUE(in("data", kDenied));
  EXPECT_FALSE(in("sho", kDenied));
  EXPECT_FALSE(in("shop", kBare));
}

TEST(EventFilter, VerdictsAndReasonsByList) {
  const auto by = [](const char* verdict, const char* reason, const json& event) {
    return Shows(
        [&](Options& o) {
          o.verdict = verdict;
          o.reason = reason;
        },
        event);
  };
  EXPECT_TRUE(by("denied", "", kDenied));
  EXPECT_TRUE(by("killed,denied", "", kDenied));
  EXPECT_FALSE(by("killed,allowed", "", kDenied));
  EXPECT_TRUE(by("", "process_denied,direct", kDenied));
  EXPECT_FALSE(by("", "direct", kDenied));
  EXPECT_FALSE(by("allowed", "process_denied", kDenied));  // both must match
}

TEST(EventFilter, BinariesByPathPrefixOrName) {
  const auto by = [](const char* binary, const json& event) {
    return Shows([&](Options& o) { o.binary = binary; }, event);
  };
  EXPECT_TRUE(by("/usr/bin/python3.11", kDenied));
  EXPECT_TRUE(by("/usr/bin/python*", kDenied));
  EXPECT_TRUE(by("python3.11", kDenied));
  EXPECT_TRUE(by("psql", kDenied));  // who made the socket
  EXPECT_FALSE(by("python3", kDenied));
  EXPECT_FALSE(by("/usr/bin/python3", kDenied));
  EXPECT_TRUE(by("sh", kExec));
  EXPECT_FALSE(by("*", kBare));
}

TEST(EventFilter, WhatDoesNotExistIsSaid) {
  Options options;
  options.verdict = "denied,maybe";
  EXPECT_TRUE(absl::StrContains(EventFilter::Create(options).status().message(), "maybe"));
  options.verdict = "";
  options.reason = "because";
  EXPECT_TRUE(absl::StrContains(EventFilter::Create(options).status().message(), "because"));
}

}  // namespace
}  // namespace weft::cli
