// SPDX-License-Identifier: Apache-2.0
// Names of the resource types that Weft speaks (ARCHITECTURE.md, "Path of a configuration update").
// No thread.
#pragma once
#include <array>
#include <string_view>

namespace weft::xds {

inline constexpr std::string_view kClusterType =
    "type.googleapis.com/envoy.config.cluster.v3.Cluster";
inline constexpr std::string_view kEndpointsType =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
inline constexpr std::string_view kListenerType =
    "type.googleapis.com/envoy.config.listener.v3.Listener";
inline constexpr std::string_view kRouteType =
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
inline constexpr std::string_view kAuthorizationType =
    "type.googleapis.com/istio.security.Authorization";
inline constexpr std::string_view kAddressType = "type.googleapis.com/istio.workload.Address";
inline constexpr std::string_view kTrustBundleType = "type.googleapis.com/weft.node.v1.TrustBundle";
inline constexpr std::string_view kCertificateType = "type.googleapis.com/weft.node.v1.Certificate";
inline constexpr std::string_view kLocalWorkloadType =
    "type.googleapis.com/weft.node.v1.LocalWorkload";
// Asked only of a control plane that says it has them (kPolicyServer).
inline constexpr std::string_view kNetworkPolicyType =
    "type.googleapis.com/weft.policy.v1.NetworkPolicy";
inline constexpr std::string_view kProcessPolicyType =
    "type.googleapis.com/weft.policy.v1.ProcessPolicy";

// control_plane.identifier of a server that serves weft.policy.v1. Others answer a type that they
// do not know with nothing, with silence or by ending the stream, so they are never asked.
inline constexpr std::string_view kPolicyServer = "weft.policy.v1";

// All of them in the order in which they are asked for and sent: clusters before what names them
// (make before break), policies before the workloads they protect, a workload of this node last.
inline constexpr std::array kTypeOrder = {
    kClusterType,       kEndpointsType,     kListenerType,      kRouteType,
    kAuthorizationType, kNetworkPolicyType, kProcessPolicyType, kAddressType,
    kTrustBundleType,   kCertificateType,   kLocalWorkloadType};

}  // namespace weft::xds
