// SPDX-License-Identifier: Apache-2.0
// The clusters a worker uses, by name, following the snapshot: a cluster costs nothing until its
// first request, and is compared by pointer afterwards, so that adopting a snapshot with 100 000
// endpoints costs what changed. Thread: the worker that owns it.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>

#include "proxy/upstream/cluster_state.h"
#include "xds/model/snapshot.h"

namespace weft::upstream {

class ClusterMap final {
 public:
  // `worker`: its number, below table.workers(). The table outlives the map.
  ClusterMap(NodeTable& table, uint32_t worker) : table_(table), worker_(worker) {}

  void Adopt(std::shared_ptr<const model::Snapshot> snapshot);
  // Null if the snapshot has no such cluster.
  ClusterRef Find(const std::string& name);
  // Lets ejected endpoints return. Call about every second, and about every 100 ms while it answers
  // that some are ejected.
  bool Sweep(TimePoint now);
  NodeTable& table() { return table_; }
  void Clear() { clusters_.clear(); }

 private:
  NodeTable& table_;
  uint32_t worker_;
  std::shared_ptr<const model::Snapshot> snapshot_;
  std::unordered_map<std::string, ClusterRef> clusters_;
};

}  // namespace weft::upstream
