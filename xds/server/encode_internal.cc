// SPDX-License-Identifier: Apache-2.0
#include "xds/server/encode_internal.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

namespace weft::xds {

std::string Serialize(const google::protobuf::Message& message) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return out;
}

void Pack(const google::protobuf::Message& message, google::protobuf::Any* out) {
  PackEmpty(message.GetDescriptor()->full_name().c_str(), out);
  out->set_value(Serialize(message));
}

void PackEmpty(const char* type_name, google::protobuf::Any* out) {
  out->set_type_url(std::string("type.googleapis.com/") + type_name);
}

void EncodeDuration(std::chrono::milliseconds in, google::protobuf::Duration* out) {
  out->set_seconds(in.count() / 1000);
  out->set_nanos(static_cast<int32_t>(in.count() % 1000) * 1000000);
}

void EncodeAddress(const SocketAddress& in, envoy::config::core::v3::Address* out) {
  out->mutable_socket_address()->set_address(in.ip.ToString());
  out->mutable_socket_address()->set_port_value(in.port);
}

void EncodeAds(envoy::config::core::v3::ConfigSource* out) {
  out->mutable_ads();
  out->set_resource_api_version(envoy::config::core::v3::V3);
}

std::string IpBytes(const IpAddress& ip) {
  const auto* begin = reinterpret_cast<const char*>(ip.bytes.data());
  return ip.is_v4() ? std::string(begin + 12, 4) : std::string(begin, 16);
}

}  // namespace weft::xds
