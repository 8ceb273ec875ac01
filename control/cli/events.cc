// SPDX-License-Identifier: Apache-2.0
// `weft events`: events of the agents of this machine, as text or JSON lines, filtered.
#include <stdio.h>

#include <nlohmann/json.hpp>

#include "control/cli/command.h"
#include "control/cli/event_filter.h"
#include "proxy/ipc/local_http.h"

namespace weft::cli {
namespace {

using nlohmann::json;

// "demo/client (10.244.1.10:4711)" of one end.
std::string EndText(const json& end) {
  const std::string workload = end.value("workload", "");
  const std::string address = end.value("address", "");
  return workload.empty() ? address : workload + " (" + address + ")";
}

// "/usr/bin/psql -c 'select 1'" of an exec, how it ended of an exit.
std::string ProcessText(const json& event) {
  std::string line = absl::StrCat(event.value("source", json::object()).value("workload", ""), " ",
                                  event.value("binary", "?"));
  const json arguments = event.value("arguments", json::array());
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string word = arguments[i].is_string() ? arguments[i].get<std::string>() : "";
    const bool plain = !word.empty() && word.find_first_of(" \t\n\"'") == std::string::npos;
    // As JSON writes it: what a program is called with must not draw on the terminal.
    absl::StrAppend(&line, " ",
                    plain && json(word).dump(-1, ' ', true).size() == word.size() + 2
                        ? word
                        : json(word).dump(-1, ' ', true));
  }
  if (event.value("arguments_cut", false)) line += " ...";
  if (!event.value("trusted", true)) line += " (path not to be believed)";
  if (event.contains("exit_code")) absl::StrAppend(&line, " code ", event.value("exit_code", 0));
  if (event.contains("signal")) absl::StrAppend(&line, " signal ", event.value("signal", 0));
  return line + absl::StrCat(" uid ", event.value("uid", 0u));
}

std::string EventText(const json& event) {
  const Colors& c = TerminalColors();
  const std::string verdict = event.value("reason", "?");
  const std::string kind = event.value("kind", "");
  const bool refused = event.value("refused", false);
  const bool of_process = kind == "exec" || kind == "exit";
  std::string line =
      absl::StrCat(AbslView(c.dim), event.value("time", ""), AbslView(c.reset), " ", kind, " ",
                   AbslView(refused ? c.red : c.green), verdict, AbslView(c.reset), " ");
  if (of_process) {
    line += ProcessText(event);
  } else {
    absl::StrAppend(&line, EndText(event.value("source", json::object())), " -> ",
                    EndText(event.value("destination", json::object())));
  }
  if (event.contains("picked")) absl::StrAppend(&line, " via ", event.value("picked", ""));
  if (event.contains("rule")) absl::StrAppend(&line, " rule ", event.value("rule", ""));
  if (event.contains("process")) {
    absl::StrAppend(&line, " process ", event.value("process", ""), "/", event.value("pid", 0));
  }
  if (!of_process && event.contains("binary")) {
    absl::StrAppend(&line, " binary ", event.value("binary", ""));
  }
  const json maker = event.value("maker", json::object());
  if (maker.contains("pid") && maker.value("pid", 0) != event.value("pid", 0)) {
    absl::StrAppend(&line, " socket of ", maker.value("binary", "?"), "/", maker.value("pid", 0));
  }
  if (event.contains("sent_bytes")) {
    absl::StrAppend(&line, " sent ", event.value("sent_bytes", uint64_t{0}), " received ",
                    event.value("received_bytes", uint64_t{0}));
  }
  return line;
}

bool PrintEvent(const Options& options, const EventFilter& filter, const std::string& node,
                std::string_view text) {
  const json event = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (event.is_discarded() || !event.is_object() || !filter.Matches(event)) return true;
  if (options.json) {
    json named = event;
    named["node"] = node;
    printf("%s\n", named.dump().c_str());
  } else {
    printf("%s %s\n", node.c_str(), EventText(event).c_str());
  }
  return fflush(stdout) == 0;
}

}  // namespace

int RunEvents(const Options& options) {
  const absl::StatusOr<EventFilter> filter = EventFilter::Create(options);
  if (!filter.ok()) {
    fprintf(stderr, "weft events: %s\n", std::string(filter.status().message()).c_str());
    return kExitUsage;
  }
  const std::vector<AgentPlace> agents = FindAgents(options.node);
  if (agents.empty()) {
    fprintf(stderr, "weft events: %s\n", NoAgentMessage(options.node).c_str());
    return kExitFailure;
  }
  if (options.follow && agents.size() > 1) {
    fprintf(stderr, "weft events: --follow needs --node NAME; there are %zu agents here:\n",
            agents.size());
    for (const AgentPlace& a : agents) fprintf(stderr, "  %s\n", a.node.c_str());
    return kExitUsage;
  }
  for (const AgentPlace& agent : agents) {
    auto response = ipc::HttpStream(
        agent.socket, options.follow ? "/events?follow=1" : "/events",
        [&](std::string_view line) { return PrintEvent(options, *filter, agent.node, line); });
    if (!response.ok() || response->status != 200) {
      fprintf(stderr, "weft events: %s: %s\n", agent.socket.c_str(),
              response.ok() ? response->body.c_str()
                            : std::string(response.status().message()).c_str());
      return kExitFailure;
    }
  }
  return kExitOk;
}

}  // namespace weft::cli
