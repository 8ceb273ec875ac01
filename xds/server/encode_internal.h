// SPDX-License-Identifier: Apache-2.0
// Small pieces that the encoders share. Internal to xds/server (includes protobuf). Pure; any
// thread.
#pragma once
#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>

#include <chrono>
#include <string>

#include "envoy/config/core/v3/address.pb.h"
#include "envoy/config/core/v3/config_source.pb.h"
#include "proxy/base/address.h"

namespace weft::xds {

// Equal messages, equal bytes (within one build of protobuf).
std::string Serialize(const google::protobuf::Message& message);
void Pack(const google::protobuf::Message& message, google::protobuf::Any* out);
// A configuration without settings, for extensions whose classes are not generated.
void PackEmpty(const char* type_name, google::protobuf::Any* out);
void EncodeDuration(std::chrono::milliseconds in, google::protobuf::Duration* out);
void EncodeAddress(const SocketAddress& in, envoy::config::core::v3::Address* out);
void EncodeAds(envoy::config::core::v3::ConfigSource* out);
// 4 bytes for IPv4, 16 for IPv6.
std::string IpBytes(const IpAddress& ip);

}  // namespace weft::xds
