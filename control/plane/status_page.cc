// SPDX-License-Identifier: Apache-2.0
#include "control/plane/status_page.h"

#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "xds/decode/type_urls.h"

namespace weft::plane {
namespace {

using Json = nlohmann::json;

std::string TimeText(std::chrono::system_clock::time_point time) {
  return absl::FormatTime(absl::RFC3339_sec, absl::FromChrono(time), absl::UTCTimeZone());
}

Json ProblemJson(const Problem& problem) {
  return {{"file", problem.at.file}, {"line", problem.at.line},  {"column", problem.at.column},
          {"text", problem.text},    {"object", problem.object}, {"message", problem.ToString()}};
}

Json ObjectsJson(const ManifestSet& set) {
  Json objects = Json::array();
  for (const auto& [key, stored] : set.objects) {
    objects.push_back({{"kind", KindName(key.kind)},
                       {"namespace", key.namespace_name},
                       {"name", key.name},
                       {"file", stored.file},
                       {"line", MetaOf(*stored.object).origin.line},
                       {"lastGood", stored.stale}});
  }
  return objects;
}

Json ResourcesJson(const xds::ResourceCache& cache) {
  Json types = Json::object();
  for (const std::string_view type : xds::kTypeOrder) {
    Json versions = Json::object();
    for (const auto& [name, resource] : cache.OfType(type)) versions[name] = resource.version;
    if (!versions.empty()) types[std::string(type)] = std::move(versions);
  }
  return types;
}

Json NodesJson(const Nodes& nodes) {
  Json list = Json::array();
  for (const auto& [key, node] : nodes.all()) {
    Json nacks = Json::array();
    for (const auto& [type, nack] : node.last_nacks) {
      nacks.push_back({{"type", nack.type_url},
                       {"version", nack.version},
                       {"error", nack.error},
                       {"at", TimeText(nack.at)}});
    }
    list.push_back({{"identity", node.identity},
                    {"id", node.id},
                    {"address", node.address},
                    {"streams", node.streams},
                    {"connected", node.streams > 0},
                    {"since", TimeText(node.since)},
                    {"lastNacks", std::move(nacks)}});
  }
  return list;
}

}  // namespace

std::string StatusJson(const StatusSources& sources) {
  Json problems = Json::array();
  for (const Problem& problem : sources.publisher.problems())
    problems.push_back(ProblemJson(problem));
  const auto address = [](const SocketAddress& a) {
    return a.port == 0 ? std::string() : a.ToString();
  };
  const Json status = {{"tlsAddress", address(sources.tls_address)},
                       {"plaintextAddress", address(sources.plaintext_address)},
                       {"manifests", sources.manifests},
                       {"updates", sources.publisher.updates()},
                       {"lastUpdate", TimeText(sources.publisher.last_update())},
                       {"trustDomain", sources.publisher.options().trust_domain},
                       {"joinTokensProblem", sources.join_tokens_problem},
                       {"objects", ObjectsJson(sources.publisher.manifests())},
                       {"problems", std::move(problems)},
                       {"resources", ResourcesJson(sources.cache)},
                       {"nodes", NodesJson(sources.nodes)}};
  // What manifests and peers say need not be UTF-8; JSON must be.
  return status.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace weft::plane
