// SPDX-License-Identifier: Apache-2.0
// Step 9: a change in the folder reaches the data path; a broken manifest is refused with file and
// line, the last good stays.
#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr const char* kUrl = "http://10.96.0.10/split/[1-20]";

absl::StatusOr<std::string> Replaced(std::string text, const std::string& from,
                                     const std::string& to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) return DoesNotHold("30-routes.yaml has no \"" + from + "\"");
  return text.replace(at, from.size(), to);
}

bool AllFromCanary(Story& story) {
  auto answers = story.Fetch({.url = kUrl});
  return answers.ok() && CountByPod(*answers) == std::map<std::string, int>{{"web-3", 20}};
}

}  // namespace

absl::Status StepConfiguration(Story& story) {
  const std::string file = story.mesh().ManifestDir() + "/30-routes.yaml";
  WEFT_ASSIGN_OR_RETURN(const std::string original, ReadFile(file));
  WEFT_ASSIGN_OR_RETURN(std::string changed, Replaced(original, "weight: 90", "weight: 0"));
  WEFT_ASSIGN_OR_RETURN(changed, Replaced(changed, "weight: 10", "weight: 100"));
  const auto start = Clock::now();
  WEFT_RETURN_IF_ERROR(WriteFile(file, changed));
  const bool arrived = WaitFor(std::chrono::seconds(15), [&] { return AllFromCanary(story); });
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
  if (!arrived) return DoesNotHold("the new weights did not reach the data path within 15 s");
  story.Say(absl::StrCat("weights 90/10 -> 0/100 in 30-routes.yaml: 20 of 20 requests follow it ",
                         took, " ms after the file was written"));
  story.Figure("change_ms", took);

  WEFT_ASSIGN_OR_RETURN(const std::string broken,
                        Replaced(changed, "weight: 100", "weight: ninety"));
  WEFT_RETURN_IF_ERROR(WriteFile(file, broken));
  std::string problem;
  const bool refused = WaitFor(std::chrono::seconds(15), [&] {
    auto status = story.Control("/status");
    if (!status.ok()) return false;
    for (const json& item : status->value("problems", json::array())) {
      problem = item.value("message", "");
      if (item.value("line", 0) > 0 && problem.find("30-routes.yaml") != std::string::npos) {
        return true;
      }
    }
    return false;
  });
  if (!refused) return DoesNotHold("the broken manifest was not refused with file and line");
  story.Say("weight: ninety -> refused: " + problem);
  story.Figure("refusal", problem);
  if (!AllFromCanary(story)) return DoesNotHold("the last good configuration did not stay");
  story.Say("the last good configuration stays: 20 of 20 requests still follow it");
  WEFT_RETURN_IF_ERROR(WriteFile(file, original));
  const bool back = WaitFor(std::chrono::seconds(15), [&] { return !AllFromCanary(story); });
  if (!back) return DoesNotHold("the repaired manifest did not come into force");
  return absl::OkStatus();
}

}  // namespace weft::cli
