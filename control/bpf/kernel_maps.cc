// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/kernel_maps.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <utility>

#include "control/bpf/address.h"

namespace weft::bpf {

std::vector<uint64_t> SumPerCpu(const UniqueFd& map, uint32_t index, size_t counters) {
  const int cpus = libbpf_num_possible_cpus();
  std::vector<uint64_t> sum(counters, 0);
  if (cpus <= 0) return sum;
  std::vector<uint64_t> values(counters * static_cast<size_t>(cpus), 0);
  if (bpf_map_lookup_elem(map.get(), &index, values.data()) != 0) return sum;
  for (size_t i = 0; i < values.size(); ++i) sum[i % counters] += values[i];
  return sum;
}

absl::StatusOr<KernelMaps> KernelMaps::Open(const PinPaths& paths) {
  KernelMaps maps;
  const std::pair<const char*, UniqueFd*> wanted[] = {
      {"weft_workloads", &maps.workloads},
      {"weft_addrs", &maps.addresses},
      {"weft_services", &maps.services},
      {"weft_backends", &maps.backends},
      {"weft_proc_events", &maps.process_events},
      {"weft_handovers", &maps.handovers},
      {"weft_servers", &maps.servers},
      {"weft_splice", &maps.splice},
      {"weft_clients", &maps.clients},
      {"weft_config", &maps.config},
      {"weft_counters", &maps.counters},
      {"weft_moves", &maps.moves},
      {"weft_events", &maps.events},
      {"weft_learned", &maps.binaries},
      {"weft_port_bins", &maps.port_binaries},
  };
  for (const auto& [name, fd] : wanted) {
    WEFT_ASSIGN_OR_RETURN(*fd, OpenPinnedMap(paths, name));
  }
  return maps;
}

ServiceTable::ServiceTable(const KernelMaps& maps) : maps_(maps) {
  for (const weft_addr& vip : Keys<weft_addr>(maps.services)) {
    weft_service service{};
    if (bpf_map_lookup_elem(maps.services.get(), &vip, &service) != 0) continue;
    written_[service.id].vips.push_back(FromKernel(vip));
  }
  // Counted from the keys: an agent that died half way may have left more than a service says.
  for (const weft_backend_key& key : Keys<weft_backend_key>(maps.backends)) {
    uint32_t& count = written_[key.service].backends;
    count = std::max(count, key.index + 1);
  }
}

absl::Status ServiceTable::DropBackends(uint32_t id, uint32_t from, uint32_t to) {
  for (uint32_t index = from; index < to; ++index) {
    const weft_backend_key key{id, index};
    WEFT_RETURN_IF_ERROR(
        Drop(maps_.backends, key, absl::StrCat("remove endpoint of service ", id)));
  }
  return absl::OkStatus();
}

absl::Status ServiceTable::Set(const ServiceConfig& service) {
  Written& written = written_[service.id];
  const uint32_t count = static_cast<uint32_t>(service.backends.size());
  const uint32_t before = written.backends;
  // Until the end, and if this fails half way, the table owns all that may be in the map.
  written.backends = std::max(before, count);
  for (uint32_t index = 0; index < count; ++index) {
    const weft_backend_key key{service.id, index};
    WEFT_RETURN_IF_ERROR(Put(maps_.backends, key, ToKernel(service.backends[index]),
                             absl::StrCat("endpoint of service ", service.id)));
  }
  weft_service value{};
  value.id = service.id;
  value.backends = count;
  value.flags = service.flags;
  for (const SocketAddress& vip : service.vips) {
    WEFT_RETURN_IF_ERROR(Put(maps_.services, ToKernel(vip), value,
                             absl::StrCat("service ", service.id, " at ", vip.ToString())));
    if (std::find(written.vips.begin(), written.vips.end(), vip) == written.vips.end()) {
      written.vips.push_back(vip);
    }
  }
  for (const SocketAddress& vip : std::exchange(written.vips, service.vips)) {
    if (std::find(service.vips.begin(), service.vips.end(), vip) != service.vips.end()) continue;
    WEFT_RETURN_IF_ERROR(Drop(maps_.services, ToKernel(vip), "remove VIP " + vip.ToString()));
  }
  WEFT_RETURN_IF_ERROR(DropBackends(service.id, count, before));
  written.backends = count;
  return absl::OkStatus();
}

absl::Status ServiceTable::Remove(uint32_t id) {
  const auto found = written_.find(id);
  if (found == written_.end()) return absl::OkStatus();
  for (const SocketAddress& vip : found->second.vips) {
    WEFT_RETURN_IF_ERROR(Drop(maps_.services, ToKernel(vip), "remove VIP " + vip.ToString()));
  }
  WEFT_RETURN_IF_ERROR(DropBackends(id, 0, found->second.backends));
  written_.erase(found);
  return absl::OkStatus();
}

std::vector<uint32_t> ServiceTable::Ids() const {
  std::vector<uint32_t> ids;
  for (const auto& [id, written] : written_) ids.push_back(id);
  return ids;
}

}  // namespace weft::bpf
