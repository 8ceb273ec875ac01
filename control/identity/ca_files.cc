// SPDX-License-Identifier: Apache-2.0
#include "control/identity/ca_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>

namespace weft::identity {
namespace {

constexpr size_t kMaxFileBytes = 64 * 1024;

absl::Status CloseWith(int fd, const std::string& what) {
  const int error = errno;
  (void)close(fd);
  return ErrnoStatus(error, what);
}

// nullopt: there is no such file.
absl::StatusOr<std::optional<std::string>> ReadFile(const std::string& path, bool secret) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT) return std::optional<std::string>();
  if (fd < 0) return ErrnoStatus(errno, "open " + path);
  struct stat info{};
  if (fstat(fd, &info) != 0) return CloseWith(fd, "stat " + path);
  if (secret && (info.st_mode & 077) != 0) {
    (void)close(fd);
    return absl::FailedPreconditionError(
        path + ": others may read or write this key; chmod 0600 it, or make a new root");
  }
  std::string text(kMaxFileBytes, '\0');
  size_t got = 0;
  for (;;) {
    const ssize_t n = read(fd, text.data() + got, text.size() - got);
    if (n < 0) return CloseWith(fd, "read " + path);
    got += static_cast<size_t>(n);
    if (n == 0 || got == text.size()) break;
  }
  (void)close(fd);
  if (got == text.size()) return absl::InvalidArgumentError(path + ": larger than 64 KiB");
  text.resize(got);
  return std::optional<std::string>(std::move(text));
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return ErrnoStatus(errno, "create " + path);
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = write(fd, text.data() + written, text.size() - written);
    if (n < 0) return CloseWith(fd, "write " + path);
    written += static_cast<size_t>(n);
  }
  if (fsync(fd) != 0) return CloseWith(fd, "sync " + path);
  return close(fd) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "close " + path);
}

}  // namespace

absl::StatusOr<CaFiles> ReadCaFiles(const std::string& directory) {
  WEFT_ASSIGN_OR_RETURN(auto root, ReadFile(directory + "/root.pem", false));
  WEFT_ASSIGN_OR_RETURN(auto key, ReadFile(directory + "/root-key.pem", true));
  if (root.has_value() != key.has_value()) {
    return absl::FailedPreconditionError(
        directory + ": one of root.pem and root-key.pem is missing; restore it, or remove both");
  }
  return CaFiles{.root_pem = root.value_or(""), .key_pem = key.value_or("")};
}

absl::Status WriteCaFiles(const std::string& directory, const CaFiles& files) {
  std::error_code error;
  if (std::filesystem::create_directories(directory, error) && !error) {
    std::filesystem::permissions(directory, std::filesystem::perms::owner_all, error);
  }
  if (error) return ErrnoStatus(error.value(), "create " + directory);
  // The key first: a root without its key would be refused at the next start, with a hint.
  WEFT_RETURN_IF_ERROR(WriteFile(directory + "/root-key.pem", files.key_pem));
  return WriteFile(directory + "/root.pem", files.root_pem);
}

}  // namespace weft::identity
