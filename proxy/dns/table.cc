// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns/table.h"

#include <algorithm>
#include <set>

namespace weft::dns {
namespace {

// Service key -> addresses of its healthy workloads, for services that have none of their own.
using Endpoints = std::unordered_map<std::string, std::set<IpAddress>>;

Endpoints EndpointsOfHeadless(const model::Snapshot& snapshot) {
  Endpoints endpoints;
  for (const auto& [uid, workload] : snapshot.workloads) {
    if (!workload->healthy) continue;
    for (const auto& [key, ports] : workload->services) {
      const auto service = snapshot.services.find(key);
      if (service == snapshot.services.end() || !service->second->addresses.empty()) continue;
      endpoints[key].insert(workload->addresses.begin(), workload->addresses.end());
    }
  }
  return endpoints;
}

std::string LowerCase(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  }
  if (!text.empty() && text.back() == '.') text.pop_back();
  return text;
}

void AddAddress(const IpAddress& address, Name* name) {
  if (address.is_unspecified()) return;  // "every address": none to answer with
  (address.is_v4() ? name->v4 : name->v6).push_back(address);
}

}  // namespace

Table::Table(const model::Snapshot& snapshot) {
  const Endpoints endpoints = EndpointsOfHeadless(snapshot);
  for (const auto& [key, service] : snapshot.services) {
    Name name{.namespace_name = service->namespace_name, .v4 = {}, .v6 = {}};
    name.ttl_seconds = service->addresses.empty() ? kEndpointTtlSeconds : kServiceTtlSeconds;
    for (const IpAddress& address : service->addresses) AddAddress(address, &name);
    if (const auto found = endpoints.find(key); found != endpoints.end()) {
      for (const IpAddress& address : found->second) AddAddress(address, &name);
    }
    if (name.v4.empty() && name.v6.empty()) continue;
    names_[LowerCase(service->hostname)].push_back(std::move(name));
  }
  for (auto& [hostname, all] : names_) {
    std::ranges::sort(all, {}, &Name::namespace_name);
  }
}

const Name* Table::Find(std::string_view name, std::string_view namespace_name) const {
  const auto found = names_.find(std::string(name));
  if (found == names_.end()) return nullptr;
  const auto own = std::ranges::find(found->second, namespace_name, &Name::namespace_name);
  return own == found->second.end() ? &found->second.front() : &*own;
}

std::optional<Answer> Resolve(const Query& query, const Table& table,
                              std::string_view namespace_name, uint32_t rotation) {
  if (query.opcode() != 0 || query.class_number != kClassIn) return std::nullopt;
  const Name* name = table.Find(query.name, namespace_name);
  if (name == nullptr) return std::nullopt;
  if (query.edns && query.edns_version != 0) return Answer{.rcode = kBadVers, .addresses = {}};
  Answer answer{.rcode = kNoError, .addresses = {}, .ttl_seconds = name->ttl_seconds};
  if (query.type == kTypeA) answer.addresses = name->v4;
  if (query.type == kTypeAaaa) answer.addresses = name->v6;
  if (answer.addresses.size() > 1) {
    const auto first = static_cast<ptrdiff_t>(rotation % answer.addresses.size());
    std::ranges::rotate(answer.addresses, answer.addresses.begin() + first);
  }
  return answer;
}

}  // namespace weft::dns
