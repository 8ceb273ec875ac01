// SPDX-License-Identifier: Apache-2.0
// Step 1: a service by its VIP, TLS only between the nodes, the client's own address at the server.
#include <set>

#include "control/cli/demo/story.h"

namespace weft::cli {

absl::Status StepWire(Story& story) {
  std::map<std::string, size_t> lines_before;
  const std::vector<std::string> web = {"web-1", "web-2", "web-3"};
  for (const std::string& pod : web) lines_before[pod] = story.AccessLines(pod).size();
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> answers,
                        story.Fetch({.url = "http://10.96.0.10/hello/[1-60]",
                                     .headers = {"x-canary: " + story.canary()}}));
  const auto by_status = CountByStatus(answers);
  const auto by_pod = CountByPod(answers);
  const int good = by_status.contains(200) ? by_status.at(200) : 0;
  story.Say(absl::StrCat("client: 60 x curl http://10.96.0.10/ with a canary in a header -> ", good,
                         " x 200 (", CountText(by_pod), ")"));
  story.Figure("requests", 60);
  story.Figure("answered_200", good);
  story.Figure("by_replica", by_pod);
  if (good != 60)
    return DoesNotHold(absl::StrCat("only ", good, " of 60 requests were answered 200"));
  if (!by_pod.contains("web-2") && !by_pod.contains("web-3")) {
    return DoesNotHold("no request reached the other node");
  }
  WEFT_RETURN_IF_ERROR(story.CheckWire());
  std::set<std::string> clients;
  size_t logged = 0;
  for (const std::string& pod : web) {
    const std::vector<std::string> lines = story.AccessLines(pod);
    for (size_t i = lines_before[pod]; i < lines.size(); ++i, ++logged) {
      clients.insert(lines[i].substr(0, lines[i].find(' ')));
    }
  }
  std::string seen;
  for (const std::string& client : clients)
    absl::StrAppend(&seen, seen.empty() ? "" : ", ", client);
  story.Say(absl::StrCat("nginx's access logs: ", logged, " requests, from ", seen,
                         " (the client pod is 10.244.1.10)"));
  story.Figure("clients_in_access_logs", clients);
  if (clients != std::set<std::string>{"10.244.1.10"}) {
    return DoesNotHold("nginx saw other addresses than the client pod's: " + seen);
  }
  return absl::OkStatus();
}

}  // namespace weft::cli
