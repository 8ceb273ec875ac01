// SPDX-License-Identifier: Apache-2.0
// The tokens by which nodes join: a file of "NODE TOKEN" lines that nobody but its owner may read.
// Read again when it changes; while it is not as it should be, no token is accepted. Thread: one.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/status.h"

namespace weft::plane {

class JoinTokens final {
 public:
  static constexpr size_t kMinTokenBytes = 16;
  static constexpr size_t kMaxTokenBytes = 512;

  // Empty path: no node can join.
  explicit JoinTokens(std::string path) : path_(std::move(path)) {}

  // The node that `token` admits; empty: none. Takes the same time whichever token it is like.
  std::string NodeOf(std::string_view token);
  // Reads the file if it changed; not OK: why no token is accepted, with file and line.
  absl::Status Refresh();

 private:
  struct Entry {
    std::string node, token;
  };
  absl::Status Load(int fd);
  absl::Status Parse(std::string_view text);

  const std::string path_;
  std::string stamp_;  // of the file that `entries_` or `error_` came from
  absl::Status error_;
  std::vector<Entry> entries_;
};

// Equal lengths are compared without looking for the first difference.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace weft::plane
