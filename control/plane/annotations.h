// SPDX-License-Identifier: Apache-2.0
// The annotations of the prefix weft.dev/ that weft-control understands, in one table: parsing, the
// error texts and the table in docs/manifests.md come from it. An unknown one with that prefix is a
// problem, so that a typing error does not go unseen.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/plane/fields.h"
#include "control/plane/problem.h"
#include "xds/model/cluster.h"
#include "xds/model/route.h"

namespace weft::plane {

inline constexpr char kAnnotationPrefix[] = "weft.dev/";

enum class DeclaredProtocol : uint8_t { kNone, kHttp, kTcp };

// What the annotations of a Service ask for; absent: the default of the model.
struct TrafficOptions {
  std::optional<uint32_t> max_connections, max_pending_requests, max_requests, max_retries;
  std::optional<uint32_t> retry_budget_percent;
  std::optional<uint32_t> outlier_consecutive_5xx, outlier_max_ejection_percent;
  std::optional<model::Milliseconds> outlier_base_ejection, outlier_interval;
  std::optional<model::LbPolicy> lb_policy;
  std::optional<model::Milliseconds> connect_timeout, per_try_timeout, timeout;
  uint32_t retry_on = 0;  // bits of model::RetryOn
  std::vector<uint32_t> retry_codes;
  std::optional<uint32_t> retry_attempts;
  DeclaredProtocol protocol = DeclaredProtocol::kNone;
  bool any = false;  // at least one is there

  // An annotation asks for the proxy's L7 path: any but `protocol: tcp`, which forbids it.
  bool asks_for_l7() const { return any && protocol != DeclaredProtocol::kTcp; }
};

using LocatedMap = std::map<std::string, LocatedText>;

TrafficOptions ParseTrafficOptions(const LocatedMap& annotations, Problems* problems);
// For objects other than Services: `weft.dev/` annotations and labels must be known.
void CheckWorkloadAnnotations(const LocatedMap& annotations, Problems* problems);

// The share of a Pod's or Workload's endpoints among a Service's: weft.dev/weight, 1 without it.
uint32_t WeightOf(const std::map<std::string, std::string>& annotations);

// The table of docs/manifests.md, as Markdown (weft-control --annotations prints it; a test
// compares).
std::string AnnotationTable();

}  // namespace weft::plane
