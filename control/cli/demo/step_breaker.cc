// SPDX-License-Identifier: Apache-2.0
// Step 5: the circuit breaker opens under load and says so.
#include "control/cli/demo/story.h"

namespace weft::cli {

absl::Status StepBreaker(Story& story) {
  // Each answer takes some two seconds (nginx's limit_rate); web-all admits 32 at a time.
  WEFT_ASSIGN_OR_RETURN(
      const std::vector<HttpAnswer> answers,
      story.Fetch({.url = "http://10.96.0.13/slow/page?[1-120]", .parallel = 120}));
  std::map<std::string, int> reasons;
  for (const HttpAnswer& answer : answers) {
    if (answer.status == 503) ++reasons[answer.reason.empty() ? "(no reason)" : answer.reason];
  }
  auto by_status = CountByStatus(answers);
  story.Say(absl::StrCat("120 slow requests at once, 32 admitted: ", by_status[200], " x 200, ",
                         by_status[503], " x 503 with x-weft-reason: ", CountText(reasons)));
  story.Figure("answered_200", by_status[200]);
  story.Figure("refused_503", reasons);
  if (by_status[200] == 0) return DoesNotHold("nothing was admitted");
  if (by_status[200] + by_status[503] != 120) return DoesNotHold("other answers than 200 and 503");
  int overflow = 0;
  for (const auto& [reason, count] : reasons) {
    if (reason.starts_with("overflow_")) overflow += count;
  }
  if (overflow == 0 || overflow != by_status[503]) {
    return DoesNotHold("the breaker did not open, or did not say why: " + CountText(reasons));
  }
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> after,
                        story.Fetch({.url = "http://10.96.0.13/after"}));
  story.Say(absl::StrCat("afterwards a request is answered ", after[0].status, " again"));
  if (after[0].status != 200) return DoesNotHold("the breaker did not close again");
  return absl::OkStatus();
}

}  // namespace weft::cli
