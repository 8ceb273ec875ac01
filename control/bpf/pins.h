// SPDX-License-Identifier: Apache-2.0
// Where a node's maps and links are pinned: <bpffs>/weft/NAME/{maps,links}/. Makes and removes
// those folders. Thread: any; keeps nothing.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "bpf/abi.h"
#include "proxy/base/status.h"

namespace weft::bpf {

// A file descriptor that is closed with its owner.
class UniqueFd final {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  int release();

 private:
  int fd_ = -1;
};

struct PinPaths {
  std::string root;   // <bpffs>/weft
  std::string node;   // <bpffs>/weft/NAME
  std::string maps;   // <bpffs>/weft/NAME/maps
  std::string links;  // <bpffs>/weft/NAME/links
};

// InvalidArgument unless the name is [a-zA-Z0-9_-]{1,32}: it becomes part of a path.
absl::StatusOr<PinPaths> PathsOf(const std::string& bpffs_root, const std::string& node);
absl::Status MakeFolders(const PinPaths& paths);
// Detaches and unpins one link. OK if there is none. Detached when it returns: dropping the last
// reference alone is not enough, the kernel does that later.
absl::Status RemoveLink(const std::string& path);
// Detaches and unpins everything of the node. OK if nothing is there.
absl::Status RemovePins(const PinPaths& paths);
// A descriptor of the map pinned as `name`.
absl::StatusOr<UniqueFd> OpenPinnedMap(const PinPaths& paths, const std::string& name);
// NotFound if the node has no maps; FailedPrecondition with both numbers if they are of another
// ABI.
absl::Status CheckAbi(const PinPaths& paths);

}  // namespace weft::bpf
