// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/listener_match.h"

namespace weft::worker {
namespace {

// Two listeners with one address: the first by name wins, whatever the order of the map.
void Insert(std::shared_ptr<const model::Listener>& slot,
            const std::shared_ptr<const model::Listener>& listener) {
  if (slot == nullptr || listener->name < slot->name) slot = listener;
}

}  // namespace

ListenerMatch::ListenerMatch(const model::Snapshot& snapshot) {
  for (const auto& [name, listener] : snapshot.listeners) {
    if (listener->use_original_dst) {
      if (listener->http || listener->tcp) Insert(fallback_, listener);
    } else if (listener->address) {
      if (listener->address->ip.is_unspecified()) {
        Insert(any_address_[listener->address->port], listener);
      } else {
        Insert(exact_[*listener->address], listener);
      }
    }
  }
}

std::shared_ptr<const model::Listener> ListenerMatch::Find(const SocketAddress& destination) const {
  if (auto found = exact_.find(destination); found != exact_.end()) return found->second;
  if (auto found = exact_.find({destination.ip, 0}); found != exact_.end()) return found->second;
  if (auto found = any_address_.find(destination.port); found != any_address_.end())
    return found->second;
  return fallback_;
}

}  // namespace weft::worker
