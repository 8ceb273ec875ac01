// SPDX-License-Identifier: Apache-2.0
// The objects of a folder of manifests, with the rule that nothing that worked is lost: an object
// whose document became wrong keeps its last good state, everything else applies, and every problem
// is listed. Pure; no I/O, no thread.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/plane/objects/objects.h"
#include "control/plane/problem.h"

namespace weft::plane {

struct ManifestFile {
  std::string name;  // as it is to appear in problems
  std::string text;
  std::string
      error;  // non-empty: could not be read, and why; its objects keep their last good state
};

struct ManifestSet {
  struct Stored {
    std::shared_ptr<const Object> object;
    std::string file;    // where it was declared when it was good
    bool stale = false;  // the last good state of an object whose document is wrong now
  };
  std::map<ObjectKey, Stored> objects;

  template <typename T>
  const T* Find(ObjectKind kind, const std::string& namespace_name, const std::string& name) const {
    const auto found = objects.find({kind, namespace_name, name});
    return found == objects.end() ? nullptr : std::get_if<T>(found->second.object.get());
  }
  const Service* FindService(const std::string& namespace_name, const std::string& name) const {
    return Find<Service>(ObjectKind::kService, namespace_name, name);
  }
  // All objects of one type, by key.
  template <typename T>
  std::vector<const T*> All() const {
    std::vector<const T*> all;
    for (const auto& [key, stored] : objects) {
      if (const T* object = std::get_if<T>(stored.object.get()); object != nullptr)
        all.push_back(object);
    }
    return all;
  }
};

struct LoadResult {
  ManifestSet set;
  Problems problems;  // in the order of files and lines
};

// `files` in the order in which they count: of two documents that declare one object, the first
// wins and the second is a problem. `last_good`: the result of the previous load, or an empty set.
LoadResult LoadManifests(const std::vector<ManifestFile>& files, const ManifestSet& last_good);

}  // namespace weft::plane
