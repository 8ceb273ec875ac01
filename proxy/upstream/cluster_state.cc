// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/cluster_state.h"

#include <algorithm>

#include "proxy/upstream/outlier.h"
#include "proxy/upstream/retry_budget.h"

namespace weft::upstream {
namespace {
// Addresses an ORIGINAL_DST cluster remembers before it forgets those without a user.
constexpr size_t kMaxOriginalDstHosts = 1024;
}  // namespace

Host::Host(NodeTable& table, uint32_t cluster_row, uint32_t worker, const model::Endpoint& endpoint)
    : table_(table),
      endpoint_(endpoint),
      row_(table.AcquireEndpoint(cluster_row, endpoint.address)),
      cell_(&table.cell(row_, worker)) {}

Host::~Host() { table_.ReleaseEndpoint(row_); }

void Host::Begin() {
  Bump(cell_->total);
  cell_->active.store(cell_->active.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void Host::End() {
  cell_->active.store(cell_->active.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
}

ClusterState::ClusterState(NodeTable& table, uint32_t worker,
                           std::shared_ptr<const model::Cluster> config,
                           std::shared_ptr<const model::Endpoints> endpoints)
    : table_(table),
      worker_(worker),
      config_(std::move(config)),
      endpoints_(std::move(endpoints)),
      row_(table.AcquireCluster(config_->name)) {
  Rebuild();
}

ClusterState::~ClusterState() {
  hosts_.clear();
  table_.ReleaseCluster(row_);
}

void ClusterState::Update(std::shared_ptr<const model::Cluster> config,
                          std::shared_ptr<const model::Endpoints> endpoints) {
  if (config == config_ && endpoints == endpoints_) return;
  config_ = std::move(config);
  endpoints_ = std::move(endpoints);
  Rebuild();
}

void ClusterState::Rebuild() {
  const std::vector<model::Endpoint>* wanted = &config_->endpoints;
  if (config_->type == model::DiscoveryType::kEds) {
    static const std::vector<model::Endpoint> kNone;
    wanted = endpoints_ ? &endpoints_->endpoints : &kNone;
  }
  std::vector<HostRef> old = std::move(hosts_);
  const auto old_index = std::move(index_);
  hosts_.clear();
  index_.clear();
  hosts_.reserve(wanted->size());
  index_.reserve(wanted->size());
  for (const model::Endpoint& endpoint : *wanted) {
    if (index_.contains(endpoint.address))
      continue;  // the same address twice in an assignment: the first counts
    HostRef host;
    if (auto it = old_index.find(endpoint.address); it != old_index.end()) {
      host = old[it->second];
      host->endpoint_ = endpoint;
      host->removed_ = false;
    } else {
      host = HostRef(new Host(table_, row_, worker_, endpoint));
    }
    index_.emplace(endpoint.address, static_cast<uint32_t>(hosts_.size()));
    hosts_.push_back(std::move(host));
  }
  for (HostRef& host : old) {
    if (!index_.contains(host->address())) host->removed_ = true;
  }
  candidates_.valid = false;
}

namespace {

// Better is larger. An ejected or unhealthy endpoint serves only in panic.
enum class Usable : uint8_t { kNo, kDegraded, kYes };

Usable UsableNow(const Host& host) {
  if (host.ejected()) return Usable::kNo;
  switch (host.endpoint().health) {
    case model::HealthStatus::kUnhealthy:
    case model::HealthStatus::kDraining:
      return Usable::kNo;
    case model::HealthStatus::kDegraded:
      return Usable::kDegraded;
    case model::HealthStatus::kUnknown:
    case model::HealthStatus::kHealthy:
      break;
  }
  return Usable::kYes;
}

struct Level {
  uint32_t priority = 0;
  std::vector<uint32_t> all, healthy, degraded;
  bool IsCalm(uint32_t panic_percent) const {
    const size_t usable = healthy.size() + degraded.size();
    return usable > 0 && usable * 100 >= size_t{panic_percent} * all.size();
  }
};

std::vector<Level> Levels(std::span<const HostRef> hosts) {
  std::vector<Level> levels;
  for (uint32_t i = 0; i < hosts.size(); ++i) {
    if (hosts[i]->endpoint().weight == 0) continue;
    const uint32_t priority = hosts[i]->endpoint().priority;
    auto it = std::find_if(levels.begin(), levels.end(),
                           [&](const Level& l) { return l.priority == priority; });
    if (it == levels.end()) it = levels.insert(levels.end(), Level{.priority = priority});
    it->all.push_back(i);
    const Usable usable = UsableNow(*hosts[i]);
    if (usable == Usable::kYes) it->healthy.push_back(i);
    if (usable == Usable::kDegraded) it->degraded.push_back(i);
  }
  std::sort(levels.begin(), levels.end(),
            [](const Level& a, const Level& b) { return a.priority < b.priority; });
  return levels;
}

// The first priority with enough healthy endpoints. If none has, panic: the first with any healthy
// one, else the first of all, and there all endpoints, for the health information itself is then
// more likely wrong. Threshold 0 turns panic off.
std::vector<uint32_t> Eligible(std::span<const HostRef> hosts, uint32_t panic_percent) {
  std::vector<Level> levels = Levels(hosts);
  for (Level& level : levels) {
    if (level.IsCalm(panic_percent)) {
      return std::move(level.healthy.empty() ? level.degraded : level.healthy);
    }
  }
  if (panic_percent == 0 || levels.empty()) return {};
  for (Level& level : levels) {
    if (!level.healthy.empty() || !level.degraded.empty()) return std::move(level.all);
  }
  return std::move(levels.front().all);
}

constexpr auto kLater = [](const auto& a, const auto& b) {
  return a.deadline > b.deadline || (a.deadline == b.deadline && a.index > b.index);
};

}  // namespace

void ClusterState::RefreshCandidates(Random& random) {
  const uint32_t epoch = row().epoch.load(std::memory_order_acquire);
  if (candidates_.valid && candidates_.epoch == epoch) return;
  Candidates c;
  c.epoch = epoch;
  c.valid = true;
  c.hosts = Eligible(hosts_, config_->panic_threshold_percent);
  const bool weighted = std::any_of(c.hosts.begin(), c.hosts.end(), [&](uint32_t i) {
    return hosts_[i]->endpoint().weight != hosts_[c.hosts.front()]->endpoint().weight;
  });
  if (weighted) {
    uint64_t sum = 0;
    for (uint32_t i : c.hosts) c.cumulative.push_back(sum += hosts_[i]->endpoint().weight);
    if (config_->lb == model::LbPolicy::kRoundRobin) {
      for (uint32_t i : c.hosts) c.turns.push_back({1.0 / hosts_[i]->endpoint().weight, i});
      std::make_heap(c.turns.begin(), c.turns.end(), kLater);
    }
  }
  // Workers start at different places, or each would send its first request to the same endpoint.
  c.next = c.hosts.empty() ? 0 : random.Below(c.hosts.size());
  candidates_ = std::move(c);
}

uint32_t ClusterState::PickRoundRobin(Random&) {
  Candidates& c = candidates_;
  if (c.turns.empty()) {
    c.next = (c.next + 1) % c.hosts.size();
    return c.hosts[c.next];
  }
  std::pop_heap(c.turns.begin(), c.turns.end(), kLater);
  Candidates::Turn& turn = c.turns.back();
  const uint32_t picked = turn.index;
  turn.deadline += 1.0 / hosts_[picked]->endpoint().weight;
  std::push_heap(c.turns.begin(), c.turns.end(), kLater);
  return picked;
}

uint32_t ClusterState::PickRandom(Random& random) const {
  const Candidates& c = candidates_;
  if (c.cumulative.empty()) return c.hosts[random.Below(c.hosts.size())];
  const uint64_t point = random.Below(c.cumulative.back());
  const auto it = std::upper_bound(c.cumulative.begin(), c.cumulative.end(), point);
  return c.hosts[static_cast<size_t>(it - c.cumulative.begin())];
}

// Power of N choices, drawn by weight, compared by load per weight; idle endpoints thus share by
// weight exactly.
uint32_t ClusterState::PickLeastRequest(Random& random) const {
  uint32_t best = PickRandom(random);
  uint64_t best_active = hosts_[best]->active();
  for (uint32_t i = 1; i < std::max(config_->least_request_choices, 1u); ++i) {
    const uint32_t other = PickRandom(random);
    const uint64_t active = hosts_[other]->active();
    if (active * hosts_[best]->endpoint().weight < best_active * hosts_[other]->endpoint().weight) {
      best = other;
      best_active = active;
    }
  }
  return best;
}

uint32_t ClusterState::PickIndex(Random& random) {
  switch (config_->lb) {
    case model::LbPolicy::kLeastRequest:
      return PickLeastRequest(random);
    case model::LbPolicy::kRandom:
    case model::LbPolicy::kMaglev:
      return PickRandom(random);
    case model::LbPolicy::kRoundRobin:
    case model::LbPolicy::kOriginalDst:
      break;
  }
  return PickRoundRobin(random);
}

HostRef ClusterState::OriginalDst(const SocketAddress& address) {
  if (auto it = index_.find(address); it != index_.end()) return hosts_[it->second];
  if (hosts_.size() >= kMaxOriginalDstHosts) {
    std::erase_if(hosts_, [](const HostRef& host) { return host->refs_ == 1; });  // only we know it
    index_.clear();
    for (uint32_t i = 0; i < hosts_.size(); ++i) index_.emplace(hosts_[i]->address(), i);
  }
  model::Endpoint endpoint;
  endpoint.address = address;
  HostRef host(new Host(table_, row_, worker_, endpoint));
  index_.emplace(address, static_cast<uint32_t>(hosts_.size()));
  hosts_.push_back(host);
  return host;
}

HostRef ClusterState::Pick(Random& random, std::span<const HostRef> tried, uint32_t attempts,
                           const SocketAddress* original) {
  if (config_->type == model::DiscoveryType::kOriginalDst) {
    return original == nullptr ? HostRef() : OriginalDst(*original);
  }
  RefreshCandidates(random);
  if (candidates_.hosts.empty()) return {};
  HostRef host = hosts_[PickIndex(random)];
  while (attempts > 0 && std::find(tried.begin(), tried.end(), host) != tried.end()) {
    host = hosts_[PickIndex(random)];
    --attempts;
  }
  return host;
}

bool ClusterState::TryAdmit(Limit which) {
  const model::CircuitBreaker& breaker = config_->breaker;
  uint32_t limit = 0;
  switch (which) {
    case Limit::kConnections:
      limit = breaker.max_connections;
      break;
    case Limit::kPending:
      limit = breaker.max_pending_requests;
      break;
    case Limit::kRequests:
      limit = breaker.max_requests;
      break;
    case Limit::kRetries:
      limit = RetryLimit(breaker, in_use(Limit::kRequests), in_use(Limit::kPending));
      break;
  }
  return upstream::TryAdmit(row(), which, limit);
}

void ClusterState::Report(Host& host, Outcome outcome, TimePoint now, Random& random) {
  if (outcome == Outcome::kSuccess) {
    Bump(host.cell_->success);
    ReportSuccess(table_.endpoint(host.row_));
    return;
  }
  Bump(host.cell_->errors);
  if (outcome == Outcome::kConnectFailure) Bump(host.cell_->connect_failures);
  if (!config_->outlier) return;
  ReportFailure(table_, row_, host.row_, *config_->outlier, hosts_.size(), now, random);
}

void ClusterState::Sweep(TimePoint now) {
  if (!config_->outlier) return;
  if (!ClaimSweep(row(), *config_->outlier, now)) return;
  for (HostRef& host : hosts_) SweepEndpoint(table_, row_, host->row_, now);
}

}  // namespace weft::upstream
