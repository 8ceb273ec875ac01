// SPDX-License-Identifier: Apache-2.0
#include "xds/decode/fields.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <vector>

namespace weft::xds {
namespace {

constexpr int64_t kMaxSeconds = int64_t{10} * 366 * 24 * 3600;

absl::Status UnknownField(const google::protobuf::UnknownFieldSet& unknown) {
  if (unknown.field_count() == 0) return absl::OkStatus();
  return Bad("unknown field number " + std::to_string(unknown.field(0).number()));
}

std::vector<const google::protobuf::FieldDescriptor*> SetFields(
    const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> out;
  message.GetReflection()->ListFields(message, &out);
  return out;
}

}  // namespace

absl::Status Bad(std::string_view text) { return absl::InvalidArgumentError(AbslView(text)); }

absl::Status NotSupported(std::string_view name) {
  return Bad(std::string(name) + " is not supported");
}

std::string Indexed(std::string_view name, int index) {
  return std::string(name) + "[" + std::to_string(index) + "]";
}

absl::Status OnlyFields(const google::protobuf::Message& message,
                        std::initializer_list<std::string_view> accepted) {
  for (const auto* field : SetFields(message)) {
    if (std::find(accepted.begin(), accepted.end(), field->name()) == accepted.end()) {
      return NotSupported(field->name());
    }
  }
  return UnknownField(message.GetReflection()->GetUnknownFields(message));
}

absl::Status NoUnknownFields(const google::protobuf::Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  WEFT_RETURN_IF_ERROR(UnknownField(reflection.GetUnknownFields(message)));
  for (const auto* field : SetFields(message)) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      WEFT_FIELD(field->name(), NoUnknownFields(reflection.GetMessage(message, field)));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      WEFT_FIELD(Indexed(field->name(), i),
                 NoUnknownFields(reflection.GetRepeatedMessage(message, field, i)));
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeDuration(const google::protobuf::Duration& in, std::chrono::milliseconds* out) {
  const int64_t seconds = in.seconds();
  const int32_t nanos = in.nanos();
  if (seconds < 0 || seconds > kMaxSeconds || nanos < 0 || nanos > 999999999) {
    return Bad("must be a duration between 0 and ten years");
  }
  *out = std::chrono::milliseconds(seconds * 1000 + (nanos + 999999) / 1000000);
  return absl::OkStatus();
}

absl::Status DecodePositive(const google::protobuf::Duration& in, std::chrono::milliseconds* out) {
  WEFT_RETURN_IF_ERROR(DecodeDuration(in, out));
  return out->count() > 0 ? absl::OkStatus() : Bad("must be more than 0");
}

absl::Status DecodeAddress(const envoy::config::core::v3::Address& in, SocketAddress* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"socket_address"}));
  if (!in.has_socket_address()) return Bad("socket_address: missing");
  const auto& socket = in.socket_address();
  WEFT_FIELD("socket_address", OnlyFields(socket, {"protocol", "address", "port_value"}));
  if (socket.protocol() != envoy::config::core::v3::SocketAddress::TCP) {
    return NotSupported("socket_address.protocol: UDP");
  }
  const auto ip = IpAddress::Parse(socket.address());
  if (!ip) return Bad("socket_address.address: \"" + socket.address() + "\" is not an IP address");
  if (socket.port_specifier_case() != envoy::config::core::v3::SocketAddress::kPortValue) {
    return Bad("socket_address.port_value: missing");
  }
  if (socket.port_value() > 65535) return Bad("socket_address.port_value: more than 65535");
  *out = {*ip, static_cast<uint16_t>(socket.port_value())};
  return absl::OkStatus();
}

absl::Status CheckConfigSource(const envoy::config::core::v3::ConfigSource& in) {
  // The time-out is accepted and not followed: warming has one bound for all (BuilderOptions).
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"ads", "self", "resource_api_version", "initial_fetch_timeout"}));
  return in.has_ads() || in.has_self() ? absl::OkStatus() : Bad("must be ads or self");
}

std::string_view TypeName(const google::protobuf::Any& any) {
  const std::string_view url = any.type_url();
  const size_t slash = url.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : url.substr(slash + 1);
}

}  // namespace weft::xds
