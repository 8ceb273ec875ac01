// SPDX-License-Identifier: Apache-2.0
// What one worker knows of one cluster: its endpoints as a dense table, who is healthy, whose turn
// it is, and the cluster's and endpoints' rows in the node table. Rebuilt when the snapshot's
// Cluster or Endpoints change; endpoints that stay keep their rows, hence counts and ejections.
// Thread: the worker that owns it. Not here: connections (proxy/worker/http_pool.h).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/reason.h"
#include "proxy/upstream/node_table.h"
#include "proxy/upstream/random.h"
#include "xds/model/cluster.h"

namespace weft::upstream {

// A counted pointer within one worker (not thread safe): Host and ClusterState outlive a
// configuration change while requests or connections still use them.
template <typename T>
class Ref final {
 public:
  Ref() = default;
  explicit Ref(T* p) : p_(p) {
    if (p_ != nullptr) p_->AddRef();
  }
  Ref(const Ref& o) : Ref(o.p_) {}
  Ref(Ref&& o) noexcept : p_(o.p_) { o.p_ = nullptr; }
  Ref& operator=(Ref o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Ref() {
    if (p_ != nullptr) p_->DropRef();
  }
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  bool operator==(const Ref&) const = default;

 private:
  T* p_ = nullptr;
};

class ClusterState;

// One endpoint of one cluster, in one worker.
class Host final {
 public:
  Host(NodeTable& table, uint32_t cluster_row, uint32_t worker, const model::Endpoint& endpoint);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  void AddRef() { ++refs_; }
  void DropRef() {
    if (--refs_ == 0) delete this;
  }

  const SocketAddress& address() const { return endpoint_.address; }
  const model::Endpoint& endpoint() const { return endpoint_; }
  // The endpoint is no longer in the configuration: finish what runs, keep nothing idle.
  bool removed() const { return removed_; }

  // Node-wide attempts in flight.
  uint32_t active() const { return SumActive(table_.cells(row_)); }
  bool ejected() const {
    return table_.endpoint(row_).ejected_until_ns.load(std::memory_order_relaxed) != 0;
  }
  uint32_t row() const { return row_; }

  // An attempt (a request or a TCP connection) begins and ends here. Each Begin has one End.
  void Begin();
  void End();

 private:
  friend class ClusterState;
  NodeTable& table_;
  model::Endpoint endpoint_;
  uint32_t row_;
  WorkerCell* cell_;
  uint32_t refs_ = 0;
  bool removed_ = false;
};
using HostRef = Ref<Host>;

// How an attempt went, for outlier detection and the counters.
enum class Outcome : uint8_t {
  kSuccess,         // a status below 500; a TCP connection that was established
  kServerError,     // a 5xx from the upstream
  kReset,           // the upstream ended before its response was complete
  kTimeout,         // counts as a 5xx
  kConnectFailure,  // counts as a 5xx
};

class ClusterState final {
 public:
  ClusterState(NodeTable& table, uint32_t worker, std::shared_ptr<const model::Cluster> config,
               std::shared_ptr<const model::Endpoints> endpoints);
  ~ClusterState();
  ClusterState(const ClusterState&) = delete;
  ClusterState& operator=(const ClusterState&) = delete;
  void AddRef() { ++refs_; }
  void DropRef() {
    if (--refs_ == 0) delete this;
  }

  const model::Cluster& config() const { return *config_; }
  const std::shared_ptr<const model::Cluster>& shared_config() const { return config_; }
  const std::string& name() const { return config_->name; }
  // Takes a new configuration of the same name; does nothing if neither pointer changed.
  void Update(std::shared_ptr<const model::Cluster> config,
              std::shared_ptr<const model::Endpoints> endpoints);

  // The endpoint for the next attempt; empty: NO_HEALTHY_UPSTREAM. Avoids `tried` for up to
  // `attempts` further tries (a retry's previous hosts), but rather repeats one than finds none.
  // `original`: for ORIGINAL_DST clusters, whose endpoint it is.
  HostRef Pick(Random& random, std::span<const HostRef> tried = {}, uint32_t attempts = 0,
               const SocketAddress* original = nullptr);

  // Circuit breakers, node-wide. True: admitted, call Release(which) once later.
  bool TryAdmit(Limit which);
  void AdmitAlways(Limit which) { upstream::Admit(row(), which); }
  void Release(Limit which) { upstream::Release(row(), which); }
  uint32_t in_use(Limit which) const {
    return table_.cluster(row_).in_use[static_cast<size_t>(which)].load(std::memory_order_relaxed);
  }

  // Counts, and may eject `host`. Once per attempt.
  void Report(Host& host, Outcome outcome, TimePoint now, Random& random);
  // Lets ejected endpoints return whose time is over, if the interval has passed since the last
  // sweep by any worker.
  void Sweep(TimePoint now);

  std::span<const HostRef> hosts() const { return hosts_; }
  ClusterRow& row() { return table_.cluster(row_); }
  uint32_t row_index() const { return row_; }
  NodeTable& table() { return table_; }

 private:
  // The endpoints in use at the moment: of one priority, healthy ones (or all of it, in panic).
  struct Candidates {
    std::vector<uint32_t> hosts;       // indices into hosts_
    std::vector<uint64_t> cumulative;  // weights, only if they differ
    struct Turn {
      double deadline;
      uint32_t index;
    };
    std::vector<Turn> turns;  // weighted round robin: a heap, earliest deadline first
    size_t next = 0;          // plain round robin
    uint32_t epoch = 0;
    bool valid = false;
  };
  void Rebuild();
  void RefreshCandidates(Random& random);
  uint32_t PickIndex(Random& random);
  uint32_t PickRoundRobin(Random& random);
  uint32_t PickRandom(Random& random) const;
  uint32_t PickLeastRequest(Random& random) const;
  HostRef OriginalDst(const SocketAddress& address);

  NodeTable& table_;
  uint32_t worker_;
  std::shared_ptr<const model::Cluster> config_;
  std::shared_ptr<const model::Endpoints> endpoints_;
  uint32_t row_;
  std::vector<HostRef> hosts_;
  std::unordered_map<SocketAddress, uint32_t, AddressHash> index_;  // address -> hosts_
  Candidates candidates_;
  uint32_t refs_ = 0;
};
using ClusterRef = Ref<ClusterState>;

}  // namespace weft::upstream
