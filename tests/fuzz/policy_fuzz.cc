// SPDX-License-Identifier: Apache-2.0
// weft.policy.v1 resources: one byte that says which type, then the bytes of the resource.
// Property: what is accepted is encoded and decoded to itself, under its own name.
#include <memory>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz.h"
#include "xds/decode/decode.h"
#include "xds/server/encode.h"

namespace weft {
namespace {

template <typename Model>
void CheckRoundTrip(std::string_view type_url, std::string_view bytes) {
  const auto decoded = xds::DecodeResource(type_url, bytes);
  if (!decoded.ok()) return;
  FUZZ_CHECK(decoded->name == xds::ResourceName(type_url, bytes));
  const auto& value = *std::get<std::shared_ptr<const Model>>(decoded->resource);
  const xds::Encoded encoded = xds::Encode(value);
  FUZZ_CHECK(encoded.name == decoded->name);
  const auto again = xds::DecodeResource(type_url, encoded.bytes);
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(*std::get<std::shared_ptr<const Model>>(again->resource) == value);
}

}  // namespace
}  // namespace weft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 1 << 16) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    weft::CheckRoundTrip<weft::model::NetworkPolicy>(weft::xds::kNetworkPolicyType, bytes);
  } else {
    weft::CheckRoundTrip<weft::model::ProcessPolicy>(weft::xds::kProcessPolicyType, bytes);
  }
  return 0;
}
