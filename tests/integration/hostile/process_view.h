// SPDX-License-Identifier: Apache-2.0
// What the kernel says about another process: status, descriptors, writable memory. Needs root.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace weft::test {

inline std::string ProcFile(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  return {std::istreambuf_iterator<char>(file), {}};
}
// A line of /proc/PID/status, without its name.
inline std::string ProcStatus(pid_t pid, const std::string& field) {
  std::istringstream lines(ProcFile(pid, "status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(field + ":\t")) return line.substr(field.size() + 2);
  }
  return "";
}
// Number -> what it leads to.
inline std::map<int, std::string> Descriptors(pid_t pid) {
  std::map<int, std::string> out;
  std::error_code error;
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    out[std::stoi(entry.path().filename())] = std::filesystem::read_symlink(entry.path(), error);
  }
  return out;
}
// Every writable mapping that can be read. Larger ones than this no process of ours has; a
// sanitizer's shadow memory is one, up to terabytes of zeros.
inline constexpr unsigned long kMostMappedBytes = 1ul << 27;
inline void ForEachWritable(pid_t pid,
                            const std::function<void(const std::vector<uint8_t>&)>& see) {
  const int memory = open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
  if (memory < 0) return;
  std::istringstream maps(ProcFile(pid, "maps"));
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    char mode[5] = {};
    if (sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, mode) != 3 || mode[1] != 'w') continue;
    if (end - begin > kMostMappedBytes) continue;
    std::vector<uint8_t> bytes(end - begin);
    const ssize_t got = pread(memory, bytes.data(), bytes.size(), static_cast<off_t>(begin));
    if (got <= 0) continue;
    bytes.resize(static_cast<size_t>(got));
    see(bytes);
  }
  close(memory);
}

}  // namespace weft::test
