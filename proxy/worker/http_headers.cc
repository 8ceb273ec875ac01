// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/http_headers.h"

#include <string>

namespace weft::worker {
namespace {

bool IsReservedForProxies(std::string_view name) {
  return name.starts_with("x-envoy-") || name.starts_with("x-weft-") ||
         name == "x-forwarded-client-cert";
}

void AddRequestId(http::HeaderList& headers, upstream::Random& random) {
  static constexpr char kHex[] = "0123456789abcdef";
  static constexpr uint8_t kAt[] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
  char id[36] = {};
  id[8] = id[13] = id[18] = id[23] = '-';
  uint64_t bits[2] = {random.Next(), random.Next()};
  bits[0] = (bits[0] & ~0xf000ull) | 0x4000ull;            // version 4
  bits[1] = (bits[1] & ~(0x3ull << 62)) | (0x2ull << 62);  // variant 10
  for (size_t i = 0; i < sizeof kAt; ++i) {
    const uint64_t byte = bits[i / 8] >> (56 - 8 * (i % 8));
    id[kAt[i]] = kHex[(byte >> 4) & 15];
    id[kAt[i] + 1u] = kHex[byte & 15];
  }
  headers.Add("x-request-id", {id, sizeof id});
}

}  // namespace

void PrepareRequestHeaders(http::RequestHead& head, upstream::Random& random) {
  http::HeaderList& headers = head.headers;
  bool has_proto = false, has_id = false;
  for (size_t i = 0; i < headers.size();) {
    const std::string_view name = headers[i].name;
    if (name.size() > 2 && name[0] == 'x' && name[1] == '-') {
      if (IsReservedForProxies(name)) {
        headers.Remove(std::string(name));
        continue;
      }
      has_proto = has_proto || name == "x-forwarded-proto";
      has_id = has_id || name == "x-request-id";
    }
    ++i;
  }
  if (!has_proto) headers.Add("x-forwarded-proto", head.scheme == "https" ? "https" : "http");
  if (!has_id) AddRequestId(headers, random);
}

bool IsGrpc(const http::HeaderList& headers) {
  const auto type = headers.Get("content-type");
  static constexpr std::string_view kGrpc = "application/grpc";
  if (!type || !type->starts_with(kGrpc)) return false;
  return type->size() == kGrpc.size() || (*type)[kGrpc.size()] == '+' ||
         (*type)[kGrpc.size()] == ';';
}

bool IsIdempotent(std::string_view method) {
  for (std::string_view m : {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"}) {
    if (method == m) return true;
  }
  return false;
}

int GrpcStatusOf(int http_status) {
  switch (http_status) {
    case 400:
      return 13;  // INTERNAL
    case 401:
      return 16;  // UNAUTHENTICATED
    case 403:
      return 7;  // PERMISSION_DENIED
    case 404:
      return 12;  // UNIMPLEMENTED
    case 429:
    case 502:
    case 503:
    case 504:
      return 14;  // UNAVAILABLE
    default:
      return 2;  // UNKNOWN
  }
}

}  // namespace weft::worker
