// SPDX-License-Identifier: Apache-2.0
#include "control/plane/publisher.h"

#include <algorithm>

#include "proxy/base/log.h"
#include "xds/decode/type_urls.h"
#include "xds/server/encode.h"

namespace weft::plane {
namespace {

template <typename T>
void EncodeEach(const std::vector<T>& values, std::vector<xds::Encoded>* out) {
  for (const T& value : values) out->push_back(xds::Encode(value));
}

const std::vector<std::string>& ServedTypes() {
  static const std::vector<std::string> types = {
      std::string(xds::kClusterType),       std::string(xds::kEndpointsType),
      std::string(xds::kListenerType),      std::string(xds::kRouteType),
      std::string(xds::kAuthorizationType), std::string(xds::kNetworkPolicyType),
      std::string(xds::kProcessPolicyType), std::string(xds::kAddressType)};
  return types;
}

}  // namespace

std::vector<xds::Encoded> EncodeAll(const Configuration& configuration) {
  std::vector<xds::Encoded> resources;
  EncodeEach(configuration.clusters, &resources);
  EncodeEach(configuration.endpoints, &resources);
  EncodeEach(configuration.listeners, &resources);
  EncodeEach(configuration.routes, &resources);
  EncodeEach(configuration.authorizations, &resources);
  EncodeEach(configuration.network_policies, &resources);
  EncodeEach(configuration.process_policies, &resources);
  EncodeEach(configuration.workloads, &resources);
  EncodeEach(configuration.services, &resources);
  return resources;
}

void Publisher::Update(const absl::StatusOr<std::vector<ManifestFile>>& files,
                       const std::string& folder) {
  const Problems before = std::move(problems_);
  problems_.clear();
  ++updates_;
  last_update_ = std::chrono::system_clock::now();
  if (!files.ok()) {
    problems_.push_back({{folder, 0, 0}, std::string(files.status().message()), ""});
    return LogProblems(before);
  }
  LoadResult loaded = LoadManifests(*files, set_);
  set_ = std::move(loaded.set);
  problems_ = std::move(loaded.problems);
  const Configuration configuration = Translate(set_, options_, &problems_);
  placed_.clear();
  for (const Workload* workload : set_.All<Workload>()) {
    if (workload->node.empty() || workload->finished || !IsInMesh(*workload, set_)) continue;
    placed_.emplace(IdentityOf(*workload, options_), workload->node);
  }
  std::vector<xds::Encoded> resources = EncodeAll(configuration);
  const size_t count = resources.size();
  cache_.Replace(ServedTypes(), std::move(resources));
  LogInfo("Read the manifests", {{"files", std::to_string(files->size())},
                                 {"objects", std::to_string(set_.objects.size())},
                                 {"resources", std::to_string(count)},
                                 {"problems", std::to_string(problems_.size())}});
  LogProblems(before);
}

void Publisher::LogProblems(const Problems& before) const {
  for (const Problem& problem : problems_) {
    const std::string text = problem.ToString();
    const bool is_known = std::any_of(before.begin(), before.end(),
                                      [&](const Problem& p) { return p.ToString() == text; });
    if (!is_known)
      LogWarning("Refused in the manifests; the last good state stays",
                 {{"problem", text}, {"object", problem.object}});
  }
  if (problems_.empty() && !before.empty()) LogInfo("The manifests have no problems any more");
}

bool Publisher::RunsOn(std::string_view identity, std::string_view node) const {
  return placed_.contains({std::string(identity), std::string(node)});
}

}  // namespace weft::plane
