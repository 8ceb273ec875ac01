// SPDX-License-Identifier: Apache-2.0
#include "control/plane/pod_index.h"

#include <algorithm>
#include <iterator>

namespace weft::plane {

PodIndex::PodIndex(const ManifestSet& set, const TranslateOptions& options) {
  for (const Workload* workload : set.All<Workload>()) {
    if (workload->host_network || workload->finished) continue;
    pods_.push_back({workload, UidOf(*workload, options), IdentityOf(*workload, options)});
  }
  std::sort(pods_.begin(), pods_.end(), [](const Pod& a, const Pod& b) { return a.uid < b.uid; });
  for (uint32_t i = 0; i < pods_.size(); ++i) {
    const std::string& name = pods_[i].workload->meta.namespace_name;
    const auto [space, is_new] = spaces_.try_emplace(name);
    space->second.pods.push_back(i);
    by_identity_[pods_[i].identity].push_back(i);
    if (!is_new) continue;
    const auto* object = set.Find<Namespace>(ObjectKind::kNamespace, "", name);
    if (object != nullptr) space->second.labels = object->meta.labels;
    // The API server's own label: nobody can set it to something else.
    space->second.labels["kubernetes.io/metadata.name"] = name;
  }
}

PodIndex::Selection PodIndex::All() const {
  Selection all(pods_.size());
  for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

void PodIndex::Append(const Space& space, const LabelSelector& selector, Selection* out) const {
  for (const uint32_t i : space.pods) {
    if (selector.Matches(pods_[i].workload->meta.labels)) out->push_back(i);
  }
}

PodIndex::Selection PodIndex::InNamespace(std::string_view namespace_name,
                                          const LabelSelector& selector) const {
  Selection out;
  const auto space = spaces_.find(namespace_name);
  if (space != spaces_.end()) Append(space->second, selector, &out);
  return out;
}

PodIndex::Selection PodIndex::Named(const PolicyPeer& peer, std::string_view namespace_name) const {
  static const LabelSelector kEvery;
  Selection out;
  for (const std::string& identity : peer.identities) {
    const auto found = by_identity_.find(identity);
    if (found != by_identity_.end())
      out.insert(out.end(), found->second.begin(), found->second.end());
  }
  if (peer.namespaces.has_value()) {
    for (const auto& [name, space] : spaces_) {
      if (peer.namespaces->Matches(space.labels)) Append(space, peer.pods.value_or(kEvery), &out);
    }
  } else if (peer.pods.has_value()) {
    const Selection own = InNamespace(namespace_name, *peer.pods);
    out.insert(out.end(), own.begin(), own.end());
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

PodIndex::Selection PodIndex::InBlock(const model::NetworkPolicy::Block& block) const {
  const auto is_in = [&](const IpAddress& address) {
    if (address.is_v4() != block.cidr.address.is_v4()) return false;
    if (!address.InPrefix(block.cidr.address, block.cidr.length)) return false;
    return std::none_of(block.except.begin(), block.except.end(), [&](const auto& except) {
      return address.InPrefix(except.address, except.length);
    });
  };
  Selection out;
  for (uint32_t i = 0; i < pods_.size(); ++i) {
    const auto& addresses = pods_[i].workload->addresses;
    if (std::any_of(addresses.begin(), addresses.end(), is_in)) out.push_back(i);
  }
  return out;
}

std::vector<std::string> PodIndex::Uids(const Selection& selection) const {
  std::vector<std::string> uids;
  uids.reserve(selection.size());
  for (const uint32_t i : selection) uids.push_back(pods_[i].uid);
  return uids;
}

PodIndex::Selection PodIndex::Union(const Selection& a, const Selection& b) {
  Selection out;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

}  // namespace weft::plane
