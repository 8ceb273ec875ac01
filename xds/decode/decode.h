// SPDX-License-Identifier: Apache-2.0
// The edge where a resource in protobuf becomes a validated model value; past it nothing re-checks
// these fields. What would change behaviour and is not supported is refused by name, never skipped.
// Pure functions; any thread.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "xds/decode/type_urls.h"
#include "xds/model/snapshot.h"

namespace weft::xds {

using Resource = std::variant<
    std::shared_ptr<const model::Listener>, std::shared_ptr<const model::RouteConfiguration>,
    std::shared_ptr<const model::Cluster>, std::shared_ptr<const model::Endpoints>,
    std::shared_ptr<const model::Workload>, std::shared_ptr<const model::Service>,
    std::shared_ptr<const model::Authorization>, std::shared_ptr<const model::LocalWorkload>,
    std::shared_ptr<const model::Certificate>, std::shared_ptr<const model::TrustBundle>,
    std::shared_ptr<const model::NetworkPolicy>, std::shared_ptr<const model::ProcessPolicy>>;

struct Decoded {
  // What the resource calls itself; Address: the workload's uid, or "namespace/hostname";
  // Authorization, NetworkPolicy, ProcessPolicy: "namespace/name".
  std::string name;
  Resource resource;
};

struct DecodeOptions {
  // Called for each route configuration, inline ones too, after it was decoded: what only the
  // router can say (a regex that does not compile) makes the resource bad. May be empty.
  std::function<absl::Status(const model::RouteConfiguration&)> check_routes;
};

// `bytes`: the value of the Any. The error names the resource and the field: "cluster
// outbound|80||web: circuit_breakers.thresholds[1].priority: HIGH is not supported". Hostile bytes
// are fine.
absl::StatusOr<Decoded> DecodeResource(std::string_view type_url, std::string_view bytes,
                                       const DecodeOptions& options = {});
// The name that the resource gives itself, even if it is not valid otherwise; empty if it cannot be
// read.
std::string ResourceName(std::string_view type_url, std::string_view bytes);
// True if DecodeResource knows the type.
bool IsKnownType(std::string_view type_url);

}  // namespace weft::xds
