// SPDX-License-Identifier: Apache-2.0
#include "control/cli/command.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
constexpr const char* kRunRoot = "/run/weft";

struct Flag {
  std::string_view name;
  bool Options::* boolean = nullptr;
  std::string Options::* text = nullptr;
};
constexpr Flag kFlags[] = {
    {"node", nullptr, &Options::node},
    {"json", &Options::json, nullptr},
    {"follow", &Options::follow, nullptr},
    {"keep", &Options::keep, nullptr},
    {"down", &Options::down, nullptr},
    {"help", &Options::help, nullptr},
    {"bin-dir", nullptr, &Options::bin_dir},
    {"manifests", nullptr, &Options::manifests},
    {"protocol", nullptr, &Options::protocol},
    {"pod", nullptr, &Options::pod},
    {"namespace", nullptr, &Options::namespace_name},
    {"verdict", nullptr, &Options::verdict},
    {"reason", nullptr, &Options::reason},
    {"binary", nullptr, &Options::binary},
};

const Flag* FindFlag(std::string_view name) {
  for (const Flag& flag : kFlags) {
    if (flag.name == name) return &flag;
  }
  return nullptr;
}

absl::Status SetOutput(std::string_view format, Options* options) {
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError("-o: text or json, not " + std::string(format));
  }
  options->json = format == "json";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const Command& command, std::span<char* const> arguments) {
  Options options;
  const bool has_output = std::ranges::count(command.flags, "json") > 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    if (argument == "-h") argument = "--help";
    if (argument == "-f") argument = "--follow";
    if (argument == "-o" && has_output) {
      if (++i == arguments.size()) return absl::InvalidArgumentError("-o needs text or json");
      WEFT_RETURN_IF_ERROR(SetOutput(arguments[i], &options));
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string_view name = argument.starts_with("--") ? argument.substr(2, equals - 2) : "";
    const Flag* flag = FindFlag(name);
    const bool taken = name == "help" || std::ranges::count(command.flags, name) > 0;
    if (!argument.starts_with("-") && options.words.size() < command.max_words) {
      options.words.emplace_back(argument);
      continue;
    }
    if (flag == nullptr || !taken) {
      return absl::InvalidArgumentError("unknown argument " + std::string(argument));
    }
    if (flag->boolean != nullptr) {
      options.*flag->boolean = true;
    } else if (equals != std::string_view::npos) {
      options.*flag->text = argument.substr(equals + 1);
    } else if (++i < arguments.size()) {
      options.*flag->text = arguments[i];
    } else {
      return absl::InvalidArgumentError("--" + std::string(name) + " needs a value");
    }
  }
  return options;
}

std::vector<AgentPlace> FindAgents(const std::string& node) {
  std::vector<AgentPlace> found;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(kRunRoot, error)) {
    const std::string name = item.path().filename();
    // The demo's nodes are found by their own name as well.
    const bool named = node.empty() || name == node || name.ends_with("-" + node);
    const std::string socket = item.path().string() + "/agent.sock";
    if (named && fs::exists(socket, error)) found.push_back({name, socket});
  }
  std::ranges::sort(found, {}, &AgentPlace::node);
  return found;
}

std::string NoAgentMessage(const std::string& node) {
  return std::string("no agent is running here: there is no ") + kRunRoot + "/" +
         (node.empty() ? "NAME" : node) +
         "/agent.sock.\nStart one with `weft-agent --node NAME --control ADDRESS:15012 "
         "--control-root ROOT.pem --join-token FILE`, or try `weft demo --keep`.";
}

const Colors& TerminalColors() {
  static const Colors colors = [] {
    if (isatty(STDOUT_FILENO) == 0 || getenv("NO_COLOR") != nullptr) return Colors{};
    return Colors{"\033[32m", "\033[31m", "\033[33m", "\033[2m", "\033[1m", "\033[0m"};
  }();
  return colors;
}

std::string OwnDirectory() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace weft::cli
