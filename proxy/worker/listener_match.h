// SPDX-License-Identifier: Apache-2.0
// Which listener serves a captured connection, by its original destination (DESIGN.md 7). Pure,
// built once per snapshot. Thread: the worker's.
#pragma once
#include <memory>
#include <unordered_map>

#include "xds/model/snapshot.h"

namespace weft::worker {

class ListenerMatch final {
 public:
  ListenerMatch() = default;
  explicit ListenerMatch(const model::Snapshot& snapshot);

  // In this order: the exact address and port; the address with port 0 (all its ports); the
  // unspecified address with that port; the chains of a listener with use_original_dst. Null:
  // nobody configured it, pass it through.
  std::shared_ptr<const model::Listener> Find(const SocketAddress& destination) const;

 private:
  using Listener = std::shared_ptr<const model::Listener>;
  std::unordered_map<SocketAddress, Listener, AddressHash> exact_;  // port 0: any port
  std::unordered_map<uint16_t, Listener> any_address_;
  Listener fallback_;
};

}  // namespace weft::worker
