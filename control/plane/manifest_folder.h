// SPDX-License-Identifier: Apache-2.0
// The manifests' folder as it is read: which files count, and which are being written just now. A
// file that somebody still writes keeps its previous text until it is closed. Blocking reads of
// regular files; no thread of its own. Not here: when to read (folder_watcher.h), what the text
// means (manifest_set.h).
#pragma once
#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "control/plane/manifest_set.h"
#include "proxy/base/status.h"

namespace weft::plane {

class ManifestFolder final {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Somebody who opened a file and neither writes nor closes it is waited for this long.
  static constexpr std::chrono::milliseconds kWriterPatience{1000};

  explicit ManifestFolder(std::string path) : path_(std::move(path)) {}

  // What inotify said about a name in the folder.
  enum class Change { kWriting, kComplete };
  void Note(const std::string& name, Change change, Time now);
  // When the first of the files that are being written will be taken as it is; Time::max() if none
  // is.
  Time NextDeadline() const;

  // *.yaml, *.yml and *.json (which is YAML too), not hidden, by name; sub-folders are not looked
  // into. Files are named "FOLDER/NAME". An error: the folder cannot be listed.
  absl::StatusOr<std::vector<ManifestFile>> Read(Time now);
  // Changes when the set of files, or one of them, may have changed; for noticing what no event
  // told of.
  std::string Fingerprint() const;

  const std::string& path() const { return path_; }

 private:
  bool IsBeingWritten(const std::string& name, Time now) const;

  const std::string path_;
  std::map<std::string, std::string> texts_;  // by name, as last read
  std::map<std::string, Time> writing_;       // by name: since the last write
};

// True for a name that counts as a manifest.
bool IsManifestName(std::string_view name);

}  // namespace weft::plane
