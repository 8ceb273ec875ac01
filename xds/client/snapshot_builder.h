// SPDX-License-Identifier: Apache-2.0
// Turns updates into snapshots, make before break: a cluster appears once its endpoints came (or 15
// s passed), a listener once its routes came, routes once the clusters they name are warm; a
// cluster that was removed stays while active routes name it (15 s at most). Says which EDS and RDS
// names that needs. Pure: no I/O, the clock is an argument. Thread: one.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "xds/client/client.h"
#include "xds/model/snapshot.h"

namespace weft::xds {

struct BuilderOptions {
  // Nothing is published before each of these types was heard of once (an empty answer counts):
  // without policies and trust roots a snapshot would be more permissive than the configuration.
  std::vector<std::string> required_types;
  // Likewise, unless the server does not have them (Update::serves_policies).
  std::vector<std::string> policy_types;
  std::chrono::milliseconds warming_timeout{15000};
};

// What is not active yet, for `weft status`.
struct Warming {
  std::string type_url, name;
  std::string waits_for;  // e.g. "routes outbound|80||web"
};

class SnapshotBuilder final {
 public:
  using Clock = std::chrono::steady_clock;
  using OnNames = std::function<void(std::string_view type_url, std::set<std::string> names)>;
  using OnSnapshot = std::function<void(std::shared_ptr<const model::Snapshot>)>;

  // `on_names` hears of each change of the EDS and RDS names that are needed; `on_snapshot` gets
  // each new snapshot.
  SnapshotBuilder(BuilderOptions options, OnNames on_names, OnSnapshot on_snapshot);

  void Apply(const Update& update, Clock::time_point now);
  // Call when next_deadline() has passed.
  void OnTimer(Clock::time_point now);
  std::optional<Clock::time_point> next_deadline() const;

  std::vector<Warming> warming() const;
  // The last one published; null before the first.
  std::shared_ptr<const model::Snapshot> current() const { return current_; }

 private:
  template <typename T>
  using Ptr = std::shared_ptr<const T>;
  struct ClusterState {
    Ptr<model::Cluster> active;   // in the snapshot; null while it warms for the first time
    Ptr<model::Cluster> pending;  // newer, waits for endpoints
    std::optional<Clock::time_point> deadline;  // of pending; or of lingering
    bool lingering = false;  // removed by the server, still named by active routes
  };
  struct ListenerState {
    Ptr<model::Listener> active, pending;
  };
  struct RouteState {
    Ptr<model::RouteConfiguration> active, pending;
  };

  void Take(const Update::Changed& changed, Clock::time_point now);
  void Remove(std::string_view type_url, const std::string& name, Clock::time_point now);
  void Settle(Clock::time_point now);
  void SettleClusters(Clock::time_point now);
  void SettleRoutes();
  void SettleListeners();
  void SettleLingering(Clock::time_point now);
  void UpdateNames();
  void PublishIfChanged();
  bool ClusterIsWarming(const std::string& name) const;
  bool RoutesMayGo(const model::RouteConfiguration& routes) const;
  std::set<std::string> NamedClusters() const;

  BuilderOptions options_;
  OnNames on_names_;
  OnSnapshot on_snapshot_;
  std::set<std::string, std::less<>> not_heard_;
  std::map<std::string, ClusterState> clusters_;
  std::map<std::string, ListenerState> listeners_;
  std::map<std::string, RouteState> routes_;
  std::map<std::string, Ptr<model::Endpoints>> endpoints_;  // null: the server says there is none
  std::set<std::string> eds_names_, rds_names_;             // as last told to on_names_
  model::Snapshot next_;  // what PublishIfChanged publishes; indices not built
  bool changed_ = true;   // next_ differs from current_
  uint64_t sequence_ = 0;
  std::shared_ptr<const model::Snapshot> current_;
};

}  // namespace weft::xds
