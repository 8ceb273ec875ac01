// SPDX-License-Identifier: Apache-2.0
#include "control/plane/manifest_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace weft::plane {
namespace {

absl::StatusOr<std::vector<std::string>> ListNames(const std::string& path) {
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return ErrnoStatus(errno, "open folder " + path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {
    if (IsManifestName(entry->d_name)) names.emplace_back(entry->d_name);
  }
  const int error = errno;
  closedir(dir);
  if (error != 0) return ErrnoStatus(error, "read folder " + path);
  std::sort(names.begin(), names.end());
  return names;
}

std::string ReadAll(int fd, std::string* text) {
  char buffer[64 * 1024];
  for (;;) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::string(ErrnoStatus(errno, "read").message());
    if (n == 0) return "";
    text->append(buffer, static_cast<size_t>(n));
    if (text->size() > kMaxManifestBytes) return "larger than 8 MiB";
  }
}

enum class ReadOutcome { kRead, kGone, kFailed };

ReadOutcome ReadManifest(const std::string& path, std::string* text, std::string* error) {
  // O_NONBLOCK: a FIFO of that name must not hold us.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return ReadOutcome::kGone;
    *error = std::string(ErrnoStatus(errno, "open").message());
    return ReadOutcome::kFailed;
  }
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    *error = "not a regular file";
  } else {
    *error = ReadAll(fd, text);
  }
  close(fd);
  return error->empty() ? ReadOutcome::kRead : ReadOutcome::kFailed;
}

}  // namespace

bool IsManifestName(std::string_view name) {
  if (name.empty() || name.front() == '.') return false;
  return name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json");
}

void ManifestFolder::Note(const std::string& name, Change change, Time now) {
  if (!IsManifestName(name)) return;
  if (change == Change::kWriting) {
    writing_[name] = now;
  } else {
    writing_.erase(name);
  }
}

ManifestFolder::Time ManifestFolder::NextDeadline() const {
  Time next = Time::max();
  for (const auto& [name, since] : writing_) next = std::min(next, since + kWriterPatience);
  return next;
}

bool ManifestFolder::IsBeingWritten(const std::string& name, Time now) const {
  const auto found = writing_.find(name);
  return found != writing_.end() && now - found->second < kWriterPatience;
}

absl::StatusOr<std::vector<ManifestFile>> ManifestFolder::Read(Time now) {
  WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(path_));
  std::vector<ManifestFile> files;
  std::map<std::string, std::string> texts;
  for (const std::string& name : names) {
    ManifestFile file{.name = path_ + "/" + name};
    if (IsBeingWritten(name, now)) {
      const auto previous = texts_.find(name);
      if (previous == texts_.end()) continue;  // new, and not complete yet
      file.text = previous->second;
    } else {
      const ReadOutcome outcome = ReadManifest(file.name, &file.text, &file.error);
      if (outcome == ReadOutcome::kGone) continue;
      if (outcome == ReadOutcome::kFailed) file.text.clear();
    }
    if (file.error.empty()) texts[name] = file.text;
    files.push_back(std::move(file));
  }
  texts_ = std::move(texts);
  std::erase_if(writing_, [&](const auto& entry) { return now - entry.second >= kWriterPatience; });
  return files;
}

std::string ManifestFolder::Fingerprint() const {
  const auto names = ListNames(path_);
  if (!names.ok()) return names.status().ToString();
  std::string print;
  for (const std::string& name : *names) {
    struct stat info = {};
    if (stat((path_ + "/" + name).c_str(), &info) != 0) continue;
    absl::StrAppend(&print, name, ":", info.st_ino, ":", info.st_size, ":", info.st_mtim.tv_sec,
                    ".", info.st_mtim.tv_nsec, ":", info.st_ctim.tv_sec, ".", info.st_ctim.tv_nsec,
                    "\n");
  }
  return print;
}

}  // namespace weft::plane
