// SPDX-License-Identifier: Apache-2.0
// weft-control's command line. Plain values.
#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::plane {

struct Options {
  std::string manifests;
  std::string state_dir;
  std::optional<SocketAddress> listen;     // TLS
  std::optional<SocketAddress> plaintext;  // loopback only
  std::string status_unix;                 // --status unix:PATH
  std::optional<SocketAddress> status;     // --status ADDR:PORT, loopback only
  std::string join_tokens;
  std::string trust_domain = "cluster.local";
  std::string cluster_domain = "cluster.local";
  std::string root_namespace = "istio-system";
  std::chrono::seconds cert_ttl{3600};
  std::vector<std::string> server_names;  // beyond the addresses of --listen and localhost
  bool json_logs = false;
  bool check = false;
  bool annotations = false;
  bool help = false;
  bool version = false;
};

// `arguments` without the program's name. The error is for people and names the flag.
absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments);
extern const char kUsage[];

}  // namespace weft::plane
