// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/balance_pool.h"

#include <iterator>

#include "bpf/balance.h"
#include "control/bpf/address.h"
#include "control/bpf/maglev.h"

namespace weft::bpf {
namespace {

constexpr uint32_t kRingSizes[] = {127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521};
constexpr uint64_t kEntriesPerShare = 100;
constexpr size_t kMaxBackends = 65535;  // indices have two bytes
constexpr uint32_t kNobody = UINT32_MAX;

// Index -> which of service.backends, or kNobody.
std::vector<uint32_t> PlaceBackends(const ServiceConfig& service,
                                    std::span<const weft_cell> before) {
  std::vector<uint32_t> places;
  std::map<SocketAddress, uint32_t> open;
  for (uint32_t i = 0; i < service.backends.size(); ++i) {
    open.emplace(service.backends[i].address, i);
  }
  const uint32_t had = before.empty() ? 0 : before[0].pool.backends;
  for (uint32_t index = 0; index < had; ++index) {
    places.push_back(kNobody);
    const weft_backend& backend = before[1 + index].backend;
    if ((backend.flags & WEFT_BACKEND_SERVES) == 0) continue;
    const auto found = open.find(FromKernel(backend.addr));
    if (found == open.end()) continue;
    places.back() = found->second;
    open.erase(found);
  }
  uint32_t index = 0;
  for (const auto& [address, which] : open) {
    while (index < places.size() && places[index] != kNobody) ++index;
    if (index == places.size()) places.push_back(kNobody);
    places[index] = which;
  }
  while (!places.empty() && places.back() == kNobody) places.pop_back();
  return places;
}

// The size of before stays while it is enough and not far too much: most entries move where it
// changes, for services at the border between two sizes with every endpoint.
uint32_t RingSize(uint64_t shares, std::span<const weft_cell> before) {
  const uint32_t wanted = PoolRingSize(shares);
  const uint32_t had = before.empty() ? 0 : before[0].pool.ring;
  return had >= wanted && had / 5 < wanted ? had : wanted;
}

}  // namespace

uint32_t PoolRingSize(uint64_t shares) {
  for (const uint32_t size : kRingSizes) {
    if (shares * kEntriesPerShare <= size) return size;
  }
  return kRingSizes[std::size(kRingSizes) - 1];
}

uint64_t CellsOf(const weft_pool& head) {
  return 1 + uint64_t{head.backends} +
         (uint64_t{head.ring} + WEFT_RING_IN_CELL - 1) / WEFT_RING_IN_CELL;
}

absl::StatusOr<std::vector<weft_cell>> BuildPool(const ServiceConfig& service,
                                                 std::span<const weft_cell> before) {
  if (service.backends.size() > kMaxBackends) {
    return absl::ResourceExhaustedError(absl::StrCat("service ", service.id, ": ",
                                                     service.backends.size(), " endpoints, ",
                                                     kMaxBackends, " are the most"));
  }
  const std::vector<uint32_t> places = PlaceBackends(service, before);
  std::vector<MaglevMember> members;
  for (uint32_t index = 0; index < places.size(); ++index) {
    if (places[index] == kNobody) continue;
    const ServiceBackend& backend = service.backends[places[index]];
    if (!backend.in_ring || backend.weight == 0) continue;
    const weft_addr address = ToKernel(backend.address);
    members.push_back({weft_balance_hash(address.ip, address.port_be, 0), backend.weight,
                       static_cast<uint16_t>(index)});
  }
  if (members.empty()) return std::vector<weft_cell>();
  const std::vector<uint16_t> ring = BuildMaglev(members, RingSize(MaglevShares(members), before));
  weft_pool head{};
  head.service = service.id;
  head.flags = service.maglev ? WEFT_POOL_MAGLEV : 0u;
  head.backends = static_cast<uint32_t>(places.size());
  head.ring = static_cast<uint32_t>(ring.size());
  head.affinity_s = service.affinity_s;
  std::vector<weft_cell> cells(CellsOf(head), weft_cell{});
  cells[0].pool = head;
  for (uint32_t index = 0; index < places.size(); ++index) {
    if (places[index] == kNobody) continue;
    cells[1 + index].backend.addr = ToKernel(service.backends[places[index]].address);
    cells[1 + index].backend.flags = WEFT_BACKEND_SERVES;
  }
  for (size_t i = 0; i < ring.size(); ++i) {
    cells[1 + places.size() + i / WEFT_RING_IN_CELL].ring[i % WEFT_RING_IN_CELL] = ring[i];
  }
  return cells;
}

CellSpace::CellSpace(uint32_t cells) {
  if (cells > 1) free_.emplace(1, cells - 1);
}

std::optional<uint32_t> CellSpace::Take(uint32_t count) {
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < count || (best != free_.end() && it->second >= best->second)) continue;
    best = it;
    if (it->second == count) break;
  }
  if (best == free_.end() || count == 0) return std::nullopt;
  const uint32_t first = best->first;
  Claim(first, count);
  return first;
}

bool CellSpace::Claim(uint32_t first, uint64_t count) {
  auto gap = free_.upper_bound(first);
  if (gap == free_.begin() || count == 0) return false;
  --gap;
  const uint32_t begin = gap->first;
  const uint64_t end = uint64_t{begin} + gap->second;
  if (count > end || first + count > end) return false;
  free_.erase(gap);
  if (first > begin) free_.emplace(begin, first - begin);
  if (first + count < end) {
    free_.emplace(static_cast<uint32_t>(first + count), static_cast<uint32_t>(end - first - count));
  }
  used_ += static_cast<uint32_t>(count);
  return true;
}

void CellSpace::Give(uint32_t first, uint32_t count) {
  auto next = free_.lower_bound(first);
  used_ -= count;
  if (next != free_.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == first) {
      first = previous->first;
      count += previous->second;
      free_.erase(previous);
    }
  }
  if (next != free_.end() && first + count == next->first) {
    count += next->second;
    free_.erase(next);
  }
  free_.emplace(first, count);
}

}  // namespace weft::bpf
