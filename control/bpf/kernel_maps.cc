// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/kernel_maps.h"

#include <bpf/libbpf.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace weft::bpf {

// This command is synchronize_rcu() where there is more than one CPU; with one, it is nothing, and
// only a kernel that preempts programs could notice.
absl::Status GracePeriod() {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "membarrier");
}

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
      {"weft_pools", &maps.pools},
      {"weft_cells", &maps.cells},
      {"weft_handovers", &maps.handovers},
      {"weft_resolvers", &maps.resolvers},
      {"weft_servers", &maps.servers},
      {"weft_splice", &maps.splice},
      {"weft_clients", &maps.clients},
      {"weft_config", &maps.config},
      {"weft_counters", &maps.counters},
      {"weft_moves", &maps.moves},
      {"weft_events", &maps.events},
      {"weft_proc_events", &maps.process_events},
      {"weft_learned", &maps.binaries},
      {"weft_port_bins", &maps.port_binaries},
  };
  for (const auto& [name, fd] : wanted) {
    WEFT_ASSIGN_OR_RETURN(*fd, OpenPinnedMap(paths, name));
  }
  return maps;
}

}  // namespace weft::bpf
