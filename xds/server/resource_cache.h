// SPDX-License-Identifier: Apache-2.0
// What an ADS server has to offer: type -> name -> version and bytes. Thread: one, that of its
// server. Owns the bytes, shared with streams that are sending them.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "xds/server/encode.h"

namespace weft::xds {

struct CachedResource {
  std::string version;
  std::shared_ptr<const std::string> bytes;
};

// Changes that become visible together.
struct CacheBatch {
  struct Set {
    std::string type_url, name;
    std::string version;  // empty: made from the bytes
    std::shared_ptr<const std::string> bytes;
  };
  struct Removal {
    std::string type_url, name;
  };
  std::vector<Set> sets;
  std::vector<Removal> removals;

  void Put(Encoded resource);
  void Remove(std::string_view type_url, std::string_view name);
};

class ResourceCache final {
 public:
  using Resources = std::map<std::string, CachedResource, std::less<>>;
  using Listener = std::function<void(const std::set<std::string>& changed_types)>;

  // Applies the batch and tells the listeners which types really changed (same version and
  // presence: no change).
  void Apply(CacheBatch batch);
  // Makes exactly `resources` the content of the types listed in `types`: what is not among them is
  // removed.
  void Replace(const std::vector<std::string>& types, std::vector<Encoded> resources);
  // Tells the listeners to look again although nothing here changed: who may see what did.
  void Touch(const std::set<std::string>& types);

  // Never null; empty for a type without resources.
  const Resources& OfType(std::string_view type_url) const;
  const CachedResource* Find(std::string_view type_url, std::string_view name) const;
  size_t size() const;

  // Listeners are called after the change, in the order of their registration; they may remove
  // themselves or others.
  uint64_t AddListener(Listener listener);
  void RemoveListener(uint64_t id);

 private:
  void Notify(const std::set<std::string>& types);

  std::map<std::string, Resources, std::less<>> types_;
  std::map<uint64_t, Listener> listeners_;
  uint64_t next_listener_ = 1;
};

// A short version text for `bytes`: equal bytes, equal version, across processes.
std::string ContentVersion(std::string_view bytes);

}  // namespace weft::xds
