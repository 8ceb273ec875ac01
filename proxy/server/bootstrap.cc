// SPDX-License-Identifier: Apache-2.0
// The subset of Envoy's bootstrap file that a proxy alone needs. yaml-cpp throws; nothing leaves
// this file.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <utility>

#include "proxy/server/flags.h"

namespace weft::server {
namespace {

absl::Status Refuse(const std::string& where, const std::string& why) {
  return absl::InvalidArgumentError(where + ": " + why);
}

// Every key of the map is one of these.
absl::Status Only(const YAML::Node& node, const std::string& where,
                  std::initializer_list<const char*> keys) {
  if (!node.IsMap()) return Refuse(where, "not a map");
  for (const auto& item : node) {
    auto name = item.first.as<std::string>();
    bool known = std::find(keys.begin(), keys.end(), name) != keys.end();
    if (!known) return Refuse(where + "." + name, "not supported");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SocketText(const YAML::Node& address, const std::string& where) {
  if (const YAML::Node& pipe = address["pipe"]) return "unix:" + pipe["path"].as<std::string>();
  const YAML::Node& socket = address["socket_address"];
  if (!socket) return Refuse(where, "no socket_address and no pipe");
  auto host = socket["address"].as<std::string>();
  bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + socket["port_value"].as<std::string>();
}

absl::StatusOr<std::string> TargetOf(const YAML::Node& root, const std::string& cluster) {
  for (const YAML::Node& candidate : root["static_resources"]["clusters"]) {
    if (candidate["name"].as<std::string>() != cluster) continue;
    const YAML::Node& endpoint =
        candidate["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    if (!endpoint) return Refuse("static_resources.clusters." + cluster, "no endpoint");
    return SocketText(endpoint, "static_resources.clusters." + cluster);
  }
  return Refuse("static_resources.clusters", "no cluster " + cluster);
}

absl::Status Apply(const YAML::Node& root, Config& config) {
  WEFT_RETURN_IF_ERROR(
      Only(root, "bootstrap", {"node", "admin", "dynamic_resources", "static_resources"}));
  if (const YAML::Node& node = root["node"]) {
    if (node["id"]) config.node = node["id"].as<std::string>();
    if (node["cluster"]) config.cluster_id = node["cluster"].as<std::string>();
  }
  if (const YAML::Node& admin = root["admin"]) {
    WEFT_ASSIGN_OR_RETURN(std::string text, SocketText(admin["address"], "admin.address"));
    config.admin = SocketAddress::Parse(text);
    if (!config.admin) return Refuse("admin.address", text + " is no address");
  }
  if (const YAML::Node& fixed = root["static_resources"]) {
    WEFT_RETURN_IF_ERROR(Only(fixed, "static_resources", {"clusters"}));
  }
  const YAML::Node& dynamic = root["dynamic_resources"];
  if (!dynamic) return absl::OkStatus();
  WEFT_RETURN_IF_ERROR(
      Only(dynamic, "dynamic_resources", {"ads_config", "lds_config", "cds_config"}));
  const YAML::Node& ads = dynamic["ads_config"];
  if (!ads) return Refuse("dynamic_resources", "no ads_config");
  auto api = ads["api_type"].as<std::string>();
  if (api != "GRPC" && api != "DELTA_GRPC")
    return Refuse("ads_config.api_type", api + " is not supported");
  config.xds_delta = api == "DELTA_GRPC";
  const YAML::Node& name = ads["grpc_services"][0]["envoy_grpc"]["cluster_name"];
  if (!name) return Refuse("ads_config.grpc_services", "no envoy_grpc.cluster_name");
  WEFT_ASSIGN_OR_RETURN(config.xds, TargetOf(root, name.as<std::string>()));
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyBootstrap(const std::string& text, Config& config) {
  try {
    return Apply(YAML::Load(text), config);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace weft::server
