// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/cluster_map.h"

namespace weft::upstream {
namespace {

std::shared_ptr<const model::Endpoints> EndpointsOf(const model::Snapshot& snapshot,
                                                    const model::Cluster& cluster) {
  if (cluster.type != model::DiscoveryType::kEds) return nullptr;
  auto it = snapshot.endpoints.find(cluster.eds_name.empty() ? cluster.name : cluster.eds_name);
  return it == snapshot.endpoints.end() ? nullptr : it->second;
}

}  // namespace

void ClusterMap::Adopt(std::shared_ptr<const model::Snapshot> snapshot) {
  snapshot_ = std::move(snapshot);
  for (auto it = clusters_.begin(); it != clusters_.end();) {
    auto found = snapshot_->clusters.find(it->first);
    if (found == snapshot_->clusters.end()) {
      it = clusters_.erase(it);
      continue;
    }
    it->second->Update(found->second, EndpointsOf(*snapshot_, *found->second));
    ++it;
  }
}

ClusterRef ClusterMap::Find(const std::string& name) {
  if (auto it = clusters_.find(name); it != clusters_.end()) return it->second;
  if (!snapshot_) return {};
  auto found = snapshot_->clusters.find(name);
  if (found == snapshot_->clusters.end()) return {};
  ClusterRef cluster(
      new ClusterState(table_, worker_, found->second, EndpointsOf(*snapshot_, *found->second)));
  clusters_.emplace(name, cluster);
  return cluster;
}

bool ClusterMap::Sweep(TimePoint now) {
  bool ejected = false;
  for (auto& [name, cluster] : clusters_) {
    cluster->Sweep(now);
    ejected = ejected || cluster->row().ejected.load(std::memory_order_relaxed) > 0;
  }
  return ejected;
}

}  // namespace weft::upstream
