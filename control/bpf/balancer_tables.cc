// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/balancer_tables.h"

#include <arpa/inet.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "bpf/tc/balancer_encap.h"
#include "bpf/tc/balancer_quic.h"
#include "control/bpf/maglev.h"

namespace weft::bpf {
namespace {

constexpr uint32_t kMaxRing = 65521;
constexpr uint32_t kMaxServers = WEFT_LB_CHUNK;
constexpr uint32_t kMaxWeight = 65535;

template <typename T>
void Publish(T& place, std::type_identity_t<T> value) {
  std::atomic_ref<T>(place).store(value, std::memory_order_release);
}

void Words(const IpAddress& ip, __u64* hi, __u64* lo) {
  memcpy(hi, ip.bytes.data(), 8);
  memcpy(lo, ip.bytes.data() + 8, 8);
}

uint32_t Word(const IpAddress& ip) {
  uint32_t word = 0;
  memcpy(&word, ip.bytes.data() + 12, sizeof word);
  return word;
}

uint64_t SlotHash(const IpAddress& ip, uint32_t service) {
  __u64 hi = 0;
  __u64 lo = 0;
  Words(ip, &hi, &lo);
  return ip.is_v4() ? weft_lb_vip_hash4(Word(ip), service) : weft_lb_vip_hash6(hi, lo, service);
}

bool IsPrime(uint32_t n) {
  if (n < 2) return false;
  for (uint32_t d = 2; uint64_t{d} * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

uint8_t EncapBits(const BalancerBackend& backend) {
  return static_cast<uint8_t>(
      (backend.address.is_v4() ? 0 : WEFT_LB_ENCAP_V6) |
      (backend.encapsulation == Encapsulation::kGue ? WEFT_LB_ENCAP_GUE : 0));
}

}  // namespace

std::optional<uint32_t> RingSpace::Allocate(uint32_t entries) {
  const uint32_t wanted = ChunksOf(entries);
  uint32_t run = 0;
  for (uint32_t at = 0; at < chunks_.size(); ++at) {
    run = chunks_[at] == kFree ? run + 1 : 0;
    if (run < wanted) continue;
    const uint32_t first = at + 1 - wanted;
    std::fill_n(chunks_.begin() + first, wanted, kUsed);
    return first * WEFT_LB_CHUNK;
  }
  return std::nullopt;
}

void RingSpace::Release(uint32_t offset, uint32_t entries) {
  std::fill_n(chunks_.begin() + offset / WEFT_LB_CHUNK, ChunksOf(entries), kReleased);
}

void RingSpace::Reclaim() { std::replace(chunks_.begin(), chunks_.end(), kReleased, kFree); }

uint64_t RingSpace::used_bytes() const {
  return static_cast<uint64_t>(std::count(chunks_.begin(), chunks_.end(), kUsed)) * WEFT_LB_CHUNK *
         sizeof(uint16_t);
}

std::optional<uint32_t> IndexSpace::Allocate() {
  if (!free_.empty()) {
    const uint32_t index = free_.back();
    free_.pop_back();
    return index;
  }
  if (next_ == end_) return std::nullopt;
  return next_++;
}

void IndexSpace::Reclaim() {
  free_.insert(free_.end(), released_.begin(), released_.end());
  released_.clear();
}

VipTable::VipTable(const BalancerMemoryMap& memory, bool has_source4, bool has_source6)
    : memory_(memory),
      has_source4_(has_source4),
      has_source6_(has_source6),
      rings_(static_cast<uint32_t>(memory.rings.size() / WEFT_LB_CHUNK)) {}

VipTable::BackendKey VipTable::KeyOf(const BalancerBackend& backend) {
  return {backend.address, backend.encapsulation,
          backend.encapsulation == Encapsulation::kGue ? backend.gue_port : uint16_t{0}};
}

absl::Status VipTable::CheckBackend(const BalancerVip& vip, const BalancerBackend& backend) const {
  const std::string name =
      "backend " + backend.address.ToString() + " of " + vip.address.ToString();
  if (backend.address.is_unspecified()) return absl::InvalidArgumentError(name + ": no address");
  if (backend.weight == 0 || backend.weight > kMaxWeight) {
    return absl::InvalidArgumentError(name + ": the weight is 1 to 65535; let it drain instead");
  }
  if (!(backend.address.is_v4() ? has_source4_ : has_source6_)) {
    return absl::InvalidArgumentError(name + ": the node has no source address of its family");
  }
  if (backend.quic_server_id && *backend.quic_server_id >= kMaxServers) {
    return absl::InvalidArgumentError(name + ": QUIC server ids end at 2047");
  }
  return absl::OkStatus();
}

absl::Status VipTable::Check(const BalancerVip& vip) const {
  const std::string name = "VIP " + vip.address.ToString();
  if (vip.protocol != WEFT_LB_TCP && vip.protocol != WEFT_LB_UDP) {
    return absl::InvalidArgumentError(name + ": neither TCP nor UDP");
  }
  if (vip.address.port == 0 || vip.address.ip.is_unspecified()) {
    return absl::InvalidArgumentError(name + ": needs an address and a port");
  }
  if (vip.quic_config &&
      (vip.protocol != WEFT_LB_UDP || *vip.quic_config >= WEFT_LB_QUIC_UNROUTED)) {
    return absl::InvalidArgumentError(name + ": QUIC is UDP, and configurations are 0 to 6");
  }
  if (vip.ring_entries != 0 && (vip.ring_entries > kMaxRing || !IsPrime(vip.ring_entries))) {
    return absl::InvalidArgumentError(name + ": a ring's size is a prime up to 65521");
  }
  std::set<BackendKey> keys;
  std::set<uint16_t> servers;
  for (const BalancerBackend& backend : vip.backends) {
    WEFT_RETURN_IF_ERROR(CheckBackend(vip, backend));
    if (!keys.insert(KeyOf(backend)).second) {
      return absl::InvalidArgumentError(name + ": twice the backend " + backend.address.ToString());
    }
    if (backend.quic_server_id && !servers.insert(*backend.quic_server_id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(AbslView(name), ": twice the QUIC server id ", *backend.quic_server_id));
    }
  }
  return absl::OkStatus();
}

absl::Status VipTable::Reclaim() {
  WEFT_RETURN_IF_ERROR(memory_.grace());
  std::vector<bool> backends(WEFT_LB_BACKENDS);
  std::vector<bool> vips(WEFT_LB_VIPS);
  for (const uint32_t index : backend_indices_.released()) backends[index] = true;
  for (const uint32_t index : vip_indices_.released()) vips[index] = true;
  // The programs no longer write such values, but may replace them at any moment: compare, then
  // exchange. Backend 0 is always gone, so the flow picks anew.
  const auto sweep = [&](uint32_t& value) {
    uint32_t seen = std::atomic_ref(value).load(std::memory_order_relaxed);
    if (!backends[weft_lb_value_backend(seen)]) return;
    (void)std::atomic_ref(value).compare_exchange_strong(seen, 0);
  };
  for (weft_lb_bucket4& bucket : memory_.flows4) {
    for (uint32_t way = 0; way < WEFT_LB_WAYS; ++way) {
      sweep(bucket.value[way]);
      __u64 key = std::atomic_ref(bucket.key[way]).load(std::memory_order_relaxed);
      if (!vips[key & (WEFT_LB_VIPS - 1)]) continue;
      (void)std::atomic_ref(bucket.key[way]).compare_exchange_strong(key, 0);
    }
  }
  for (weft_lb_bucket6& bucket : memory_.flows6) {
    for (uint32_t way = 0; way < WEFT_LB_WAYS; ++way) {
      sweep(bucket.value[way]);
      uint32_t key = std::atomic_ref(bucket.key[way]).load(std::memory_order_relaxed);
      if (!vips[key & (WEFT_LB_VIPS - 1)]) continue;
      (void)std::atomic_ref(bucket.key[way]).compare_exchange_strong(key, 0);
    }
  }
  for (weft_lb_fragment& fragment : memory_.fragments) {
    uint32_t backend = std::atomic_ref(fragment.backend).load(std::memory_order_relaxed);
    if (!backends[backend & (WEFT_LB_BACKENDS - 1)]) continue;
    (void)std::atomic_ref(fragment.backend).compare_exchange_strong(backend, 0);
  }
  rings_.Reclaim();
  backend_indices_.Reclaim();
  vip_indices_.Reclaim();
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> VipTable::NewIndex(IndexSpace& space, const char* what) {
  std::optional<uint32_t> index = space.Allocate();
  if (!index) {
    WEFT_RETURN_IF_ERROR(Reclaim());
    index = space.Allocate();
  }
  if (!index) return absl::ResourceExhaustedError(std::string("no room for another ") + what);
  return *index;
}

absl::StatusOr<VipTable::Block> VipTable::NewBlock(uint32_t entries) {
  std::optional<uint32_t> offset = rings_.Allocate(entries);
  if (!offset) {
    WEFT_RETURN_IF_ERROR(Reclaim());
    offset = rings_.Allocate(entries);
  }
  if (!offset) return absl::ResourceExhaustedError("no room for another ring");
  return Block{*offset, entries};
}

void VipTable::FreeBlock(const Block& block) {
  if (block.entries != 0) rings_.Release(block.offset, block.entries);
}

void VipTable::WriteBackend(uint32_t index, const BalancerBackend& backend) {
  weft_lb_backend entry{};
  entry.encap = EncapBits(backend);
  entry.gue_port_be = htons(backend.gue_port);
  memcpy(entry.addr, backend.address.bytes.data(), sizeof entry.addr);
  entry.csum = weft_lb_backend_sum(entry.addr[3], weft_lb_outer_protocol(entry.encap, 0));
  weft_lb_backend& place = memory_.tables->backends[index];
  // The next hop and whether there is one lie in one word.
  uint64_t hop = 0;
  if (backend.next_hop) {
    memcpy(&hop, backend.next_hop->data(), backend.next_hop->size());
    hop |= uint64_t{htole16(1)} << 48;
  }
  const uint8_t state = backend.draining ? WEFT_LB_DRAINING : WEFT_LB_ACTIVE;
  if (place.state == WEFT_LB_GONE) place = entry;  // named by no ring and no flow yet
  static_assert(offsetof(weft_lb_backend, next_hop) % 8 == 0 &&
                offsetof(weft_lb_backend, has_next_hop) == offsetof(weft_lb_backend, next_hop) + 6);
  bpf::Publish(*reinterpret_cast<uint64_t*>(place.next_hop), hop);
  bpf::Publish(place.state, state);
}

// Indices of the VIP's backends: those that were there keep theirs. New ones are written.
absl::StatusOr<std::map<VipTable::BackendKey, uint32_t>> VipTable::PlaceBackends(
    const BalancerVip& vip, const Entry& old) {
  std::map<BackendKey, uint32_t> placed;
  std::vector<uint32_t> fresh;
  for (const BalancerBackend& backend : vip.backends) {
    const auto known = old.backends.find(KeyOf(backend));
    if (known != old.backends.end()) {
      placed.insert(*known);
      continue;
    }
    absl::StatusOr<uint32_t> index = NewIndex(backend_indices_, "backend");
    if (!index.ok()) {
      for (const uint32_t unused : fresh) {
        bpf::Publish(memory_.tables->backends[unused].state, WEFT_LB_GONE);
        backend_indices_.Release(unused);
      }
      return index.status();
    }
    fresh.push_back(*index);
    placed[KeyOf(backend)] = *index;
    WriteBackend(*index, backend);
  }
  return placed;
}

absl::StatusOr<VipTable::Block> VipTable::WriteRing(
    const BalancerVip& vip, const std::map<BackendKey, uint32_t>& backends) {
  std::vector<MaglevMember> members;
  for (const BalancerBackend& backend : vip.backends) {
    if (backend.draining) continue;
    const BackendKey key = KeyOf(backend);
    __u64 hi = 0;
    __u64 lo = 0;
    Words(backend.address, &hi, &lo);
    members.push_back({weft_lb_mix6(hi, lo, key.gue_port, 0, WEFT_LB_MIX_A), backend.weight,
                       static_cast<uint16_t>(backends.at(key))});
  }
  if (members.empty()) return Block{};
  const uint32_t size =
      vip.ring_entries != 0 ? vip.ring_entries : MaglevSize(MaglevShares(members));
  WEFT_ASSIGN_OR_RETURN(const Block block, NewBlock(size));
  const std::vector<uint16_t> ring = BuildMaglev(members, size);
  std::copy(ring.begin(), ring.end(), memory_.rings.begin() + block.offset);
  return block;
}

absl::StatusOr<VipTable::Block> VipTable::WriteServers(
    const BalancerVip& vip, const std::map<BackendKey, uint32_t>& backends) {
  if (!vip.quic_config) return Block{};
  std::vector<uint16_t> servers;
  for (const BalancerBackend& backend : vip.backends) {
    if (!backend.quic_server_id) continue;
    if (servers.size() <= *backend.quic_server_id) servers.resize(*backend.quic_server_id + 1u);
    servers[*backend.quic_server_id] = static_cast<uint16_t>(backends.at(KeyOf(backend)));
  }
  if (servers.empty()) return Block{};
  WEFT_ASSIGN_OR_RETURN(const Block block, NewBlock(static_cast<uint32_t>(servers.size())));
  std::copy(servers.begin(), servers.end(), memory_.rings.begin() + block.offset);
  return block;
}

absl::Status VipTable::Publish(const Service& service, uint32_t index) {
  const uint64_t hash =
      SlotHash(service.address.ip, weft_lb_service(htons(service.address.port), service.protocol));
  __u64* slots = memory_.tables->slots;
  for (uint32_t i = 0; i < WEFT_LB_PROBES; ++i) {
    __u64& slot = slots[(hash + i) & (WEFT_LB_SLOTS - 1)];
    if (slot != 0 && slot != WEFT_LB_SLOT_GONE) continue;
    bpf::Publish(slot, uint64_t{weft_lb_tag(hash)} << 32 | index);
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError("no slot for VIP " + service.address.ToString());
}

void VipTable::Withdraw(const Service& service, uint32_t index) {
  const uint64_t hash =
      SlotHash(service.address.ip, weft_lb_service(htons(service.address.port), service.protocol));
  __u64* slots = memory_.tables->slots;
  const auto at = [&](uint64_t place) -> __u64& { return slots[place & (WEFT_LB_SLOTS - 1)]; };
  uint64_t place = hash;
  while (at(place) != (uint64_t{weft_lb_tag(hash)} << 32 | index)) {
    if (++place == hash + WEFT_LB_PROBES) return;  // was never published
  }
  bpf::Publish(at(place), WEFT_LB_SLOT_GONE);
  // Where a search would end with the next slot, it may as well end here.
  while (at(place) == WEFT_LB_SLOT_GONE && at(place + 1) == 0) bpf::Publish(at(place--), 0);
}

absl::Status VipTable::AddAddress(const IpAddress& address) {
  AddressEntry& entry = addresses_[address];
  if (entry.services++ != 0) return absl::OkStatus();
  absl::StatusOr<uint32_t> index = NewIndex(vip_indices_, "VIP");
  if (index.ok()) {
    weft_lb_vip vip{};
    Words(address, &vip.addr_hi, &vip.addr_lo);
    vip.flags = WEFT_LB_VIP_ADDRESS;
    memory_.tables->vips[*index] = vip;
    entry.index = *index;
    const absl::Status published = Publish({{address, 0}, 0}, *index);
    if (published.ok()) return published;
    vip_indices_.Release(*index);
    addresses_.erase(address);
    return published;
  }
  addresses_.erase(address);
  return index.status();
}

void VipTable::DropAddress(const IpAddress& address) {
  AddressEntry& entry = addresses_[address];
  if (--entry.services != 0) return;
  Withdraw({{address, 0}, 0}, entry.index);
  vip_indices_.Release(entry.index);
  addresses_.erase(address);
}

absl::Status VipTable::Set(const BalancerVip& vip) {
  WEFT_RETURN_IF_ERROR(Check(vip));
  const Service service{vip.address, vip.protocol};
  const auto known = vips_.find(service);
  Entry entry = known != vips_.end() ? known->second : Entry{};
  const Entry old = entry;
  WEFT_ASSIGN_OR_RETURN(entry.backends, PlaceBackends(vip, old));
  const auto undo = [&](const absl::Status& why) {
    for (const auto& [key, index] : entry.backends) {
      if (old.backends.contains(key)) continue;
      bpf::Publish(memory_.tables->backends[index].state, WEFT_LB_GONE);
      backend_indices_.Release(index);
    }
    return why;
  };
  absl::StatusOr<Block> ring = WriteRing(vip, entry.backends);
  if (!ring.ok()) return undo(ring.status());
  absl::StatusOr<Block> servers = WriteServers(vip, entry.backends);
  if (!servers.ok()) {
    FreeBlock(*ring);
    return undo(servers.status());
  }
  entry.ring = *ring;
  entry.servers = *servers;
  if (absl::Status switched = Switch(vip, service, entry); !switched.ok()) {
    FreeBlock(*ring);
    FreeBlock(*servers);
    return undo(switched);
  }
  // The new ring is in force: states follow, and what nobody names any more is given back.
  for (const BalancerBackend& backend : vip.backends) {
    WriteBackend(entry.backends.at(KeyOf(backend)), backend);
  }
  for (const auto& [key, index] : old.backends) {
    if (entry.backends.contains(key)) continue;
    bpf::Publish(memory_.tables->backends[index].state, WEFT_LB_GONE);
    backend_indices_.Release(index);
  }
  FreeBlock(old.ring);
  FreeBlock(old.servers);
  vips_[service] = std::move(entry);
  return absl::OkStatus();
}

// Puts a VIP's entry into force: two stores for one that is there, else fills it and publishes it.
absl::Status VipTable::Switch(const BalancerVip& vip, const Service& service, Entry& entry) {
  const uint8_t flags = static_cast<uint8_t>((vip.client_affinity ? WEFT_LB_VIP_AFFINITY : 0) |
                                             (vip.quic_config ? WEFT_LB_VIP_QUIC : 0));
  if (entry.index != 0) {
    weft_lb_vip& place = memory_.tables->vips[entry.index];
    bpf::Publish(place.servers, entry.servers.word());
    bpf::Publish(place.quic_config, vip.quic_config.value_or(0));
    bpf::Publish(place.flags, static_cast<uint8_t>(flags | WEFT_LB_VIP_CHANGED));
    bpf::Publish(place.ring, entry.ring.word());
    return absl::OkStatus();
  }
  WEFT_ASSIGN_OR_RETURN(const uint32_t index, NewIndex(vip_indices_, "VIP"));
  weft_lb_vip place{};
  Words(vip.address.ip, &place.addr_hi, &place.addr_lo);
  place.port_be = htons(vip.address.port);
  place.protocol = vip.protocol;
  place.flags = flags;
  place.quic_config = vip.quic_config.value_or(0);
  place.ring = entry.ring.word();
  place.servers = entry.servers.word();
  memory_.tables->vips[index] = place;
  absl::Status published = AddAddress(vip.address.ip);
  if (published.ok()) {
    published = Publish(service, index);
    if (!published.ok()) DropAddress(vip.address.ip);
  }
  if (!published.ok()) {
    vip_indices_.Release(index);
    return published;
  }
  entry.index = index;
  return absl::OkStatus();
}

absl::Status VipTable::Remove(const SocketAddress& address, uint8_t protocol) {
  const auto known = vips_.find({address, protocol});
  if (known == vips_.end()) return absl::OkStatus();
  const Entry& entry = known->second;
  Withdraw(known->first, entry.index);
  DropAddress(address.ip);
  for (const auto& [key, index] : entry.backends) {
    bpf::Publish(memory_.tables->backends[index].state, WEFT_LB_GONE);
    backend_indices_.Release(index);
  }
  FreeBlock(entry.ring);
  FreeBlock(entry.servers);
  vip_indices_.Release(entry.index);
  vips_.erase(known);
  return absl::OkStatus();
}

uint32_t VipTable::IndexOf(const SocketAddress& address, uint8_t protocol) const {
  const auto known = vips_.find({address, protocol});
  return known == vips_.end() ? 0 : known->second.index;
}

}  // namespace weft::bpf
