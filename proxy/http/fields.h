// SPDX-License-Identifier: Apache-2.0
// Rules about single header fields that both versions share. Internal to proxy/http; pure.
#pragma once
#include <string_view>

namespace weft::http {

// Submitted bytes at or below which a stream becomes writable again (Event::kWritable).
inline constexpr size_t kLowMarkBytes = 64 * 1024;

// Fields (in lower case) that say something about one connection only. HTTP/2 forbids them; HTTP/1
// sessions write their own. `te` and `upgrade` are the sessions' own decision.
inline bool IsConnectionField(std::string_view name) {
  switch (name.size()) {
    case 4:
      return name == "host";
    case 10:
      return name == "connection" || name == "keep-alive";
    case 14:
      return name == "http2-settings";
    case 16:
      return name == "proxy-connection";
    case 17:
      return name == "transfer-encoding";
    default:
      return false;
  }
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b);
// host[:port] without user information, spaces, path or control characters; empty is fine.
bool IsValidAuthority(std::string_view authority);
// No control character, space or fragment.
bool IsValidTarget(std::string_view target);

}  // namespace weft::http
