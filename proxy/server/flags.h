// SPDX-License-Identifier: Apache-2.0
// weft-proxy's command line and bootstrap file. Pure but for reading the file; main thread.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::server {

struct Config {
  std::string xds;  // "unix:/path", "ip:port" or "name:port"
  bool xds_delta = true;
  std::string node = "weft";
  std::string cluster_id;
  std::string trust_domain = "cluster.local";
  std::optional<SocketAddress> admin;      // bind here
  int admin_fd = -1;                       // or serve on this listening socket
  std::vector<int> sockets_fds, keyd_fds;  // one per worker
  uint32_t workers = 1;
  int64_t uid = -1, gid = -1;
  bool sandbox = false;
  std::chrono::milliseconds drain_time{5000};
  std::string log_level = "info";
  bool log_json = false;

  bool alone() const { return sockets_fds.empty(); }
};

struct ParsedFlags {
  Config config;
  bool help = false;
  bool version = false;
};

// Without argv[0]. An error names the flag; it is a usage error unless it is DATA_LOSS: then a file
// is bad.
absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments);
// The part of Envoy's bootstrap that a proxy alone needs (YAML or JSON): node.id, node.cluster,
// admin.address, dynamic_resources.ads_config with the cluster it names in static_resources. What
// it does not know is refused by name.
absl::Status ApplyBootstrap(const std::string& text, Config& config);
std::string HelpText();

}  // namespace weft::server
