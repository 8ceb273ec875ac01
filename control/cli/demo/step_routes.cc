// SPDX-License-Identifier: Apache-2.0
// Step 3: a header route, and a 90/10 split, counted.
#include "control/cli/demo/story.h"

namespace weft::cli {

absl::Status StepRoutes(Story& story) {
  WEFT_ASSIGN_OR_RETURN(
      const std::vector<HttpAnswer> by_header,
      story.Fetch({.url = "http://10.96.0.10/x[1-50]", .headers = {"x-version: canary"}}));
  const auto header_pods = CountByPod(by_header);
  story.Say("50 requests with x-version: canary -> " + CountText(header_pods));
  story.Figure("header_route", header_pods);
  if (header_pods != std::map<std::string, int>{{"web-3", 50}}) {
    return DoesNotHold("the header route did not send all 50 to web-3 (version=canary)");
  }
  WEFT_ASSIGN_OR_RETURN(const std::vector<HttpAnswer> split,
                        story.Fetch({.url = "http://10.96.0.10/split/[1-1000]"}));
  auto pods = CountByPod(split);
  const int canary = pods["web-3"];
  const int stable = pods["web-1"] + pods["web-2"];
  story.Say(absl::StrCat("1000 requests to /split -> v1 ", stable, ", canary ", canary,
                         " (90/10 configured)"));
  story.Figure("split", {{"v1", stable}, {"canary", canary}});
  // 100 +- 9.5 by chance: five standard deviations either way.
  if (stable + canary != 1000 || canary < 53 || canary > 147) {
    return DoesNotHold(absl::StrCat("the split is not 90/10: ", CountText(pods)));
  }
  return absl::OkStatus();
}

}  // namespace weft::cli
