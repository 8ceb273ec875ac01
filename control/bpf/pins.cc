// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/pins.h"

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace weft::bpf {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = other.release();
  }
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

int UniqueFd::release() { return std::exchange(fd_, -1); }

absl::StatusOr<PinPaths> PathsOf(const std::string& bpffs_root, const std::string& node) {
  const bool valid =
      !node.empty() && node.size() <= 32 && std::all_of(node.begin(), node.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
      });
  if (!valid) {
    return absl::InvalidArgumentError("node name \"" + node +
                                      "\": must be 1 to 32 letters, digits, _ or -");
  }
  PinPaths paths;
  paths.root = bpffs_root + "/weft";
  paths.node = paths.root + "/" + node;
  paths.maps = paths.node + "/maps";
  paths.links = paths.node + "/links";
  return paths;
}

absl::Status MakeFolders(const PinPaths& paths) {
  for (const std::string& folder : {paths.root, paths.node, paths.maps, paths.links}) {
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, "mkdir " + folder);
    }
  }
  return absl::OkStatus();
}

absl::Status RemoveLink(const std::string& path) {
  const UniqueFd link(bpf_obj_get(path.c_str()));
  if (!link.ok()) return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "open " + path);
  bpf_link_detach(link.get());  // fails if what it was attached to is gone, and that is fine
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "unpin " + path);
  return absl::OkStatus();
}

absl::Status RemovePins(const PinPaths& paths) {
  std::error_code error;
  // Links before maps, so that no program runs on maps that a new agent could no longer find.
  std::vector<std::string> links;
  for (const auto& entry : std::filesystem::directory_iterator(paths.links, error)) {
    links.push_back(entry.path());
  }
  for (const std::string& link : links) WEFT_RETURN_IF_ERROR(RemoveLink(link));
  for (const std::string& folder : {paths.links, paths.maps, paths.node}) {
    std::filesystem::remove_all(folder, error);
    if (error) return ErrnoStatus(error.value(), "remove " + folder);
  }
  rmdir(paths.root.c_str());  // stays while another node uses it
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenPinnedMap(const PinPaths& paths, const std::string& name) {
  const std::string path = paths.maps + "/" + name;
  UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd.ok()) return ErrnoStatus(errno, "open pinned map " + path);
  return fd;
}

absl::Status CheckAbi(const PinPaths& paths) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd config_fd, OpenPinnedMap(paths, "weft_config"));
  const uint32_t zero = 0;
  weft_config config{};
  if (bpf_map_lookup_elem(config_fd.get(), &zero, &config) != 0) {
    return ErrnoStatus(errno, "read " + paths.maps + "/weft_config");
  }
  // 0: an earlier start was interrupted before it wrote anything.
  if (config.abi != 0 && config.abi != WEFT_ABI) {
    return absl::FailedPreconditionError(absl::StrCat(
        paths.maps, " has ABI ", config.abi, ", this program has ABI ", WEFT_ABI,
        ": start weft-agent --unload-on-exit of the version that made them, and stop it"));
  }
  return absl::OkStatus();
}

}  // namespace weft::bpf
