// SPDX-License-Identifier: Apache-2.0
// What every decoder needs: refusing what is not supported, by name, and reading the small protobuf
// types. Internal to xds/decode (includes protobuf). Pure; any thread.
#pragma once
#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>

#include <chrono>
#include <initializer_list>
#include <string>
#include <string_view>

#include "envoy/config/core/v3/address.pb.h"
#include "envoy/config/core/v3/config_source.pb.h"
#include "proxy/base/address.h"
#include "proxy/base/status.h"

// Returns from the enclosing function if `expression` (an absl::Status) is bad, with "field: "
// before its message.
#define WEFT_FIELD(field, expression) WEFT_RETURN_IF_ERROR(weft::Annotate((expression), (field)))

namespace weft::xds {

// An error with this text.
absl::Status Bad(std::string_view text);
// "NAME: is not supported".
absl::Status NotSupported(std::string_view name);
// "name[index]".
std::string Indexed(std::string_view name, int index);

// OK if no field of `message` is set but those listed; the first other one is refused by name, a
// field that the API of this build does not know by its number.
absl::Status OnlyFields(const google::protobuf::Message& message,
                        std::initializer_list<std::string_view> accepted);
// The same for the unknown fields alone, of the message and of every message in it.
absl::Status NoUnknownFields(const google::protobuf::Message& message);

// 0 to ten years; between two milliseconds: the larger.
absl::Status DecodeDuration(const google::protobuf::Duration& in, std::chrono::milliseconds* out);
// The same, and more than 0.
absl::Status DecodePositive(const google::protobuf::Duration& in, std::chrono::milliseconds* out);
// A TCP address by number, with a port by number.
absl::Status DecodeAddress(const envoy::config::core::v3::Address& in, SocketAddress* out);
// Only what comes over the same stream is a source of configuration.
absl::Status CheckConfigSource(const envoy::config::core::v3::ConfigSource& in);

// "type.googleapis.com/x.Y" -> "x.Y"; empty if there is no slash.
std::string_view TypeName(const google::protobuf::Any& any);
// Parses the value of `any`, which must be of T's type.
template <typename T>
absl::Status Unpack(const google::protobuf::Any& any, T* out) {
  if (TypeName(any) != out->GetDescriptor()->full_name()) return NotSupported(any.type_url());
  if (!out->ParseFromString(any.value())) return Bad("the bytes do not parse");
  return absl::OkStatus();
}

}  // namespace weft::xds
