// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: descriptors of a node's pinned maps, and typed reads and writes of them.
// Thread: the agent's. Owns the descriptors.
#pragma once
#include <bpf/bpf.h>

#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "bpf/abi.h"
#include "control/bpf/loader.h"
#include "control/bpf/pins.h"

namespace weft::bpf {

template <typename Key, typename Value>
absl::Status Put(const UniqueFd& map, const Key& key, const Value& value, std::string_view what) {
  if (bpf_map_update_elem(map.get(), &key, &value, BPF_ANY) == 0) return absl::OkStatus();
  if (errno == E2BIG || errno == ENOSPC) {
    return absl::ResourceExhaustedError(absl::StrCat(AbslView(what), ": the kernel map is full"));
  }
  return ErrnoStatus(errno, what);
}

// OK if there is no such entry.
template <typename Key>
absl::Status Drop(const UniqueFd& map, const Key& key, std::string_view what) {
  if (bpf_map_delete_elem(map.get(), &key) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoStatus(errno, what);
}

// A walk starts anew when the key it stands on is removed under it; more than this many steps end
// it.
inline constexpr size_t kMaxWalk = 1u << 20;

template <typename Key>
std::vector<Key> Keys(const UniqueFd& map) {
  std::vector<Key> keys;
  Key key{};
  const Key* previous = nullptr;
  while (keys.size() < kMaxWalk && bpf_map_get_next_key(map.get(), previous, &key) == 0) {
    keys.push_back(key);
    previous = &keys.back();
  }
  return keys;
}

// Returns when every program that ran at the call has ended. Some 20 ms.
absl::Status GracePeriod();

// The sum over CPUs of entry `index` of a per-CPU array whose value is made of 64-bit counters.
std::vector<uint64_t> SumPerCpu(const UniqueFd& map, uint32_t index, size_t counters);

struct KernelMaps {
  UniqueFd workloads, resolvers, addresses, services, pools, cells, handovers, servers, clients,
      splice, binaries, port_binaries, config, counters, moves, events, process_events;

  static absl::StatusOr<KernelMaps> Open(const PinPaths& paths);
};

}  // namespace weft::bpf
