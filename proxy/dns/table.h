// SPDX-License-Identifier: Apache-2.0
// The names that the mesh answers itself: hostnames of its services, exactly as they are written.
// Immutable, built from one snapshot. Thread: any.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/dns/message.h"
#include "xds/model/snapshot.h"

namespace weft::dns {

// A service address stays for the life of its service; endpoints of a headless one come and go.
inline constexpr uint32_t kServiceTtlSeconds = 30;
inline constexpr uint32_t kEndpointTtlSeconds = 5;

struct Name {
  std::string namespace_name;  // of the service
  std::vector<IpAddress> v4, v6;
  uint32_t ttl_seconds = 0;
};

class Table final {
 public:
  Table() = default;
  // A service without addresses is headless: its name has those of its healthy workloads. One
  // without any of both is not in the table, as its resolver may know better.
  explicit Table(const model::Snapshot& snapshot);

  // `name` as Query has it. Services of several namespaces may have one hostname: that of
  // `namespace_name` counts, or else the first by namespace. Null: not ours.
  const Name* Find(std::string_view name, std::string_view namespace_name) const;
  size_t size() const { return names_.size(); }

 private:
  std::unordered_map<std::string, std::vector<Name>> names_;  // each sorted by namespace
};

// Nullopt: not ours, ask the resolver. A name of ours without an address of the type that is asked
// for has an empty answer (NODATA): no other server may say that the name does not exist.
// `rotation` says which of the addresses comes first.
std::optional<Answer> Resolve(const Query& query, const Table& table,
                              std::string_view namespace_name, uint32_t rotation);

}  // namespace weft::dns
