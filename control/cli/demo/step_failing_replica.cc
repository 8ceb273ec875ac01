// SPDX-License-Identifier: Apache-2.0
// Step 4: a replica fails; requests succeed through retries, it is ejected, and comes back once it
// works again.
#include <unistd.h>

#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr const char* kUrl = "http://10.96.0.13/";
constexpr const char* kReplica = "10.244.2.13:8080";

int64_t MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
}

// web-3 in the cluster web-all as node-a's proxy sees it.
json Replica(Story& story) {
  auto clusters = story.Proxy("node-a", "/clusters?format=json");
  if (!clusters.ok() || !clusters->is_array()) return json();
  for (const json& cluster : *clusters) {
    if (cluster.value("name", "").find("web-all") == std::string::npos) continue;
    for (const json& endpoint : cluster.value("endpoints", json::array())) {
      if (endpoint.value("address", "") == kReplica) return endpoint;
    }
  }
  return json();
}

size_t FailuresAnswered(Story& story) {
  size_t count = 0;
  for (const std::string& line : story.AccessLines("web-3")) {
    if (line.find(" 503 ") != std::string::npos) ++count;
  }
  return count;
}

absl::Status FailAndRetry(Story& story) {
  const size_t failures_before = FailuresAnswered(story);
  WEFT_RETURN_IF_ERROR(WriteFile(story.mesh().FailFile("web-3"), ""));
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> answers,
                        story.Fetch({.url = std::string(kUrl) + "[1-100]"}));
  auto by_status = CountByStatus(answers);
  const size_t failures = FailuresAnswered(story) - failures_before;
  story.Say(absl::StrCat("web-3 now answers 503: of 100 requests ", by_status[200],
                         " got 200; web-3 failed ", failures, " of them, retries covered it"));
  story.Figure("answered_200_while_failing", by_status[200]);
  story.Figure("failures_of_web_3", failures);
  if (by_status[200] != 100) return DoesNotHold("a failure reached the client");
  if (failures == 0) return DoesNotHold("web-3 was never asked, so no retry was shown");
  return absl::OkStatus();
}

absl::Status WaitForEjection(Story& story) {
  const bool ejected =
      WaitFor(std::chrono::seconds(5), [&] { return Replica(story).value("ejected", false); });
  if (!ejected) return DoesNotHold("web-3 was not ejected: " + Replica(story).dump());
  const size_t before = FailuresAnswered(story);
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> answers,
                        story.Fetch({.url = std::string(kUrl) + "[1-60]"}));
  auto by_pod = CountByPod(answers);
  story.Say(absl::StrCat("then it is ejected: 60 requests -> ", CountText(by_pod)));
  story.Figure("while_ejected", by_pod);
  // The ejection is short in the demo (2 s, growing); if it ended meanwhile, a few requests probed
  // it again.
  if (by_pod.contains("web-3")) return DoesNotHold("an ejected replica answered");
  if (FailuresAnswered(story) - before > 5)
    return DoesNotHold("an ejected replica was still asked");
  return absl::OkStatus();
}

}  // namespace

absl::Status StepFailingReplica(Story& story) {
  WEFT_RETURN_IF_ERROR(FailAndRetry(story));
  WEFT_RETURN_IF_ERROR(WaitForEjection(story));
  if (unlink(story.mesh().FailFile("web-3").c_str()) != 0)
    return DoesNotHold("cannot repair web-3");
  const auto repaired = Clock::now();
  absl::Status problem;
  int answered = 0;
  const bool returned = WaitFor(std::chrono::seconds(30), [&] {
    auto answers = story.Fetch({.url = std::string(kUrl) + "[1-6]"});
    if (!answers.ok()) {
      problem = answers.status();
      return true;
    }
    auto by_pod = CountByPod(*answers);
    answered += static_cast<int>(answers->size());
    return by_pod["web-3"] > 0;
  });
  WEFT_RETURN_IF_ERROR(problem);
  const int64_t took = MillisecondsSince(repaired);
  if (!returned) return DoesNotHold("web-3 works again but did not return within 30 s");
  story.Say(absl::StrCat("web-3 works again and returned ", took, " ms later (ejected ",
                         Replica(story).value("ejections", 0), " times, base time 2 s)"));
  story.Figure("returned_after_ms", took);
  story.Figure("requests_meanwhile", answered);
  return absl::OkStatus();
}

}  // namespace weft::cli
