// SPDX-License-Identifier: Apache-2.0
// Step 7: a denied client gets EPERM or 403 with the reason, and the event names pod, process and
// rule.
#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

using nlohmann::json;

absl::Status DeniedByTheKernel(Story& story) {
  WEFT_ASSIGN_OR_RETURN(RunResult denied,
                        story.mesh().In("intruder", {"redis-cli", "-h", "10.244.1.20", "ping"}));
  story.Say("intruder -> redis-a (same node): " + denied.err.substr(0, denied.err.find('\n')));
  if (denied.err.find("Operation not permitted") == std::string::npos) {
    return DoesNotHold("the kernel did not refuse with EPERM: " + denied.out + denied.err);
  }
  json found;
  const bool seen = WaitFor(std::chrono::seconds(5), [&] {
    auto events = story.Events("node-a");
    if (!events.ok()) return false;
    for (const json& event : *events) {
      if (event.value("refused", false) &&
          event["source"].value("workload", "") == "demo/intruder") {
        found = event;
      }
    }
    return !found.is_null();
  });
  if (!seen) return DoesNotHold("no event tells of it");
  story.Say(absl::StrCat("event: ", found.value("reason", "?"), ", pod ",
                         found["source"].value("workload", "?"), ", process ",
                         found.value("process", "?"), "/", found.value("pid", 0), ", rule ",
                         found.value("rule", "?")));
  story.Figure("event", found);
  if (found.value("process", "") != "redis-cli" || found.value("pid", 0) == 0 ||
      found.value("rule", "").find("demo/redis-only-client") == std::string::npos) {
    return DoesNotHold("the event lacks process or rule: " + found.dump());
  }
  return absl::OkStatus();
}

absl::Status DeniedByTheProxy(Story& story) {
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> answers,
                        story.Fetch({.pod = "intruder", .url = "http://10.96.0.10/[1-9]"}));
  for (const HttpAnswer& answer : answers) {
    if (answer.status != 403 || !answer.reason.starts_with("policy_")) {
      return DoesNotHold(absl::StrCat("web answered the intruder ", answer.status, " (reason ",
                                      answer.reason, ")"));
    }
  }
  story.Say(absl::StrCat(
      "intruder -> web, 9 requests over both nodes: 9 x 403, x-weft-reason: ", answers[0].reason,
      answers[0].policy.empty() ? "" : ", x-weft-policy: " + answers[0].policy));
  story.Figure("http", {{"status", 403}, {"reason", answers[0].reason}});
  WEFT_ASSIGN_OR_RETURN(RunResult across,
                        story.mesh().In("intruder", {"redis-cli", "-h", "10.244.2.20", "ping"}));
  const std::string said = across.out + across.err;
  story.Say("intruder -> redis-b (other node): " + said.substr(0, said.find('\n')));
  if (said.find("PONG") != std::string::npos) return DoesNotHold("redis-b served the intruder");
  json found;
  const bool seen = WaitFor(std::chrono::seconds(5), [&] {
    auto flows = story.Proxy("node-b", "/flows");
    if (!flows.ok() || !flows->is_array()) return false;
    for (const json& flow : *flows) {
      if (flow.value("destination", "") == "10.244.2.20:6379" &&
          flow.value("reason", "").starts_with("policy_")) {
        found = flow;
      }
    }
    return !found.is_null();
  });
  if (!seen) return DoesNotHold("node-b's proxy tells of no refusal");
  story.Say(absl::StrCat("node-b's proxy: ", found.value("reason", "?"), ", from ",
                         found.value("source_identity", "?"),
                         found.contains("policy") ? ", policy " + found.value("policy", "") : ""));
  return absl::OkStatus();
}

}  // namespace

absl::Status StepPolicy(Story& story) {
  WEFT_RETURN_IF_ERROR(DeniedByTheKernel(story));
  return DeniedByTheProxy(story);
}

}  // namespace weft::cli
