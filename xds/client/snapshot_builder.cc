// SPDX-License-Identifier: Apache-2.0
#include "xds/client/snapshot_builder.h"

namespace weft::xds {
namespace {

template <typename Map>
void Erase(Map& map, const std::string& name, bool* changed) {
  if (map.erase(name) > 0) *changed = true;
}

void AddClusters(const model::RouteConfiguration& routes, std::set<std::string>* out) {
  for (const model::VirtualHost& host : routes.virtual_hosts) {
    for (const model::Route& route : host.routes) {
      const auto* forward = std::get_if<model::Forward>(&route.action);
      if (forward == nullptr) continue;
      for (const model::WeightedCluster& cluster : forward->clusters) out->insert(cluster.cluster);
    }
  }
}

void AddClusters(const model::Listener& listener, std::set<std::string>* out) {
  if (listener.http && listener.http->inline_routes) {
    AddClusters(*listener.http->inline_routes, out);
  }
  if (!listener.tcp) return;
  for (const model::WeightedCluster& cluster : listener.tcp->clusters) out->insert(cluster.cluster);
}

}  // namespace

SnapshotBuilder::SnapshotBuilder(BuilderOptions options, OnNames on_names, OnSnapshot on_snapshot)
    : options_(std::move(options)),
      on_names_(std::move(on_names)),
      on_snapshot_(std::move(on_snapshot)),
      not_heard_(options_.required_types.begin(), options_.required_types.end()) {
  not_heard_.insert(options_.policy_types.begin(), options_.policy_types.end());
}

void SnapshotBuilder::Apply(const Update& update, Clock::time_point now) {
  not_heard_.erase(update.type_url);
  if (!update.serves_policies) {
    for (const std::string& type_url : options_.policy_types) not_heard_.erase(type_url);
  }
  for (const Update::Changed& changed : update.changed) Take(changed, now);
  for (const std::string& name : update.removed) Remove(update.type_url, name, now);
  Settle(now);
}

void SnapshotBuilder::OnTimer(Clock::time_point now) { Settle(now); }

void SnapshotBuilder::Take(const Update::Changed& changed, Clock::time_point now) {
  const std::string& name = changed.name;
  const Resource& resource = changed.resource;
  if (const auto* cluster = std::get_if<Ptr<model::Cluster>>(&resource)) {
    ClusterState& state = clusters_[name];
    state.pending = *cluster;
    state.lingering = false;
    state.deadline = now + options_.warming_timeout;
  } else if (const auto* listener = std::get_if<Ptr<model::Listener>>(&resource)) {
    listeners_[name].pending = *listener;
  } else if (const auto* routes = std::get_if<Ptr<model::RouteConfiguration>>(&resource)) {
    routes_[name].pending = *routes;
  } else if (const auto* endpoints = std::get_if<Ptr<model::Endpoints>>(&resource)) {
    endpoints_[name] = *endpoints;
  } else {
    changed_ = true;
    if (const auto* workload = std::get_if<Ptr<model::Workload>>(&resource)) {
      next_.services.erase(name);  // one type: the name may change its kind
      next_.workloads[name] = *workload;
    } else if (const auto* service = std::get_if<Ptr<model::Service>>(&resource)) {
      next_.workloads.erase(name);
      next_.services[name] = *service;
    } else if (const auto* policy = std::get_if<Ptr<model::Authorization>>(&resource)) {
      next_.authorizations[name] = *policy;
    } else if (const auto* local = std::get_if<Ptr<model::LocalWorkload>>(&resource)) {
      next_.local_workloads[name] = *local;
    } else if (const auto* certificate = std::get_if<Ptr<model::Certificate>>(&resource)) {
      next_.certificates[name] = *certificate;
    } else if (const auto* bundle = std::get_if<Ptr<model::TrustBundle>>(&resource)) {
      next_.trust_bundles[name] = *bundle;
    } else if (const auto* network = std::get_if<Ptr<model::NetworkPolicy>>(&resource)) {
      next_.network_policies[name] = *network;
    } else if (const auto* process = std::get_if<Ptr<model::ProcessPolicy>>(&resource)) {
      next_.process_policies[name] = *process;
    }
  }
}

void SnapshotBuilder::Remove(std::string_view type_url, const std::string& name,
                             Clock::time_point now) {
  if (type_url == kClusterType) {
    const auto at = clusters_.find(name);
    if (at == clusters_.end()) return;
    at->second.pending = nullptr;
    at->second.lingering = true;  // SettleLingering() says how long
    at->second.deadline = now + options_.warming_timeout;
  } else if (type_url == kListenerType) {
    listeners_.erase(name);
    Erase(next_.listeners, name, &changed_);
  } else if (type_url == kEndpointsType) {
    // What there is stays as long as its cluster; an answer "there is none" ends the wait for it.
    endpoints_.try_emplace(name, nullptr);
  } else if (type_url == kAddressType) {
    Erase(next_.workloads, name, &changed_);
    Erase(next_.services, name, &changed_);
  } else if (type_url == kAuthorizationType) {
    Erase(next_.authorizations, name, &changed_);
  } else if (type_url == kLocalWorkloadType) {
    Erase(next_.local_workloads, name, &changed_);
  } else if (type_url == kCertificateType) {
    Erase(next_.certificates, name, &changed_);
  } else if (type_url == kTrustBundleType) {
    Erase(next_.trust_bundles, name, &changed_);
  } else if (type_url == kNetworkPolicyType) {
    Erase(next_.network_policies, name, &changed_);
  } else if (type_url == kProcessPolicyType) {
    Erase(next_.process_policies, name, &changed_);
  }
  // Routes go with the last listener that names them.
}

void SnapshotBuilder::Settle(Clock::time_point now) {
  UpdateNames();
  SettleClusters(now);
  SettleRoutes();
  SettleListeners();
  SettleLingering(now);
  UpdateNames();
  PublishIfChanged();
}

void SnapshotBuilder::SettleClusters(Clock::time_point now) {
  for (auto& [name, state] : clusters_) {
    if (state.pending == nullptr) continue;
    const bool eds = state.pending->type == model::DiscoveryType::kEds;
    const bool warm = !eds || endpoints_.contains(state.pending->eds_name);
    if (!warm && *state.deadline > now) continue;
    state.active = std::move(state.pending);
    state.pending = nullptr;
    state.deadline.reset();
    next_.clusters[name] = state.active;
    changed_ = true;
  }
  // Endpoints follow the clusters that use them.
  for (const auto& [name, state] : clusters_) {
    if (state.active == nullptr || state.active->type != model::DiscoveryType::kEds) continue;
    const auto at = endpoints_.find(state.active->eds_name);
    if (at == endpoints_.end() || at->second == nullptr) continue;
    Ptr<model::Endpoints>& slot = next_.endpoints[at->first];
    if (slot == at->second) continue;
    slot = at->second;
    changed_ = true;
  }
}

bool SnapshotBuilder::ClusterIsWarming(const std::string& name) const {
  const auto at = clusters_.find(name);
  return at != clusters_.end() && at->second.active == nullptr && at->second.pending != nullptr;
}

bool SnapshotBuilder::RoutesMayGo(const model::RouteConfiguration& routes) const {
  std::set<std::string> names;
  AddClusters(routes, &names);
  for (const std::string& name : names) {
    // A cluster nobody announced is not waited for: its requests get 503, the other routes work.
    if (ClusterIsWarming(name)) return false;
  }
  return true;
}

void SnapshotBuilder::SettleRoutes() {
  for (auto& [name, state] : routes_) {
    if (state.pending == nullptr || !RoutesMayGo(*state.pending)) continue;
    state.active = std::move(state.pending);
    state.pending = nullptr;
    next_.routes[name] = state.active;
    changed_ = true;
  }
}

void SnapshotBuilder::SettleListeners() {
  for (auto& [name, state] : listeners_) {
    if (state.pending == nullptr) continue;
    if (state.pending->http && !state.pending->http->rds_name.empty()) {
      const auto at = routes_.find(state.pending->http->rds_name);
      if (at == routes_.end() || at->second.active == nullptr) continue;
    }
    std::set<std::string> names;
    AddClusters(*state.pending, &names);
    bool warming = false;
    for (const std::string& cluster : names) warming = warming || ClusterIsWarming(cluster);
    if (warming) continue;
    state.active = std::move(state.pending);
    state.pending = nullptr;
    next_.listeners[name] = state.active;
    changed_ = true;
  }
}

std::set<std::string> SnapshotBuilder::NamedClusters() const {
  std::set<std::string> out;
  for (const auto& [name, listener] : next_.listeners) {
    AddClusters(*listener, &out);
    if (!listener->http) continue;
    const auto at = next_.routes.find(listener->http->rds_name);
    if (at != next_.routes.end()) AddClusters(*at->second, &out);
  }
  return out;
}

void SnapshotBuilder::SettleLingering(Clock::time_point now) {
  std::optional<std::set<std::string>> named;
  for (auto at = clusters_.begin(); at != clusters_.end();) {
    const ClusterState& state = at->second;
    if (!state.lingering) {
      ++at;
      continue;
    }
    if (!named) named = NamedClusters();
    if (state.active != nullptr && named->contains(at->first) && *state.deadline > now) {
      ++at;
      continue;
    }
    Erase(next_.clusters, at->first, &changed_);
    at = clusters_.erase(at);
  }
}

void SnapshotBuilder::UpdateNames() {
  std::set<std::string> eds, rds;
  for (const auto& [name, state] : clusters_) {
    for (const Ptr<model::Cluster>& cluster : {state.active, state.pending}) {
      if (cluster != nullptr && cluster->type == model::DiscoveryType::kEds) {
        eds.insert(cluster->eds_name);
      }
    }
  }
  for (const auto& [name, state] : listeners_) {
    for (const Ptr<model::Listener>& listener : {state.active, state.pending}) {
      if (listener != nullptr && listener->http && !listener->http->rds_name.empty()) {
        rds.insert(listener->http->rds_name);
      }
    }
  }
  std::erase_if(endpoints_, [&](const auto& entry) { return !eds.contains(entry.first); });
  std::erase_if(routes_, [&](const auto& entry) { return !rds.contains(entry.first); });
  const auto drop = [this](auto& map, const std::set<std::string>& wanted) {
    if (std::erase_if(map, [&](const auto& e) { return !wanted.contains(e.first); }) > 0) {
      changed_ = true;
    }
  };
  drop(next_.endpoints, eds);
  drop(next_.routes, rds);
  if (eds != eds_names_) {
    eds_names_ = eds;
    on_names_(kEndpointsType, std::move(eds));
  }
  if (rds != rds_names_) {
    rds_names_ = rds;
    on_names_(kRouteType, std::move(rds));
  }
}

void SnapshotBuilder::PublishIfChanged() {
  if (!changed_ || !not_heard_.empty()) return;
  changed_ = false;
  auto snapshot = std::make_shared<model::Snapshot>(next_);
  snapshot->sequence = ++sequence_;
  snapshot->Finish();
  current_ = std::move(snapshot);
  on_snapshot_(current_);
}

std::optional<SnapshotBuilder::Clock::time_point> SnapshotBuilder::next_deadline() const {
  std::optional<Clock::time_point> out;
  for (const auto& [name, state] : clusters_) {
    if (state.deadline && (!out || *state.deadline < *out)) out = state.deadline;
  }
  return out;
}

std::vector<Warming> SnapshotBuilder::warming() const {
  std::vector<Warming> out;
  for (const std::string& type_url : not_heard_) {
    out.push_back({type_url, "*", "the server's first answer"});
  }
  for (const auto& [name, state] : clusters_) {
    if (state.pending != nullptr) {
      out.push_back({std::string(kClusterType), name, "endpoints " + state.pending->eds_name});
    }
  }
  for (const auto& [name, state] : routes_) {
    if (state.pending != nullptr) {
      out.push_back({std::string(kRouteType), name, "the clusters they name"});
    }
  }
  for (const auto& [name, state] : listeners_) {
    if (state.pending == nullptr) continue;
    const bool rds = state.pending->http && !state.pending->http->rds_name.empty();
    out.push_back({std::string(kListenerType), name,
                   rds ? "routes " + state.pending->http->rds_name : "the clusters it names"});
  }
  return out;
}

}  // namespace weft::xds
