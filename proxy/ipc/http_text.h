// SPDX-License-Identifier: Apache-2.0
// Inside proxy/ipc: heads of HTTP/1.1 messages as text, for the local interface only. One message a
// connection, so nothing here decides where a second one starts. Pure.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/ipc/local_http.h"

namespace weft::ipc {

inline constexpr size_t kMaxHeadBytes = 16 * 1024;
inline constexpr size_t kMaxBodyBytes = 16 << 20;

struct RequestHead {
  LocalRequest request;  // without the body
  size_t body_bytes = 0;
  bool expects_continue = false;
  int error = 0;  // an HTTP status: refuse with it
};
// `head` ends with its empty line.
RequestHead ParseRequestHead(std::string_view head);

struct ResponseHead {
  int status = 0;
  std::optional<size_t> body_bytes;  // nullopt: until the connection ends
};
// nullopt: not an HTTP/1 response we can read.
std::optional<ResponseHead> ParseResponseHead(std::string_view head);

// body_bytes nullopt: until the connection ends.
std::string FormatResponseHead(int status, std::string_view content_type,
                               std::optional<size_t> body_bytes);

}  // namespace weft::ipc
