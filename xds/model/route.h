// SPDX-License-Identifier: Apache-2.0
// Route configurations as decoded: what a request is matched against and what happens to it.
// proxy/route compiles them.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "xds/model/cluster.h"

namespace weft::model {

struct StringMatch {
  enum class Kind : uint8_t { kExact, kPrefix, kSuffix, kContains, kRegex };
  Kind kind = Kind::kExact;
  std::string value;
  bool ignore_case = false;
  bool operator==(const StringMatch&) const = default;
};

struct HeaderMatch {
  std::string name;  // lower case; ":method", ":authority", ":path", ":scheme" too
  // Empty string match: the header must be present.
  std::optional<StringMatch> value;
  bool present = true;  // only without `value`: false demands absence
  struct Range {
    int64_t begin, end;  // [begin, end)
    bool operator==(const Range&) const = default;
  };
  std::optional<Range> range;
  bool invert = false;
  bool treat_missing_as_empty = false;
  bool operator==(const HeaderMatch&) const = default;
};

struct QueryMatch {
  std::string name;
  std::optional<StringMatch> value;  // none: present
  bool operator==(const QueryMatch&) const = default;
};

struct PathMatch {
  enum class Kind : uint8_t { kPrefix, kExact, kRegex, kSeparatedPrefix };
  Kind kind = Kind::kPrefix;
  std::string value = "/";
  bool case_sensitive = true;
  bool operator==(const PathMatch&) const = default;
};

// Bits of Envoy's retry_on that Weft implements.
enum RetryOn : uint32_t {
  kRetry5xx = 1u << 0,
  kRetryGatewayError = 1u << 1,
  kRetryConnectFailure = 1u << 2,
  kRetryReset = 1u << 3,
  kRetryRefusedStream = 1u << 4,
  kRetryRetriable4xx = 1u << 5,
  kRetryRetriableStatusCodes = 1u << 6,
};

struct RetryPolicy {
  uint32_t retry_on = 0;
  uint32_t num_retries = 1;
  Milliseconds per_try_timeout{0};  // 0: none
  Milliseconds base_interval{25};
  Milliseconds max_interval{250};
  std::vector<uint32_t> status_codes;
  bool avoid_previous_hosts = false;
  uint32_t host_selection_attempts = 1;
  bool operator==(const RetryPolicy&) const = default;
};

struct HeaderChange {
  enum class Action : uint8_t { kAppendOrAdd, kAddIfAbsent, kOverwriteOrAdd, kOverwrite, kRemove };
  Action action = Action::kAppendOrAdd;
  std::string name;
  std::string value;
  bool operator==(const HeaderChange&) const = default;
};

struct WeightedCluster {
  std::string cluster;
  uint32_t weight = 0;
  std::vector<HeaderChange> request_headers;
  std::vector<HeaderChange> response_headers;
  bool operator==(const WeightedCluster&) const = default;
};

struct Forward {
  std::vector<WeightedCluster> clusters;  // one: no split. Weights sum > 0
  std::optional<std::string> prefix_rewrite;
  std::optional<std::string> host_rewrite;
  Milliseconds timeout{15000};        // 0: none. Until the response is complete
  Milliseconds idle_timeout{300000};  // 0: none
  std::optional<RetryPolicy> retry;
  uint64_t retry_buffer_bytes = 64 * 1024;  // requests with larger bodies are not replayed
  bool operator==(const Forward&) const = default;
};

struct Redirect {
  int status = 301;
  std::optional<std::string> scheme, host, path, prefix_rewrite;
  std::optional<uint16_t> port;
  bool strip_query = false;
  bool operator==(const Redirect&) const = default;
};

struct DirectResponse {
  int status = 200;
  std::string body;
  bool operator==(const DirectResponse&) const = default;
};

struct Route {
  std::string name;
  PathMatch path;
  std::vector<HeaderMatch> headers;
  std::vector<QueryMatch> query;
  bool grpc_only = false;
  std::variant<Forward, Redirect, DirectResponse> action;
  std::vector<HeaderChange> request_headers;
  std::vector<HeaderChange> response_headers;
  bool operator==(const Route&) const = default;
};

struct VirtualHost {
  std::string name;
  std::vector<std::string> domains;  // exact, "*suffix", "prefix*", "*"; may carry ":port"
  std::vector<Route> routes;         // first match wins
  std::vector<HeaderChange> request_headers;
  std::vector<HeaderChange> response_headers;
  bool operator==(const VirtualHost&) const = default;
};

struct RouteConfiguration {
  std::string name;
  std::vector<VirtualHost> virtual_hosts;
  std::vector<HeaderChange> request_headers;
  std::vector<HeaderChange> response_headers;
  bool operator==(const RouteConfiguration&) const = default;
};

}  // namespace weft::model
