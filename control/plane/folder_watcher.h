// SPDX-License-Identifier: Apache-2.0
// Says when the manifests' folder has changed and come to rest: inotify, a short settling time, and
// a look at the files' stamps every few seconds for what inotify does not tell (network file
// systems, lost events, a folder that was replaced). Thread: its executor's. Owns the inotify
// descriptor.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "control/plane/manifest_folder.h"

namespace weft::plane {

struct WatcherTimes {
  std::chrono::milliseconds settle{
      20};  // after the last event: editors write, rename and delete in a burst
  std::chrono::milliseconds rescan{5000};
};

class FolderWatcher final {
 public:
  // What the folder holds now; an error if it cannot be listed.
  using OnFiles = std::function<void(absl::StatusOr<std::vector<ManifestFile>> files)>;

  FolderWatcher(boost::asio::any_io_executor executor, std::string folder, OnFiles on_files,
                WatcherTimes times = {});
  ~FolderWatcher();
  FolderWatcher(const FolderWatcher&) = delete;
  FolderWatcher& operator=(const FolderWatcher&) = delete;

  // Calls on_files once at once, then at each change. Not OK: inotify is not to be had (the look at
  // the stamps still works).
  absl::Status Start();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::plane
