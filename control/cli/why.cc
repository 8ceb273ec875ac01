// SPDX-License-Identifier: Apache-2.0
// `weft why`: asks the agents here whether a connection would be allowed, and prints layer by layer
// what decides.
#include <stdio.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/cli/command.h"
#include "proxy/ipc/local_http.h"

namespace weft::cli {
namespace {

using nlohmann::json;

std::string EndText(const json& end) {
  const std::string name = end.value("name", ""), address = end.value("address", "");
  return name == address ? name : name + " (" + address + ")";
}

void PrintLayer(const json& layer) {
  const Colors& c = TerminalColors();
  const std::string name = layer.value("layer", "");
  const std::string at = layer.value("asked_at", "");
  if (!layer.contains("allowed")) {
    printf("  %-14s %sasked at %s%s\n", name.c_str(), c.dim.data(), at.c_str(), c.reset.data());
    return;
  }
  const bool allowed = layer.value("allowed", false);
  const std::string rule = layer.value("rule", "");
  const std::string why = !layer.value("active", false) ? "no policy selects the workload"
                          : !rule.empty()               ? rule
                          : allowed                     ? "no rule denies it"
                                                        : "no policy is in force yet";
  printf("  %-14s %s%-6s%s %s%s\n", name.c_str(), allowed ? c.green.data() : c.red.data(),
         allowed ? "allows" : "DENIES", c.reset.data(), why.c_str(),
         at == "proxy" ? " (asked by the proxy)" : "");
  if (layer.contains("audit")) printf("  %-14s dry run: %s\n", "", layer["audit"].dump().c_str());
}

void PrintAnswer(const json& answer, const std::string& protocol) {
  const Colors& c = TerminalColors();
  const bool allowed = answer.value("allowed", false);
  const json& destination = answer["destination"];
  printf("%s -> %s %s port %d: %s%s%s, way: %s%s\n", EndText(answer["source"]).c_str(),
         EndText(destination).c_str(), protocol.c_str(), destination.value("port", 0),
         allowed ? c.green.data() : c.red.data(), allowed ? "allowed" : "DENIED", c.reset.data(),
         answer.value("way", "").c_str(), answer.value("splice", false) ? ", may be spliced" : "");
  for (const json& layer : answer["layers"]) PrintLayer(layer);
}

void PrintNode(const std::string& node, const json& answer) {
  const Colors& c = TerminalColors();
  const std::string protocol = answer.value("protocol", "");
  printf("%snode %s%s\n", c.bold.data(), node.c_str(), c.reset.data());
  if (!answer.contains("endpoints")) return PrintAnswer(answer, protocol);
  printf("service %s, %zu endpoints\n", answer.value("service", "").c_str(),
         answer["endpoints"].size());
  for (const json& endpoint : answer["endpoints"]) PrintAnswer(endpoint, protocol);
}

// Names and addresses have none of the characters that a query needs escaped.
bool IsPlain(const std::string& word) {
  return word.find_first_of("&=?# %\r\n") == std::string::npos;
}

std::string Target(const Options& options) {
  std::string target = "/why?source=" + options.words[0] + "&destination=" + options.words[1];
  if (options.words.size() > 2) target += "&port=" + options.words[2];
  if (!options.protocol.empty()) target += "&protocol=" + options.protocol;
  return target;
}

}  // namespace

int RunWhy(const Options& options) {
  const bool plain = std::ranges::all_of(options.words, IsPlain) && IsPlain(options.protocol);
  if (options.words.size() < 2 || !plain) {
    fprintf(stderr, "weft why: SRC and DST are needed: NAMESPACE/NAME or an address\n");
    return kExitUsage;
  }
  const std::vector<AgentPlace> agents = FindAgents(options.node);
  if (agents.empty()) {
    fprintf(stderr, "weft why: %s\n", NoAgentMessage(options.node).c_str());
    return kExitFailure;
  }
  json all = json::array();
  bool allowed = true;
  std::string problem;
  for (const AgentPlace& agent : agents) {
    auto response = ipc::HttpRequest(agent.socket, "GET", Target(options));
    json answer = response.ok() ? json::parse(response->body, nullptr, false) : json();
    if (!response.ok() || response->status != 200 || !answer.is_object()) {
      const std::string said = answer.is_object() ? answer.value("error", "") : "";
      problem =
          agent.node + ": " + (response.ok() ? said : std::string(response.status().message()));
      continue;
    }
    allowed = allowed && answer.value("allowed", false);
    if (!options.json) PrintNode(agent.node, answer);
    answer["node"] = agent.node;
    all.push_back(std::move(answer));
  }
  if (all.empty()) {
    fprintf(stderr, "weft why: %s\n", problem.c_str());
    return kExitFailure;
  }
  if (options.json) printf("%s\n", json{{"allowed", allowed}, {"nodes", all}}.dump(2).c_str());
  return allowed ? kExitOk : kExitWarnings;
}

}  // namespace weft::cli
