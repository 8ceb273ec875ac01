// SPDX-License-Identifier: Apache-2.0
// Listeners: chosen by original destination in the mesh, bound to their address when the proxy runs
// alone.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "xds/model/route.h"

namespace weft::model {

// HTTP connection manager.
struct HttpFilterChain {
  std::string stat_prefix;
  // Exactly one of the two.
  std::string rds_name;
  std::shared_ptr<const RouteConfiguration> inline_routes;
  enum class Codec : uint8_t { kAuto, kHttp1, kHttp2 };
  Codec codec = Codec::kAuto;
  Milliseconds stream_idle_timeout{300000};
  Milliseconds request_timeout{0};
  uint32_t max_request_headers_kb = 60;
  bool operator==(const HttpFilterChain&) const = default;
};

struct TcpFilterChain {
  std::string stat_prefix;
  std::vector<WeightedCluster> clusters;  // one or more
  Milliseconds idle_timeout{3600000};     // 0: none
  uint32_t max_connect_attempts = 1;
  bool operator==(const TcpFilterChain&) const = default;
};

struct Listener {
  std::string name;
  std::optional<SocketAddress> address;  // port 0 in a mesh listener: every port of that ip
  bool use_original_dst =
      false;  // Envoy's virtual outbound: the other listeners are chosen by original destination
  bool bind_to_port = true;  // false: reached by original destination only
  // Chosen per connection: with both, the first bytes decide (HTTP/1, HTTP/2 preface, else TCP).
  // One: that one.
  std::optional<HttpFilterChain> http;
  std::optional<TcpFilterChain> tcp;
  bool operator==(const Listener&) const = default;
};

}  // namespace weft::model
