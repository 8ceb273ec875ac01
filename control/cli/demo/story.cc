// SPDX-License-Identifier: Apache-2.0
#include "control/cli/demo/story.h"

#include <stdio.h>

#include <fstream>
#include <sstream>

#include "control/cli/command.h"
#include "proxy/ipc/local_http.h"

namespace weft::cli {
namespace {

using nlohmann::json;

absl::StatusOr<json> GetJson(const std::string& socket, const std::string& target) {
  auto response = ipc::HttpRequest(socket, "GET", target);
  if (!response.ok()) return Annotate(response.status(), socket);
  if (response->status != 200) {
    return absl::UnavailableError(
        absl::StrCat(socket, target, ": ", response->status, " ", response->body));
  }
  json out = json::parse(response->body, nullptr, /*allow_exceptions=*/false);
  if (out.is_discarded()) return absl::DataLossError(socket + target + ": no JSON");
  return out;
}

}  // namespace

absl::Status DoesNotHold(const std::string& text) { return absl::FailedPreconditionError(text); }

void Story::Say(const std::string& text) {
  if (quiet_) return;
  printf("   %s\n", text.c_str());
  fflush(stdout);
}

json Story::TakeFigures() {
  json out = std::move(figures_);
  figures_ = json::object();
  return out;
}

absl::StatusOr<std::vector<HttpAnswer>> Story::Fetch(const Get& get) {
  std::vector<std::string> argv = {
      "curl",       "-sS",
      "-o",         "/dev/null",
      "--max-time", std::to_string(get.timeout.count()),
      "-w",         "%{http_code}|%header{x-pod}|%header{x-weft-reason}|%header{x-weft-policy}\n"};
  for (const std::string& header : get.headers) {
    argv.push_back("-H");
    argv.push_back(header);
  }
  if (get.parallel > 1) {
    argv.insert(argv.end(), {"--parallel", "--parallel-immediate", "--parallel-max",
                             std::to_string(get.parallel)});
  }
  argv.push_back(get.url);
  WEFT_ASSIGN_OR_RETURN(RunResult result,
                        mesh_.In(get.pod, argv, get.timeout + std::chrono::seconds(5)));
  std::vector<HttpAnswer> answers;
  std::istringstream lines(result.out);
  std::string line;
  while (std::getline(lines, line)) {
    HttpAnswer answer;
    std::istringstream fields(line);
    std::string status;
    std::getline(fields, status, '|');
    std::getline(fields, answer.pod, '|');
    std::getline(fields, answer.reason, '|');
    std::getline(fields, answer.policy, '|');
    answer.status = atoi(status.c_str());
    answers.push_back(std::move(answer));
  }
  if (answers.empty()) return absl::UnavailableError("curl " + get.url + ": " + result.err);
  return answers;
}

absl::StatusOr<json> Story::Agent(const std::string& node, const std::string& target) {
  return GetJson(mesh_.AgentSocket(node), target);
}
absl::StatusOr<json> Story::Proxy(const std::string& node, const std::string& target) {
  return GetJson(mesh_.RunDir(node) + "/proxy.sock", target);
}
absl::StatusOr<json> Story::Control(const std::string& target) {
  return GetJson(mesh_.ControlSocket(), target);
}

absl::StatusOr<std::vector<json>> Story::Events(const std::string& node) {
  WEFT_ASSIGN_OR_RETURN(const std::string text, mesh_.AskAgent(node, "/events"));
  std::vector<json> events;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    json event = json::parse(line, nullptr, false);
    if (event.is_object()) events.push_back(std::move(event));
  }
  return events;
}

std::vector<std::string> Story::AccessLines(const std::string& pod) {
  std::vector<std::string> out;
  std::ifstream in(mesh_.AccessLog(pod));
  std::string line;
  while (std::getline(in, line)) out.push_back(line);
  return out;
}

absl::Status Story::CheckWire() {
  const CaptureCounts c = capture_.counts();
  Say(absl::StrCat("between the nodes: ", c.packets, " packets with data, ", c.bytes, " bytes, ",
                   c.tls_bytes,
                   " of them inside TLS records; packets with the canary: ", c.canary_packets));
  Figure("wire", {{"packets", c.packets},
                  {"bytes", c.bytes},
                  {"tls_bytes", c.tls_bytes},
                  {"clear_bytes", c.clear_bytes},
                  {"unknown_bytes", c.unknown_bytes},
                  {"canary_packets", c.canary_packets},
                  {"dropped", c.dropped}});
  if (c.dropped != 0) return DoesNotHold("the capture lost packets, so it proves nothing");
  if (c.packets == 0) return DoesNotHold("nothing crossed between the nodes");
  if (c.canary_packets != 0) return DoesNotHold("the canary crossed in the clear");
  if (c.clear_bytes != 0) {
    return DoesNotHold(absl::StrCat(c.clear_bytes, " bytes are not TLS, e.g. ", c.clear_stream));
  }
  if (c.unknown_bytes != 0) {
    return DoesNotHold(absl::StrCat(c.unknown_bytes, " bytes of streams whose start was not seen"));
  }
  return absl::OkStatus();
}

std::map<std::string, int> CountByPod(const std::vector<HttpAnswer>& answers) {
  std::map<std::string, int> counts;
  for (const HttpAnswer& a : answers) ++counts[a.pod.empty() ? "(none)" : a.pod];
  return counts;
}

std::map<int, int> CountByStatus(const std::vector<HttpAnswer>& answers) {
  std::map<int, int> counts;
  for (const HttpAnswer& a : answers) ++counts[a.status];
  return counts;
}

std::string CountText(const std::map<std::string, int>& counts) {
  std::string out;
  for (const auto& [name, count] : counts) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", name, " ", count);
  }
  return out;
}

}  // namespace weft::cli
