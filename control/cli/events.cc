// SPDX-License-Identifier: Apache-2.0
// `weft events`: flow events of the agents of this machine, as text or JSON lines.
#include <stdio.h>

#include <nlohmann/json.hpp>

#include "control/cli/command.h"
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

std::string EventText(const json& event) {
  const Colors& c = TerminalColors();
  const std::string verdict = event.value("reason", "?");
  const bool refused = event.value("refused", false);
  std::string line =
      absl::StrCat(AbslView(c.dim), event.value("time", ""), AbslView(c.reset), " ",
                   event.value("kind", ""), " ", AbslView(refused ? c.red : c.green), verdict,
                   AbslView(c.reset), " ", EndText(event.value("source", json::object())), " -> ",
                   EndText(event.value("destination", json::object())));
  if (event.contains("picked")) absl::StrAppend(&line, " via ", event.value("picked", ""));
  if (event.contains("rule")) absl::StrAppend(&line, " rule ", event.value("rule", ""));
  if (event.contains("process")) {
    absl::StrAppend(&line, " process ", event.value("process", ""), "/", event.value("pid", 0));
  }
  if (event.contains("sent_bytes")) {
    absl::StrAppend(&line, " sent ", event.value("sent_bytes", uint64_t{0}), " received ",
                    event.value("received_bytes", uint64_t{0}));
  }
  return line;
}

bool PrintEvent(const Options& options, const std::string& node, std::string_view text) {
  const json event = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (event.is_discarded() || !event.is_object()) return true;
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
        [&](std::string_view line) { return PrintEvent(options, agent.node, line); });
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
