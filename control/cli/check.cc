// SPDX-License-Identifier: Apache-2.0
// `weft check`: what this kernel offers.
#include <stdio.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/bpf/probe.h"
#include "control/bpf/self_test.h"
#include "control/cli/command.h"

namespace weft::cli {
namespace {

void PrintJson(const std::vector<bpf::Feature>& features) {
  nlohmann::json out = nlohmann::json::array();
  for (const bpf::Feature& f : features) {
    nlohmann::json item = {
        {"name", f.name}, {"present", f.present}, {"required", f.required}, {"detail", f.detail}};
    if (!f.present) {
      item["consequence"] = f.consequence;
      item["remedy"] = f.remedy;
    }
    out.push_back(std::move(item));
  }
  printf("%s\n", nlohmann::json{{"features", out}}.dump(2).c_str());
}

void PrintText(const std::vector<bpf::Feature>& features) {
  const Colors& c = TerminalColors();
  for (const bpf::Feature& f : features) {
    const std::string_view mark = f.present ? "ok     " : f.required ? "MISSING" : "absent ";
    const std::string_view color = f.present ? c.green : f.required ? c.red : c.yellow;
    printf("%s%s%s %-24s %s\n", color.data(), mark.data(), c.reset.data(), f.name.c_str(),
           f.detail.c_str());
    if (f.present) continue;
    printf("        consequence: %s\n        remedy:      %s\n", f.consequence.c_str(),
           f.remedy.c_str());
  }
}

// Whether the splice keeps its promise here: what weft-agent asks before it splices anything.
bpf::Feature SelfTestFeature() {
  const bpf::SelfTestReport report = bpf::RunSelfTest({});
  return {.name = "splice_self_test",
          .present = report.ok(),
          .required = false,
          .detail = report.Summary(),
          .consequence = "weft-agent keeps the splice off: bytes go by TCP",
          .remedy = "report it, with the version of the kernel"};
}

}  // namespace

int RunCheck(const Options& options) {
  std::vector<bpf::Feature> features = bpf::ProbeFeatures();
  const bool able =
      std::ranges::all_of(features, [](const bpf::Feature& f) { return f.present || !f.required; });
  if (able) features.push_back(SelfTestFeature());
  int exit_code = kExitOk;
  int required_missing = 0, optional_missing = 0;
  for (const bpf::Feature& f : features) {
    if (!f.present) ++(f.required ? required_missing : optional_missing);
  }
  if (optional_missing > 0) exit_code = kExitWarnings;
  if (required_missing > 0) exit_code = kExitFailure;
  if (options.json) {
    PrintJson(features);
    return exit_code;
  }
  PrintText(features);
  const char* verdict = required_missing > 0   ? "Weft cannot run on this machine as it is."
                        : optional_missing > 0 ? "Weft runs here, with the limits above."
                                               : "Weft runs here with everything it can do.";
  printf("\n%s\n", verdict);
  return exit_code;
}

}  // namespace weft::cli
