// SPDX-License-Identifier: Apache-2.0
#include "control/plane/nodes.h"

#include "proxy/base/log.h"

namespace weft::plane {

Nodes::Node* Nodes::Find(const xds::GrpcPeer& peer, const xds::AdsNode& node) {
  const std::string& key = peer.identity.empty() ? node.id : peer.identity;
  auto found = nodes_.find(key);
  if (found == nodes_.end()) {
    if (nodes_.size() >= kMaxRemembered) {
      std::erase_if(nodes_, [](const auto& entry) { return entry.second.streams == 0; });
      if (nodes_.size() >= kMaxRemembered) return nullptr;
    }
    found = nodes_.try_emplace(key).first;
  }
  found->second.identity = peer.identity;
  found->second.id = node.id;
  found->second.address = peer.address;
  return &found->second;
}

void Nodes::OnStream(const xds::GrpcPeer& peer, const xds::AdsNode& node, bool connected) {
  Node* entry = Find(peer, node);
  if (entry == nullptr) return;
  if (connected && entry->streams == 0) entry->last_nacks.clear();
  entry->streams += connected ? 1 : -1;
  entry->since = std::chrono::system_clock::now();
  LogInfo(connected ? "A node connected" : "A node disconnected",
          {{"node", node.id}, {"identity", peer.identity}, {"address", peer.address}});
}

void Nodes::OnNack(const xds::AdsNack& nack) {
  LogWarning("A node refused resources", {{"node", nack.node.id},
                                          {"identity", nack.peer.identity},
                                          {"type", nack.type_url},
                                          {"error", nack.error}});
  Node* entry = Find(nack.peer, nack.node);
  if (entry == nullptr) return;
  entry->last_nacks[nack.type_url] = {nack.type_url, nack.version, nack.error,
                                      std::chrono::system_clock::now()};
}

}  // namespace weft::plane
