// SPDX-License-Identifier: Apache-2.0
// Loading in three steps: parse every document, keep what became wrong as it was, check objects
// against each other. The third step may find an object wrong whose document is right; then its
// last good state stays, if that one passes.
#include "control/plane/manifest_set.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"
#include "control/plane/references.h"

namespace weft::plane {
namespace {

struct Loader {
  const ManifestSet& last_good;
  LoadResult result;
  std::set<ObjectKey> wrong;            // declared, but refused
  std::set<std::string> unclear_files;  // contain a document of which not even the name is known

  void AddDeclared(Declared declared) {
    if (!declared.key.has_value()) {
      unclear_files.insert(declared.file);
      return;
    }
    const ObjectKey& key = *declared.key;
    if (!declared.object.has_value()) {
      wrong.insert(key);
      return;
    }
    const Origin at = MetaOf(*declared.object).origin;
    auto [entry, is_new] = result.set.objects.try_emplace(key);
    if (!is_new) {
      const Origin& first = MetaOf(*entry->second.object).origin;
      result.problems.push_back(
          {at, absl::StrCat(key.ToString(), ": already declared at ", first.ToString()),
           key.ToString()});
      return;
    }
    entry->second = {std::make_shared<const Object>(std::move(*declared.object)), declared.file};
  }

  void KeepLastGood() {
    for (const auto& [key, stored] : last_good.objects) {
      if (result.set.objects.contains(key)) continue;
      if (!wrong.contains(key) && !unclear_files.contains(stored.file)) continue;
      auto kept = stored;
      kept.stale = true;
      result.set.objects[key] = std::move(kept);
    }
  }

  // Puts the last good state in the place of an object that does not go with the others; false if
  // that is the one there.
  bool FallBack(const ObjectKey& key) {
    auto current = result.set.objects.find(key);
    const auto previous = last_good.objects.find(key);
    if (current == result.set.objects.end()) return false;
    if (previous == last_good.objects.end() || previous->second.object == current->second.object) {
      result.set.objects.erase(current);
      return false;
    }
    current->second = previous->second;
    current->second.stale = true;
    return true;
  }

  void CheckTogether() {
    // A conflict over an address goes to whoever had it, so that a new object cannot take another's
    // traffic.
    for (const Conflict& conflict : FindConflicts(result.set, last_good)) {
      result.problems.push_back(conflict.problem);
      FallBack(conflict.loser);
    }
    // What the last good states bring back may clash again; then it goes.
    for (const Conflict& conflict : FindConflicts(result.set, last_good)) {
      result.set.objects.erase(conflict.loser);
    }
    for (const ObjectKey& key : RoutesWithProblems(result.set, &result.problems)) {
      // A route that was good stays even if the Service that it names is gone: its requests fail,
      // as they should, rather than go where the route did not send them.
      const bool known = last_good.objects.contains(key);
      if (known) {
        FallBack(key);
        if (!result.set.objects.contains(key)) {
          result.set.objects[key] = last_good.objects.at(key);
          result.set.objects[key].stale = true;
        }
      } else {
        result.set.objects.erase(key);
      }
    }
  }
};

}  // namespace

LoadResult LoadManifests(const std::vector<ManifestFile>& files, const ManifestSet& last_good) {
  Loader loader{.last_good = last_good};
  for (const ManifestFile& file : files) {
    if (!file.error.empty()) {
      loader.result.problems.push_back({{file.name, 0, 0}, file.error, ""});
      loader.unclear_files.insert(file.name);
      continue;
    }
    std::vector<Document> documents;
    ParseYaml(file.name, file.text, &documents, &loader.result.problems);
    std::vector<Declared> declared;
    for (const Document& document : documents) {
      ParseDocument(document, &declared, &loader.result.problems);
    }
    for (Declared& each : declared) loader.AddDeclared(std::move(each));
  }
  loader.KeepLastGood();
  loader.CheckTogether();
  std::stable_sort(loader.result.problems.begin(), loader.result.problems.end(),
                   [](const Problem& a, const Problem& b) {
                     return std::tie(a.at.file, a.at.line, a.at.column) <
                            std::tie(b.at.file, b.at.line, b.at.column);
                   });
  return std::move(loader.result);
}

}  // namespace weft::plane
