// SPDX-License-Identifier: Apache-2.0
#include "control/plane/join_tokens.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

constexpr size_t kMaxFileBytes = 4 * 1024 * 1024;

std::string StampOf(const struct stat& info) {
  return absl::StrCat(info.st_dev, ":", info.st_ino, ":", info.st_size, ":", info.st_mode, ":",
                      info.st_uid, ":", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, ":",
                      info.st_ctim.tv_sec, ".", info.st_ctim.tv_nsec);
}

bool IsTokenText(std::string_view token) {
  return std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string_view Trim(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = std::min(line.find_first_not_of(kBlank), line.size());
  const size_t end = line.find_last_not_of(kBlank);
  return end == std::string_view::npos ? std::string_view() : line.substr(begin, end - begin + 1);
}

}  // namespace

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const unsigned char other = b.empty() ? 0 : static_cast<unsigned char>(b[i % b.size()]);
    difference =
        static_cast<unsigned char>(difference | (static_cast<unsigned char>(a[i]) ^ other));
    asm volatile("" : "+r"(difference));  // keeps the compiler from leaving the loop early
  }
  return difference == 0;
}

std::string JoinTokens::NodeOf(std::string_view token) {
  if (!Refresh().ok() || token.size() < kMinTokenBytes || token.size() > kMaxTokenBytes) return "";
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (EqualInConstantTime(token, entry.token)) found = &entry;
  }
  return found == nullptr ? "" : found->node;
}

absl::Status JoinTokens::Refresh() {
  if (path_.empty())
    return absl::FailedPreconditionError("no file with join tokens was given (--join-tokens)");
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    entries_.clear();
    stamp_.clear();
    return error_ = ErrnoStatus(errno, "open " + path_);
  }
  error_ = Load(fd);
  close(fd);
  if (!error_.ok()) entries_.clear();
  return error_;
}

absl::Status JoinTokens::Load(int fd) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "stat " + path_);
  const std::string stamp = StampOf(info);
  if (stamp == stamp_) return error_;
  stamp_ = stamp;
  entries_.clear();
  if (!S_ISREG(info.st_mode)) return absl::FailedPreconditionError(path_ + ": not a regular file");
  if ((info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": others may read the tokens (mode ", "0", (info.st_mode >> 6) & 7,
                     (info.st_mode >> 3) & 7, info.st_mode & 7, "); chmod 0600 it"));
  }
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::FailedPreconditionError(path_ + ": belongs to another user");
  }
  if (static_cast<size_t>(info.st_size) > kMaxFileBytes)
    return absl::FailedPreconditionError(path_ + ": too large");
  std::string text;
  char buffer[16 * 1024];
  ssize_t n = 0;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kMaxFileBytes) return absl::FailedPreconditionError(path_ + ": too large");
  }
  if (n < 0) return ErrnoStatus(errno, "read " + path_);
  return Parse(text);
}

absl::Status JoinTokens::Parse(std::string_view text) {
  int number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty() || line.front() == '#') continue;
    const size_t gap = line.find_first_of(" \t");
    const std::string node(line.substr(0, gap));
    const std::string token(gap == std::string_view::npos ? std::string_view()
                                                          : Trim(line.substr(gap)));
    // Never the token itself in a message.
    const auto refuse = [&](const std::string& why) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ":", number, ": ", why));
    };
    if (token.empty()) return refuse("expected NODE TOKEN");
    if (!IsObjectName(node)) return refuse("\"" + node + "\" is no node name");
    if (token.size() < kMinTokenBytes || token.size() > kMaxTokenBytes || !IsTokenText(token)) {
      return refuse("a token is one word of 16 to 512 characters");
    }
    for (const Entry& other : entries_) {
      if (other.token == token)
        return refuse("the token of " + other.node + " again; each node needs its own");
    }
    entries_.push_back({node, token});
  }
  return absl::OkStatus();
}

}  // namespace weft::plane
