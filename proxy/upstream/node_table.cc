// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/node_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weft::upstream {
namespace {

constexpr uint64_t kMagic = 0x7765667474626c31ull;  // "wefttbl1"
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxWorkers = 256;
constexpr uint32_t kMaxRows = 1u << 24;
constexpr size_t kHeaderBytes = 4096;

bool IsSane(const TableHeader& h) {
  return h.magic == kMagic && h.version == kVersion && h.workers > 0 && h.workers <= kMaxWorkers &&
         h.clusters > 0 && h.clusters <= kMaxRows && h.endpoints > 0 && h.endpoints <= kMaxRows;
}

size_t SegmentBytes(const TableHeader& h) {
  return kHeaderBytes + size_t{h.clusters} * sizeof(ClusterRow) +
         size_t{h.endpoints} * (sizeof(EndpointRow) + size_t{h.workers} * sizeof(WorkerCell));
}

// The header of a segment that may come from a process that lies: size sealed, so it cannot shrink
// under the mapping.
absl::StatusOr<TableHeader> ReadHeader(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return ErrnoStatus(errno, "node table: read seals");
  if ((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) {
    return absl::FailedPreconditionError("node table: the segment's size is not sealed");
  }
  TableHeader header;
  if (pread(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header)) {
    return absl::InvalidArgumentError("node table: no header");
  }
  struct stat info{};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "node table: stat");
  if (!IsSane(header) || static_cast<size_t>(info.st_size) != SegmentBytes(header)) {
    return absl::InvalidArgumentError("node table: not a segment of this version");
  }
  return header;
}

const EndpointRow* EndpointIn(const void* memory, uint32_t row) {
  const auto& h = *static_cast<const TableHeader*>(memory);
  const size_t stride = sizeof(EndpointRow) + h.workers * sizeof(WorkerCell);
  return reinterpret_cast<const EndpointRow*>(static_cast<const uint8_t*>(memory) + kHeaderBytes +
                                              size_t{h.clusters} * sizeof(ClusterRow) +
                                              row * stride);
}

void Zero(ClusterRow& row) {
  row.used.store(0, std::memory_order_relaxed);
  for (auto& x : row.in_use) x.store(0, std::memory_order_relaxed);
  for (auto& x : row.overflows) x.store(0, std::memory_order_relaxed);
  row.ejected.store(0, std::memory_order_relaxed);
  row.epoch.store(0, std::memory_order_relaxed);
  row.last_sweep_ns.store(0, std::memory_order_relaxed);
  memset(row.name, 0, sizeof row.name);
}

void Zero(EndpointRow& row, std::span<WorkerCell> cells) {
  row.used.store(0, std::memory_order_relaxed);
  row.consecutive_5xx.store(0, std::memory_order_relaxed);
  row.backoff.store(0, std::memory_order_relaxed);
  row.ejected_until_ns.store(0, std::memory_order_relaxed);
  row.ejections.store(0, std::memory_order_relaxed);
  for (WorkerCell& cell : cells) {
    cell.total.store(0, std::memory_order_relaxed);
    cell.success.store(0, std::memory_order_relaxed);
    cell.errors.store(0, std::memory_order_relaxed);
    cell.connect_failures.store(0, std::memory_order_relaxed);
    cell.active.store(0, std::memory_order_relaxed);
  }
}

// The next row for a new name, or 0 (the shared one) if there is none.
uint32_t TakeRow(std::vector<uint32_t>& free_rows, std::vector<uint32_t>& refs, uint32_t capacity) {
  if (!free_rows.empty()) {
    const uint32_t row = free_rows.back();
    free_rows.pop_back();
    return row;
  }
  if (refs.size() >= capacity) return 0;
  refs.push_back(0);
  return static_cast<uint32_t>(refs.size() - 1);
}

}  // namespace

absl::StatusOr<int> NodeTable::NewSegment(const NodeTableOptions& options) {
  TableHeader header{.magic = kMagic,
                     .version = kVersion,
                     .workers = options.workers,
                     .generation = options.generation,
                     .clusters = options.clusters,
                     .endpoints = options.endpoints};
  if (!IsSane(header))
    return absl::InvalidArgumentError("node table: workers or capacity out of range");
  const int fd = memfd_create("weft-node-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return ErrnoStatus(errno, "node table: memfd_create");
  if (ftruncate(fd, static_cast<off_t>(SegmentBytes(header))) != 0 ||
      pwrite(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "node table: size and seal");
  }
  return fd;
}

absl::StatusOr<std::unique_ptr<NodeTable>> NodeTable::Create(const NodeTableOptions& options) {
  WEFT_ASSIGN_OR_RETURN(const int fd, NewSegment(options));
  return Adopt(fd);
}

absl::StatusOr<std::unique_ptr<NodeTable>> NodeTable::Adopt(int fd) {
  absl::StatusOr<TableHeader> header = ReadHeader(fd);
  if (!header.ok()) {
    close(fd);
    return header.status();
  }
  const size_t size = SegmentBytes(*header);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "node table: mmap");
  }
  // From here on every other mapping is read-only, and no seal can be taken away.
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
    const int error = errno;
    munmap(memory, size);
    close(fd);
    return ErrnoStatus(error, "node table: seal against other writers");
  }
  return std::unique_ptr<NodeTable>(new NodeTable(fd, memory, size));
}

NodeTable::NodeTable(int fd, void* memory, size_t size)
    : fd_(fd),
      memory_(memory),
      size_(size),
      header_(static_cast<TableHeader*>(memory)),
      clusters_(reinterpret_cast<ClusterRow*>(static_cast<uint8_t*>(memory) + kHeaderBytes)),
      endpoints_(static_cast<uint8_t*>(memory) + kHeaderBytes +
                 size_t{header_->clusters} * sizeof(ClusterRow)) {
  cluster_refs_.push_back(1);  // row 0: what finds no room
  endpoint_refs_.push_back(1);
  memcpy(clusters_[0].name, "(full)", 7);
  clusters_[0].used.store(1, std::memory_order_relaxed);
}

NodeTable::~NodeTable() {
  munmap(memory_, size_);
  close(fd_);
}

uint32_t NodeTable::AcquireCluster(std::string_view name) {
  const std::lock_guard lock(mutex_);
  std::string key(name);
  if (auto it = cluster_rows_.find(key); it != cluster_rows_.end()) {
    ++cluster_refs_[it->second];
    return it->second;
  }
  const uint32_t row = TakeRow(free_clusters_, cluster_refs_, header_->clusters);
  if (row == 0) {
    full_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  ClusterRow& r = clusters_[row];
  memcpy(r.name, name.data(), std::min(name.size(), sizeof r.name - 1));
  r.used.store(1, std::memory_order_release);
  cluster_refs_[row] = 1;
  cluster_rows_.emplace(std::move(key), row);
  return row;
}

void NodeTable::ReleaseCluster(uint32_t row) {
  if (row == 0) return;
  const std::lock_guard lock(mutex_);
  if (--cluster_refs_[row] != 0) return;
  std::erase_if(cluster_rows_, [row](const auto& entry) { return entry.second == row; });
  Zero(clusters_[row]);
  free_clusters_.push_back(row);
}

uint32_t NodeTable::AcquireEndpoint(uint32_t cluster, const SocketAddress& address) {
  const std::lock_guard lock(mutex_);
  const EndpointKey key{cluster, address};
  if (auto it = endpoint_rows_.find(key); it != endpoint_rows_.end()) {
    ++endpoint_refs_[it->second];
    return it->second;
  }
  const uint32_t row =
      cluster == 0 ? 0 : TakeRow(free_endpoints_, endpoint_refs_, header_->endpoints);
  if (row == 0) {
    full_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  EndpointRow& r = endpoint(row);
  r.cluster = cluster;
  r.address = address;
  r.used.store(1, std::memory_order_release);
  endpoint_refs_[row] = 1;
  endpoint_rows_.emplace(key, row);
  return row;
}

void NodeTable::ReleaseEndpoint(uint32_t row) {
  if (row == 0) return;
  const std::lock_guard lock(mutex_);
  if (--endpoint_refs_[row] != 0) return;
  EndpointRow& r = endpoint(row);
  if (r.ejected_until_ns.load(std::memory_order_relaxed) != 0) {
    clusters_[r.cluster].ejected.fetch_sub(1, std::memory_order_relaxed);
  }
  endpoint_rows_.erase(EndpointKey{r.cluster, r.address});
  Zero(r, {Cells(row), header_->workers});
  free_endpoints_.push_back(row);
}

std::optional<uint32_t> NodeTable::FindCluster(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  auto it = cluster_rows_.find(std::string(name));
  if (it == cluster_rows_.end()) return std::nullopt;
  return it->second;
}

std::optional<uint32_t> NodeTable::FindEndpoint(uint32_t cluster,
                                                const SocketAddress& address) const {
  const std::lock_guard lock(mutex_);
  auto it = endpoint_rows_.find(EndpointKey{cluster, address});
  if (it == endpoint_rows_.end()) return std::nullopt;
  return it->second;
}

void NodeTable::AddEvent(OutlierEvent event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() == kMaxEvents) events_.erase(events_.begin());
  events_.push_back(std::move(event));
}

std::vector<OutlierEvent> NodeTable::Events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

absl::StatusOr<std::unique_ptr<NodeTableView>> NodeTableView::Open(int fd, uint64_t generation) {
  WEFT_ASSIGN_OR_RETURN(const TableHeader header, ReadHeader(fd));
  if (header.generation != generation) {
    return absl::FailedPreconditionError("node table: the segment is of another generation");
  }
  const size_t size = SegmentBytes(header);
  void* memory = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "node table: mmap read-only");
  return std::unique_ptr<NodeTableView>(new NodeTableView(memory, size));
}

NodeTableView::~NodeTableView() { munmap(const_cast<void*>(memory_), size_); }

const ClusterRow& NodeTableView::cluster(uint32_t row) const {
  return reinterpret_cast<const ClusterRow*>(static_cast<const uint8_t*>(memory_) +
                                             kHeaderBytes)[row];
}
const EndpointRow& NodeTableView::endpoint(uint32_t row) const { return *EndpointIn(memory_, row); }
std::span<const WorkerCell> NodeTableView::cells(uint32_t row) const {
  return {reinterpret_cast<const WorkerCell*>(EndpointIn(memory_, row) + 1), header().workers};
}

}  // namespace weft::upstream
