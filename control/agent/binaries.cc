// SPDX-License-Identifier: Apache-2.0
#include "control/agent/binaries.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace weft::agent {
namespace {

using File = std::pair<uint64_t, uint64_t>;  // device, inode

// Of all running processes. Those that end meanwhile are left out.
std::map<File, std::string> RunningFiles() {
  std::map<File, std::string> found;
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator("/proc", error)) {
    const std::string exe = process.path() / "exe";
    struct stat info{};
    if (stat(exe.c_str(), &info) != 0) continue;
    char path[PATH_MAX];
    const ssize_t length = readlink(exe.c_str(), path, sizeof path);
    if (length <= 0) continue;
    found.try_emplace({info.st_dev, info.st_ino}, path, static_cast<size_t>(length));
  }
  return found;
}

struct Text {
  const char* name;
  const char* meaning;
};

Text BreakerText(uint32_t breaker) {
  static constexpr Text kTexts[] = {
#define X(name, text, meaning) {text, meaning},
      WEFT_BREAKERS(X)
#undef X
  };
  return breaker < WEFT_BREAKER_MAX ? kTexts[breaker] : Text{"unknown", "unknown to this agent"};
}

const char* StateName(uint32_t state) {
  switch (state) {
    case WEFT_BINARY_ELIGIBLE:
      return "eligible";
    case WEFT_BINARY_INELIGIBLE:
      return "ineligible";
    default:
      return "learning";
  }
}

}  // namespace

nlohmann::json BinariesJson(const std::vector<bpf::BinaryVerdict>& verdicts) {
  nlohmann::json out = nlohmann::json::array();
  if (verdicts.empty()) return out;
  const std::map<File, std::string> running = RunningFiles();
  for (const bpf::BinaryVerdict& v : verdicts) {
    const auto found = running.find({v.device, v.inode});
    const Text breaker = BreakerText(v.breaker);
    const auto side = [&](weft_side which) {
      return nlohmann::json{{"state", StateName(v.state[which])}, {"connections", v.seen[which]}};
    };
    out.push_back({{"path", found == running.end() ? "" : found->second},
                   {"command", v.command},
                   {"device", v.device},
                   {"inode", v.inode},
                   {"breaker", breaker.name},
                   {"breaker_meaning", breaker.meaning},
                   {"needed", WEFT_LEARN_CONNECTIONS},
                   {"connecting", side(WEFT_SIDE_CONNECTING)},
                   {"accepting", side(WEFT_SIDE_ACCEPTING)}});
  }
  return out;
}

}  // namespace weft::agent
