// SPDX-License-Identifier: Apache-2.0
// What the subcommands of `weft` share: exit codes, flags, colours, and where the agents are.
// Thread: the only one.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/status.h"

namespace weft::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitWarnings = 2;
inline constexpr int kExitUsage = 64;
inline constexpr int kExitBadInput = 65;

struct Options {
  std::string node;   // --node: the agent of that name; empty: every agent found
  bool json = false;  // -o json, --json
  bool follow = false;
  bool keep = false;
  bool down = false;
  bool help = false;
  std::string bin_dir;    // --bin-dir; empty: where `weft` itself is
  std::string manifests;  // --manifests
  std::string protocol;   // --protocol
  std::string pod, namespace_name, verdict, reason, binary;  // what `events` filters by
  std::vector<std::string> words;                            // arguments that are no flags
};

// A subcommand, with the flags it takes (without dashes).
struct Command {
  std::string_view name;
  std::string_view summary;
  std::string_view help;  // shown by --help
  std::vector<std::string_view> flags;
  int (*run)(const Options& options);
  size_t max_words = 0;  // arguments that are no flags
};

int RunCheck(const Options& options);
int RunStatus(const Options& options);
int RunEvents(const Options& options);
int RunWhy(const Options& options);
int RunDemo(const Options& options);

// Parses the arguments after the subcommand's name. The error is one line for people.
absl::StatusOr<Options> ParseOptions(const Command& command, std::span<char* const> arguments);

// An agent of this machine.
struct AgentPlace {
  std::string node;    // name of its run directory
  std::string socket;  // /run/weft/NAME/agent.sock
};
// The agents with a socket; the one named `node` if it is not empty.
std::vector<AgentPlace> FindAgents(const std::string& node);
// What to tell somebody whose agent is not there.
std::string NoAgentMessage(const std::string& node);

// Escape sequences, or nothing if standard output is no terminal or NO_COLOR is set.
struct Colors {
  std::string_view green = "", red = "", yellow = "", dim = "", bold = "", reset = "";
};
const Colors& TerminalColors();

// This program's directory.
std::string OwnDirectory();

}  // namespace weft::cli
