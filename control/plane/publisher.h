// SPDX-License-Identifier: Apache-2.0
// What the plane knows, and the step from a folder to the ADS server's cache: load, translate,
// encode, replace. Only resources whose bytes changed are pushed. Thread: one, the cache's. Borrows
// the cache.
#pragma once
#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/plane/manifest_set.h"
#include "control/plane/translate.h"
#include "proxy/base/status.h"
#include "xds/server/resource_cache.h"

namespace weft::plane {

class Publisher final {
 public:
  Publisher(TranslateOptions options, xds::ResourceCache& cache)
      : options_(std::move(options)), cache_(cache) {}

  // A new state of the folder; an error (it cannot be listed) keeps everything and is a problem.
  // Logs what changed.
  void Update(const absl::StatusOr<std::vector<ManifestFile>>& files, const std::string& folder);

  const ManifestSet& manifests() const { return set_; }
  const Problems& problems() const { return problems_; }
  const TranslateOptions& options() const { return options_; }
  uint64_t updates() const { return updates_; }  // 0: nothing was read yet
  std::chrono::system_clock::time_point last_update() const { return last_update_; }

  // Does a workload of the mesh with that SPIFFE id run on that node?
  bool RunsOn(std::string_view identity, std::string_view node) const;

 private:
  void LogProblems(const Problems& before) const;

  const TranslateOptions options_;
  xds::ResourceCache& cache_;
  ManifestSet set_;
  Problems problems_;
  std::set<std::pair<std::string, std::string>> placed_;  // identity, node
  uint64_t updates_ = 0;
  std::chrono::system_clock::time_point last_update_{};
};

// All resources in one list.
std::vector<xds::Encoded> EncodeAll(const Configuration& configuration);

}  // namespace weft::plane
