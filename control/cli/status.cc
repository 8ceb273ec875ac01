// SPDX-License-Identifier: Apache-2.0
// `weft status`: what the agents of this machine know and do.
#include <stdio.h>
#include <time.h>

#include <map>
#include <nlohmann/json.hpp>

#include "control/cli/command.h"
#include "proxy/ipc/local_http.h"

namespace weft::cli {
namespace {

using nlohmann::json;

const json& Field(const json& object, const char* name) {
  static const json none;
  auto found = object.find(name);
  return found == object.end() ? none : *found;
}

std::string Text(const json& object, const char* name, const char* otherwise = "") {
  const json& value = Field(object, name);
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? otherwise : value.dump();
}

// "in 43m" or "12s AGO".
std::string Until(int64_t when) {
  const int64_t left = when - time(nullptr);
  const int64_t size = left < 0 ? -left : left;
  const std::string amount = size < 120    ? absl::StrCat(size, "s")
                             : size < 7200 ? absl::StrCat(size / 60, "m")
                                           : absl::StrCat(size / 3600, "h");
  return left < 0 ? amount + " AGO" : "in " + amount;
}

// Each prints one section and returns true if it needs attention.
bool PrintXds(const json& status) {
  const Colors& c = TerminalColors();
  const json& xds = Field(status, "xds");
  const bool connected = xds.value("connected", false);
  printf("  xds        %s%s%s %s", connected ? c.green.data() : c.red.data(),
         connected ? "connected" : "NOT CONNECTED", c.reset.data(), Text(xds, "control").c_str());
  if (!connected) printf(" (%s)", Text(xds, "error", "connecting").c_str());
  printf("\n");
  for (const json& type : Field(xds, "types")) {
    printf("             %-28s %5s resources  version %s\n", Text(type, "name").c_str(),
           Text(type, "resources", "0").c_str(), Text(type, "version", "-").c_str());
  }
  const json& nack = Field(xds, "last_nack");
  if (!nack.is_null()) {
    printf("  %slast NACK%s  %s %s: %s\n", c.yellow.data(), c.reset.data(),
           Text(nack, "time").c_str(), Text(nack, "resource").c_str(),
           Text(nack, "reason").c_str());
  }
  return !connected;
}

bool PrintProcesses(const json& status) {
  const Colors& c = TerminalColors();
  bool attention = false;
  for (const json& process : Field(status, "processes")) {
    const bool running = process.value("running", false);
    attention |= !running;
    printf("  process    %-13s %s%s%s pid %s restarts %s\n", Text(process, "name").c_str(),
           running ? c.green.data() : c.red.data(), running ? "running" : "DOWN", c.reset.data(),
           Text(process, "pid", "-").c_str(), Text(process, "restarts", "0").c_str());
  }
  return attention;
}

bool PrintWorkloads(const json& status) {
  const Colors& c = TerminalColors();
  bool attention = false;
  for (const json& workload : Field(status, "workloads")) {
    const std::string state = Text(workload, "state");
    const bool ready = state == "ready";
    attention |= !ready;
    printf("  workload   %-22s %-14s splice %-4s %s%s%s %s\n",
           (Text(workload, "namespace") + "/" + Text(workload, "name")).c_str(),
           Text(workload, "address").c_str(), Text(workload, "splice").c_str(),
           ready ? c.green.data() : c.yellow.data(), state.c_str(), c.reset.data(),
           Text(workload, "identity").c_str());
    if (!Text(workload, "bypass").empty()) {
      attention = true;
      printf("             %sbypassable: %s%s\n", c.yellow.data(), Text(workload, "bypass").c_str(),
             c.reset.data());
    }
    const json& events = Field(workload, "events");
    const bool counted = events.is_object();
    const uint64_t suppressed = counted ? events.value("suppressed", uint64_t{0}) : 0;
    const uint64_t lost = counted ? events.value("lost", uint64_t{0}) : 0;
    if (suppressed + lost > 0) {
      printf("             events: %s reported, %llu beyond its rate, %llu lost\n",
             Text(events, "reported", "0").c_str(), static_cast<unsigned long long>(suppressed),
             static_cast<unsigned long long>(lost));
    }
    if (!Text(workload, "error").empty()) {
      printf("             %s%s%s\n", c.red.data(), Text(workload, "error").c_str(),
             c.reset.data());
    }
  }
  for (const json& problem : Field(Field(status, "policy"), "problems")) {
    attention = true;
    printf("  policy     %s%s%s\n", c.yellow.data(), problem.get<std::string>().c_str(),
           c.reset.data());
  }
  for (const json& certificate : Field(status, "certificates")) {
    const int64_t not_after = certificate.value("not_after", int64_t{0});
    const bool alarm = certificate.value("alarm", false);
    attention |= alarm;
    printf("  identity   %-50s expires %s%s%s\n", Text(certificate, "identity").c_str(),
           alarm ? c.red.data() : "", Until(not_after).c_str(), alarm ? c.reset.data() : "");
    if (!Text(certificate, "error").empty()) {
      printf("             %srenewal failed: %s%s\n", c.red.data(),
             Text(certificate, "error").c_str(), c.reset.data());
    }
  }
  return attention;
}

// "eligible", or how far it is.
std::string SideText(const json& side, int needed) {
  const std::string state = Text(side, "state");
  if (state != "learning") return state;
  return absl::StrCat("learning ", side.value("connections", 0), "/", needed);
}

void PrintBinaries(const json& status) {
  const Colors& c = TerminalColors();
  for (const json& binary : Field(status, "binaries")) {
    const std::string path = Text(binary, "path");
    const std::string breaker = Text(binary, "breaker", "none");
    printf("  binary     %s ",
           path.empty() ? ("(" + Text(binary, "command") + ")").c_str() : path.c_str());
    if (breaker != "none") {
      printf("%snot spliced%s: %s\n", c.yellow.data(), c.reset.data(),
             Text(binary, "breaker_meaning").c_str());
      continue;
    }
    const int needed = binary.value("needed", 0);
    printf("connecting %s, accepting %s (after %d connections)\n",
           SideText(Field(binary, "connecting"), needed).c_str(),
           SideText(Field(binary, "accepting"), needed).c_str(), needed);
  }
  const std::string error = Text(status, "learning_error");
  if (!error.empty()) {
    printf("  %sauto%s       splices nothing: %s\n", c.yellow.data(), c.reset.data(),
           error.c_str());
  }
}

bool PrintServices(const json& status) {
  const Colors& c = TerminalColors();
  const json& services = Field(status, "services");
  printf("  services   %s in the kernel, %s of %s bytes\n", Text(services, "count", "0").c_str(),
         Text(services, "bytes_used", "0").c_str(), Text(services, "bytes", "0").c_str());
  const json& kept = Field(services, "kept");
  for (const json& name : kept) {
    printf("             %s%s keeps its endpoints of before: no room (--service-memory)%s\n",
           c.red.data(), name.get<std::string>().c_str(), c.reset.data());
  }
  return !kept.empty();
}

void PrintDataPath(const json& status) {
  const json& splice = Field(status, "splice");
  const json& self_test = Field(status, "self_test");
  if (!self_test.value("passed", true)) {
    const Colors& c = TerminalColors();
    printf("  splice     %skept off%s: %s\n", c.red.data(), c.reset.data(),
           Text(self_test, "summary").c_str());
  }
  printf("  splice     %s, %s sockets, %s messages, %s bytes\n",
         splice.value("on", false) ? "on" : "off", Text(splice, "sockets", "0").c_str(),
         Text(splice, "messages", "0").c_str(), Text(splice, "bytes", "0").c_str());
  // Each worker has its own tunnels; people ask who is connected to whom.
  std::map<std::string, std::pair<int, int>> tunnels;  // -> connections, streams
  for (const json& tunnel : Field(status, "tunnels")) {
    auto& [connections, streams] = tunnels[absl::StrCat(Text(tunnel, "source_identity"), " -> ",
                                                        Text(tunnel, "destination_identity"),
                                                        " at ", Text(tunnel, "destination"))];
    ++connections;
    streams += tunnel.value("streams", 0);
  }
  for (const auto& [ends, counts] : tunnels) {
    printf("  tunnel     %s: connections %d, streams %d\n", ends.c_str(), counts.first,
           counts.second);
  }
  std::string verdicts;
  for (const auto& [reason, count] : Field(status, "verdicts").items()) {
    absl::StrAppend(&verdicts, verdicts.empty() ? "" : ", ", reason, " ", count.dump());
  }
  if (!verdicts.empty()) printf("  verdicts   %s\n", verdicts.c_str());
}

bool PrintNode(const json& status) {
  const Colors& c = TerminalColors();
  printf("%snode %s%s\n", c.bold.data(), Text(status, "node").c_str(), c.reset.data());
  bool attention = PrintXds(status);
  attention |= PrintProcesses(status);
  attention |= PrintWorkloads(status);
  PrintBinaries(status);
  attention |= PrintServices(status);
  PrintDataPath(status);
  return attention;
}

}  // namespace

int RunStatus(const Options& options) {
  const std::vector<AgentPlace> agents = FindAgents(options.node);
  if (agents.empty()) {
    fprintf(stderr, "weft status: %s\n", NoAgentMessage(options.node).c_str());
    return kExitFailure;
  }
  int exit_code = kExitOk;
  json all = json::array();
  for (const AgentPlace& agent : agents) {
    auto response = ipc::HttpRequest(agent.socket, "GET", "/status");
    json status = response.ok() ? json::parse(response->body, nullptr, false) : json();
    if (!response.ok() || response->status != 200 || !status.is_object()) {
      fprintf(stderr, "weft status: %s does not answer: %s\n", agent.socket.c_str(),
              response.ok() ? response->body.c_str()
                            : std::string(response.status().message()).c_str());
      exit_code = kExitFailure;
      continue;
    }
    if (options.json) {
      all.push_back(std::move(status));
    } else if (PrintNode(status) && exit_code == kExitOk) {
      exit_code = kExitWarnings;
    }
  }
  if (options.json) printf("%s\n", json{{"nodes", all}}.dump(2).c_str());
  return exit_code;
}

}  // namespace weft::cli
