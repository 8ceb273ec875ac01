// SPDX-License-Identifier: Apache-2.0
// Which nodes are connected and what they last refused: the status page's view of the ADS streams.
// Thread: one.
#pragma once
#include <chrono>
#include <map>
#include <string>

#include "xds/server/server.h"

namespace weft::plane {

class Nodes final {
 public:
  struct Nack {
    std::string type_url, version, error;
    std::chrono::system_clock::time_point at;
  };
  struct Node {
    std::string identity;  // verified; empty on the plaintext port
    std::string id;        // as it calls itself
    std::string address;
    int streams = 0;
    std::chrono::system_clock::time_point since;
    std::map<std::string, Nack> last_nacks;  // by type
  };
  // Those who are gone are remembered, so that the last NACK of a node that crashed over it can
  // still be seen; this many.
  static constexpr size_t kMaxRemembered = 10'000;

  void OnStream(const xds::GrpcPeer& peer, const xds::AdsNode& node, bool connected);
  void OnNack(const xds::AdsNack& nack);
  const std::map<std::string, Node>& all() const { return nodes_; }

 private:
  Node* Find(const xds::GrpcPeer& peer, const xds::AdsNode& node);

  std::map<std::string, Node> nodes_;  // by identity, or by id without one
};

}  // namespace weft::plane
