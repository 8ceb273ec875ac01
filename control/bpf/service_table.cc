// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/service_table.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "control/bpf/address.h"

namespace weft::bpf {
namespace {

absl::Status NoRoom(uint32_t id, size_t cells, uint32_t used, uint32_t all) {
  return absl::ResourceExhaustedError(
      absl::StrCat("service ", id, ": no room for its endpoints (", cells * sizeof(weft_cell),
                   " bytes; ", uint64_t{used} * sizeof(weft_cell), " of ",
                   uint64_t{all} * sizeof(weft_cell), " are in use): it keeps those of before"));
}

}  // namespace

absl::StatusOr<ArrayMapping> ArrayMapping::Create(const UniqueFd& map) {
  bpf_map_info info{};
  uint32_t length = sizeof info;
  if (bpf_map_get_info_by_fd(map.get(), &info, &length) != 0) {
    return ErrnoStatus(errno, "ask for the size of a map");
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = (size_t{info.max_entries} * info.value_size + page - 1) / page * page;
  ArrayMapping out;
  out.memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
  if (out.memory_ == MAP_FAILED) {
    out.memory_ = nullptr;
    return ErrnoStatus(errno, "map " + std::string(info.name));
  }
  out.bytes_ = bytes;
  out.entries_ = info.max_entries;
  return out;
}

ArrayMapping::ArrayMapping(ArrayMapping&& other) noexcept { *this = std::move(other); }

ArrayMapping& ArrayMapping::operator=(ArrayMapping&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  std::swap(entries_, other.entries_);
  return *this;
}

ArrayMapping::~ArrayMapping() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

ServiceTable::ServiceTable(const KernelMaps& maps, ArrayMapping pools, ArrayMapping cells)
    : maps_(maps), pools_(std::move(pools)), cells_(std::move(cells)), space_(cells_.entries()) {}

absl::StatusOr<std::unique_ptr<ServiceTable>> ServiceTable::Create(const KernelMaps& maps) {
  WEFT_ASSIGN_OR_RETURN(ArrayMapping pools, ArrayMapping::Create(maps.pools));
  WEFT_ASSIGN_OR_RETURN(ArrayMapping cells, ArrayMapping::Create(maps.cells));
  std::unique_ptr<ServiceTable> table(new ServiceTable(maps, std::move(pools), std::move(cells)));
  WEFT_RETURN_IF_ERROR(table->Adopt());
  return table;
}

absl::Status ServiceTable::Adopt() {
  std::set<uint32_t> slots;
  for (const weft_addr& vip : Keys<weft_addr>(maps_.services)) {
    weft_service service{};
    if (bpf_map_lookup_elem(maps_.services.get(), &vip, &service) != 0) continue;
    if (service.slot >= pools_.entries()) {
      return absl::InternalError(absl::StrCat("weft_services has slot ", service.slot));
    }
    Written& written = written_[service.id];
    written.slot = service.slot;
    written.vips[FromKernel(vip)] = service.flags;
    owners_[FromKernel(vip)] = service.id;
    slots.insert(service.slot);
  }
  for (auto& [id, written] : written_) {
    const uint64_t first = pools_.As<uint64_t>()[written.slot];
    if (first == 0) continue;
    const weft_cell* head = first < cells_.entries() ? cells_.As<weft_cell>() + first : nullptr;
    if (head == nullptr || head->pool.service != id ||
        !space_.Claim(static_cast<uint32_t>(first), CellsOf(head->pool))) {
      return absl::InternalError(absl::StrCat("weft_cells has no pool of service ", id));
    }
    written.first = static_cast<uint32_t>(first);
    written.count = static_cast<uint32_t>(CellsOf(head->pool));
  }
  for (uint32_t slot = pools_.entries(); slot-- > 0;) {
    if (!slots.contains(slot)) free_slots_.push_back(slot);
  }
  // What an earlier agent had retired is taken for free.
  return written_.empty() ? absl::OkStatus() : GracePeriod();
}

absl::Status ServiceTable::Settle() {
  WEFT_RETURN_IF_ERROR(GracePeriod());
  for (const auto& [first, count] : std::exchange(retired_cells_, {})) space_.Give(first, count);
  for (const uint32_t slot : std::exchange(retired_slots_, {})) free_slots_.push_back(slot);
  entries_freed_ = false;
  return absl::OkStatus();
}

void ServiceTable::StorePool(uint32_t slot, uint32_t first) {
  std::atomic_ref<uint64_t>(pools_.As<uint64_t>()[slot]).store(first, std::memory_order_release);
}

ServiceTable::Cells ServiceTable::CellsNow(const Written& written) const {
  if (written.first == 0) return {};
  return {cells_.As<weft_cell>() + written.first, written.count};
}

absl::StatusOr<uint32_t> ServiceTable::TakeSlot() {
  if (free_slots_.empty() && has_retired()) WEFT_RETURN_IF_ERROR(Settle());
  if (free_slots_.empty())
    return absl::ResourceExhaustedError("weft_pools: the kernel map is full");
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  StorePool(slot, 0);
  return slot;
}

absl::Status ServiceTable::SwitchPool(Written& written, Cells cells) {
  const Cells now = CellsNow(written);
  const bool same = cells.size() == now.size() &&
                    (cells.empty() || std::memcmp(cells.data(), now.data(), now.size_bytes()) == 0);
  if (same) return absl::OkStatus();
  uint32_t first = 0;
  if (!cells.empty()) {
    const uint32_t count = static_cast<uint32_t>(cells.size());
    std::optional<uint32_t> place = space_.Take(count);
    if (!place && has_retired()) {
      WEFT_RETURN_IF_ERROR(Settle());
      place = space_.Take(count);
    }
    if (!place) return NoRoom(cells[0].pool.service, count, space_.used(), cells_.entries());
    first = *place;
    std::memcpy(cells_.As<weft_cell>() + first, cells.data(), cells.size_bytes());
  }
  StorePool(written.slot, first);
  if (written.first != 0) retired_cells_.emplace_back(written.first, written.count);
  written.first = first;
  written.count = static_cast<uint32_t>(cells.size());
  return absl::OkStatus();
}

absl::Status ServiceTable::WriteVip(const SocketAddress& vip, uint32_t id, uint32_t flags) {
  Written& written = written_.at(id);
  const auto known = written.vips.find(vip);
  if (known != written.vips.end() && known->second == flags) return absl::OkStatus();
  if (entries_freed_) WEFT_RETURN_IF_ERROR(Settle());
  weft_service value{};
  value.id = id;
  value.slot = written.slot;
  value.flags = flags;
  WEFT_RETURN_IF_ERROR(Put(maps_.services, ToKernel(vip), value,
                           absl::StrCat("service ", id, " at ", vip.ToString())));
  if (const auto owner = owners_.find(vip); owner != owners_.end()) {
    entries_freed_ = true;
    if (owner->second != id) written_.at(owner->second).vips.erase(vip);
  }
  owners_[vip] = id;
  written.vips[vip] = flags;
  return absl::OkStatus();
}

absl::Status ServiceTable::DropVip(const SocketAddress& vip, uint32_t id) {
  WEFT_RETURN_IF_ERROR(Drop(maps_.services, ToKernel(vip), "remove VIP " + vip.ToString()));
  entries_freed_ = true;
  owners_.erase(vip);
  written_.at(id).vips.erase(vip);
  return absl::OkStatus();
}

absl::Status ServiceTable::Set(const ServiceConfig& service) {
  auto found = written_.find(service.id);
  const bool is_new = found == written_.end();
  absl::StatusOr<std::vector<weft_cell>> cells =
      BuildPool(service, is_new ? Cells() : CellsNow(found->second));
  absl::Status done = cells.status();
  if (done.ok() && is_new) {
    absl::StatusOr<uint32_t> slot = TakeSlot();
    done = slot.status();
    if (done.ok()) found = written_.emplace(service.id, Written{.slot = *slot}).first;
  }
  if (done.ok()) done = SwitchPool(found->second, *cells);
  for (const SocketAddress& vip : service.vips) {
    if (done.ok()) done = WriteVip(vip, service.id, service.flags);
  }
  refused_full_ += absl::IsResourceExhausted(done);
  if (!done.ok()) {
    // Nobody has learned of it: connects go to the proxy, which knows it.
    if (is_new && found != written_.end() && found->second.vips.empty()) {
      WEFT_RETURN_IF_ERROR(Remove(service.id));
    }
    return done;
  }
  std::vector<SocketAddress> gone;
  for (const auto& [vip, flags] : found->second.vips) {
    if (std::find(service.vips.begin(), service.vips.end(), vip) == service.vips.end()) {
      gone.push_back(vip);
    }
  }
  for (const SocketAddress& vip : gone) WEFT_RETURN_IF_ERROR(DropVip(vip, service.id));
  return absl::OkStatus();
}

absl::Status ServiceTable::Remove(uint32_t id) {
  const auto found = written_.find(id);
  if (found == written_.end()) return absl::OkStatus();
  Written& written = found->second;
  while (!written.vips.empty()) {
    const SocketAddress vip = written.vips.begin()->first;
    WEFT_RETURN_IF_ERROR(DropVip(vip, id));
  }
  // The pool stays as it is for who has found the service just before.
  if (written.first != 0) retired_cells_.emplace_back(written.first, written.count);
  retired_slots_.push_back(written.slot);
  written_.erase(found);
  return absl::OkStatus();
}

std::vector<uint32_t> ServiceTable::Ids() const {
  std::vector<uint32_t> ids;
  for (const auto& [id, written] : written_) ids.push_back(id);
  return ids;
}

ServiceStats ServiceTable::stats() const {
  return {.services = static_cast<uint32_t>(written_.size()),
          .cells = cells_.entries(),
          .cells_used = space_.used(),
          .refused_full = refused_full_};
}

}  // namespace weft::bpf
