// SPDX-License-Identifier: Apache-2.0
// The workloads that policies can mean, found by selectors. Built for one translation: borrows the
// manifest set. No thread.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "control/plane/manifest_set.h"
#include "control/plane/translate.h"

namespace weft::plane {

class PodIndex final {
 public:
  struct Pod {
    const Workload* workload;
    std::string uid, identity;
  };
  // Ascending positions in pods(), each once: so in the order of uids.
  using Selection = std::vector<uint32_t>;

  PodIndex(const ManifestSet& set, const TranslateOptions& options);

  // In the order of uids. Not among them: pods on the host's network, which have the node's address
  // (policies reach those as blocks only), and pods that have ended. Those without an address are:
  // their policy is there before they are.
  const std::vector<Pod>& pods() const { return pods_; }
  Selection All() const;
  Selection InNamespace(std::string_view namespace_name, const LabelSelector& selector) const;
  // `namespace_name`: of the policy, for peers without a namespaceSelector. Blocks are not looked
  // at.
  Selection Named(const PolicyPeer& peer, std::string_view namespace_name) const;
  // Those with an address in the block.
  Selection InBlock(const model::NetworkPolicy::Block& block) const;
  std::vector<std::string> Uids(const Selection& selection) const;

  static Selection Union(const Selection& a, const Selection& b);

 private:
  struct Space {
    Labels labels;  // of the namespace, with kubernetes.io/metadata.name
    Selection pods;
  };
  void Append(const Space& space, const LabelSelector& selector, Selection* out) const;

  std::vector<Pod> pods_;
  std::map<std::string, Space, std::less<>> spaces_;
  std::unordered_map<std::string, Selection> by_identity_;
};

}  // namespace weft::plane
