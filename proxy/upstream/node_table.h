// SPDX-License-Identifier: Apache-2.0
// The state of all upstreams of one proxy process in one sealed memfd (DESIGN.md 6):
// circuit-breaker counts, ejections and per-endpoint counters, shared by its workers and readable
// by other processes. Counters have one writer each (a worker's own cell) and readers sum; what
// must be exact across workers (breakers, ejections) is one shared atomic. Threads: any; acquiring
// and releasing rows takes a mutex (configuration changes only), the rest is lock free. Owns the
// mapping. Not here: which endpoints exist (cluster_state.h), when one is ejected (outlier.h).
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::upstream {

// CLOCK_MONOTONIC: comparable between the processes of one boot.
using TimePoint = std::chrono::steady_clock::time_point;

inline int64_t ToNanoseconds(TimePoint t) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count();
}

// What a circuit breaker bounds.
enum class Limit : uint8_t { kConnections, kPending, kRequests, kRetries };
inline constexpr size_t kLimits = 4;

// --- Layout of the segment. All-zero is a valid initial state of every row. ---

// Written by one worker only, with relaxed stores; anyone may read.
struct alignas(64) WorkerCell {
  std::atomic<uint64_t> total{0};    // attempts begun
  std::atomic<uint64_t> success{0};  // answered with a status below 500
  std::atomic<uint64_t> errors{0};   // 5xx, resets, timeouts
  std::atomic<uint64_t> connect_failures{0};
  std::atomic<uint32_t> active{0};  // attempts in flight
};
static_assert(sizeof(WorkerCell) == 64);

// Followed in memory by one WorkerCell per worker.
struct alignas(64) EndpointRow {
  std::atomic<uint32_t> used{0};
  uint32_t cluster = 0;  // index of the cluster's row
  SocketAddress address;
  uint16_t pad[3] = {};
  std::atomic<uint32_t> consecutive_5xx{0};
  std::atomic<uint32_t> backoff{
      0};  // how often the base ejection time counts; shrinks while it behaves
  std::atomic<int64_t> ejected_until_ns{
      0};  // 0: not ejected. Past it the next sweep lets it return
  std::atomic<uint64_t> ejections{0};
};
static_assert(sizeof(EndpointRow) == 64);

struct alignas(64) ClusterRow {
  std::atomic<uint32_t> in_use[kLimits]{};
  std::atomic<uint64_t> overflows[kLimits]{};
  // Second line: rarely written.
  alignas(64) std::atomic<uint32_t> used{0};
  std::atomic<uint32_t> ejected{0};  // endpoints ejected now
  std::atomic<uint32_t> epoch{
      0};  // grows with each ejection and return: cached healthy lists are stale
  std::atomic<int64_t> last_sweep_ns{0};
  char name[168] = {};  // cut if longer, always 0-terminated
};
static_assert(sizeof(ClusterRow) == 256);

struct TableHeader {
  uint64_t magic = 0;
  uint32_t version = 0;
  uint32_t workers = 0;
  uint64_t generation = 0;  // given by the supervisor: a reader ignores a segment whose generation
                            // is not the live one's
  uint32_t clusters = 0;    // capacity
  uint32_t endpoints = 0;
};

struct NodeTableOptions {
  uint32_t workers = 1;
  uint64_t generation = 1;
  uint32_t clusters =
      8192;  // pages are taken when first touched: capacity costs address space only
  uint32_t endpoints = 131072;
};

struct OutlierEvent {
  int64_t time_ns = 0;  // CLOCK_MONOTONIC
  std::string cluster;
  SocketAddress address;
  bool ejected = false;     // false: returned
  int64_t duration_ms = 0;  // of the ejection
  uint64_t ejections = 0;   // so far
};

class NodeTable final {
 public:
  // Makes the memfd itself.
  static absl::StatusOr<std::unique_ptr<NodeTable>> Create(const NodeTableOptions& options);
  // The supervisor made the memfd (NewSegment) and passed it; this process becomes its only writer.
  // Takes the descriptor.
  static absl::StatusOr<std::unique_ptr<NodeTable>> Adopt(int fd);
  // A sized, zeroed, size-sealed memfd for Adopt() in another process.
  static absl::StatusOr<int> NewSegment(const NodeTableOptions& options);
  ~NodeTable();
  NodeTable(const NodeTable&) = delete;
  NodeTable& operator=(const NodeTable&) = delete;

  int fd() const { return fd_; }
  uint32_t workers() const { return header_->workers; }

  // Rows are counted: the same cluster or endpoint asked for by several workers is one row, zeroed
  // when the last lets go. When the table is full, row 0, which all the rest share and which is
  // never ejected, is returned and counted in full().
  uint32_t AcquireCluster(std::string_view name);
  void ReleaseCluster(uint32_t row);
  uint32_t AcquireEndpoint(uint32_t cluster, const SocketAddress& address);
  void ReleaseEndpoint(uint32_t row);

  ClusterRow& cluster(uint32_t row) { return clusters_[row]; }
  EndpointRow& endpoint(uint32_t row) { return *EndpointAt(row); }
  WorkerCell& cell(uint32_t row, uint32_t worker) { return Cells(row)[worker]; }
  std::span<const WorkerCell> cells(uint32_t row) const {
    return {const_cast<NodeTable*>(this)->Cells(row), header_->workers};
  }
  // For status: nullopt if no worker uses it now.
  std::optional<uint32_t> FindCluster(std::string_view name) const;
  std::optional<uint32_t> FindEndpoint(uint32_t cluster, const SocketAddress& address) const;
  uint64_t full() const { return full_.load(std::memory_order_relaxed); }

  // The last kMaxEvents ejections and returns, oldest first.
  static constexpr size_t kMaxEvents = 256;
  void AddEvent(OutlierEvent event);
  std::vector<OutlierEvent> Events() const;

 private:
  struct EndpointKey {
    uint32_t cluster;
    SocketAddress address;
    bool operator==(const EndpointKey&) const = default;
  };
  struct EndpointKeyHash {
    size_t operator()(const EndpointKey& k) const noexcept {
      return AddressHash{}(k.address) ^ (k.cluster * 0x9e3779b97f4a7c15ull);
    }
  };
  NodeTable(int fd, void* memory, size_t size);
  size_t EndpointStride() const {
    return sizeof(EndpointRow) + header_->workers * sizeof(WorkerCell);
  }
  EndpointRow* EndpointAt(uint32_t row) {
    return reinterpret_cast<EndpointRow*>(endpoints_ + row * EndpointStride());
  }
  WorkerCell* Cells(uint32_t row) { return reinterpret_cast<WorkerCell*>(EndpointAt(row) + 1); }

  int fd_;
  void* memory_;
  size_t size_;
  TableHeader* header_;
  ClusterRow* clusters_;
  uint8_t* endpoints_;

  mutable std::mutex mutex_;  // the rest
  std::unordered_map<std::string, uint32_t> cluster_rows_;
  std::unordered_map<EndpointKey, uint32_t, EndpointKeyHash> endpoint_rows_;
  std::vector<uint32_t> cluster_refs_, endpoint_refs_;  // by row; grown as rows are first used
  std::vector<uint32_t> free_clusters_, free_endpoints_;
  std::vector<OutlierEvent> events_;
  std::atomic<uint64_t> full_{0};
};

// Another process's segment, mapped read-only. `generation`: the live one, from the supervisor; a
// segment of another generation belongs to a process that is gone and is refused.
class NodeTableView final {
 public:
  static absl::StatusOr<std::unique_ptr<NodeTableView>> Open(int fd, uint64_t generation);
  ~NodeTableView();
  NodeTableView(const NodeTableView&) = delete;
  NodeTableView& operator=(const NodeTableView&) = delete;

  const TableHeader& header() const { return *static_cast<const TableHeader*>(memory_); }
  const ClusterRow& cluster(uint32_t row) const;
  const EndpointRow& endpoint(uint32_t row) const;
  std::span<const WorkerCell> cells(uint32_t row) const;

 private:
  NodeTableView(const void* memory, size_t size) : memory_(memory), size_(size) {}
  const void* memory_;
  size_t size_;
};

// Admission: one shared fetch_add. Never lets in more than `limit` at once, whatever the number of
// threads; a refusal is counted.
inline bool TryAdmit(ClusterRow& row, Limit which, uint32_t limit) {
  std::atomic<uint32_t>& in_use = row.in_use[static_cast<size_t>(which)];
  if (in_use.fetch_add(1, std::memory_order_relaxed) < limit) return true;
  in_use.fetch_sub(1, std::memory_order_relaxed);
  row.overflows[static_cast<size_t>(which)].fetch_add(1, std::memory_order_relaxed);
  return false;
}
// Counts without a limit.
inline void Admit(ClusterRow& row, Limit which) {
  row.in_use[static_cast<size_t>(which)].fetch_add(1, std::memory_order_relaxed);
}
inline void Release(ClusterRow& row, Limit which) {
  row.in_use[static_cast<size_t>(which)].fetch_sub(1, std::memory_order_relaxed);
}
// Single-writer increments: a plain load and store, no locked instruction.
inline void Bump(std::atomic<uint64_t>& cell) {
  cell.store(cell.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
inline uint32_t SumActive(std::span<const WorkerCell> cells) {
  uint32_t sum = 0;
  for (const WorkerCell& cell : cells) sum += cell.active.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace weft::upstream
