// SPDX-License-Identifier: Apache-2.0
// The decoders of the single types and of what several of them share. Internal to xds/decode. Pure;
// any thread. All fill `out` and return an error that names the field, without the resource's name.
#pragma once
#include <google/protobuf/repeated_ptr_field.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/core/v3/base.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/type/matcher/v3/regex.pb.h"
#include "xds/decode/decode.h"
#include "xds/wire/authorization.pb.h"
#include "xds/wire/node.pb.h"
#include "xds/wire/policy.pb.h"
#include "xds/wire/workload.pb.h"

namespace weft::xds {

absl::Status DecodeCluster(const envoy::config::cluster::v3::Cluster& in, model::Cluster* out);
absl::Status DecodeEndpoints(const envoy::config::endpoint::v3::ClusterLoadAssignment& in,
                             model::Endpoints* out);
absl::Status DecodeListener(const envoy::config::listener::v3::Listener& in,
                            const DecodeOptions& options, model::Listener* out);
absl::Status DecodeRoutes(const envoy::config::route::v3::RouteConfiguration& in,
                          const DecodeOptions& options, model::RouteConfiguration* out);
absl::Status DecodeWorkload(const istio::workload::Workload& in, model::Workload* out);
absl::Status DecodeService(const istio::workload::Service& in, model::Service* out);
absl::Status DecodeAuthorization(const istio::security::Authorization& in,
                                 model::Authorization* out);
absl::Status DecodeLocalWorkload(const weft::node::v1::LocalWorkload& in,
                                 model::LocalWorkload* out);
absl::Status DecodeCertificate(const weft::node::v1::Certificate& in, model::Certificate* out);
absl::Status DecodeTrustBundle(const weft::node::v1::TrustBundle& in, model::TrustBundle* out);
absl::Status DecodeNetworkPolicy(const weft::policy::v1::NetworkPolicy& in,
                                 model::NetworkPolicy* out);
absl::Status DecodeProcessPolicy(const weft::policy::v1::ProcessPolicy& in,
                                 model::ProcessPolicy* out);

absl::Status DecodePathAndConditions(const envoy::config::route::v3::RouteMatch& in,
                                     model::Route* out);
absl::Status DecodeRetryPolicy(const envoy::config::route::v3::RetryPolicy& in,
                               model::RetryPolicy* out);

// Appends the removals, then the additions: the order in which they are done.
struct HeaderChanges {
  const google::protobuf::RepeatedPtrField<envoy::config::core::v3::HeaderValueOption>& add;
  const google::protobuf::RepeatedPtrField<std::string>& remove;
};
absl::Status DecodeHeaderChanges(std::string_view side, HeaderChanges in,
                                 std::vector<model::HeaderChange>* out);
// A field name that may be matched on or changed, made lower case. Pseudo fields only if `pseudo`.
absl::Status DecodeHeaderName(const std::string& in, bool pseudo, std::string* out);
absl::Status CheckHeaderValue(const std::string& value);

// 4 or 16 bytes.
absl::Status DecodeIp(const std::string& bytes, IpAddress* out);
absl::Status DecodePort(uint32_t in, uint16_t* out);

}  // namespace weft::xds
