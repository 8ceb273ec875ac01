// SPDX-License-Identifier: Apache-2.0
#include "control/cli/event_filter.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "proxy/base/reason.h"

namespace weft::cli {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kVerdicts = {"allowed", "denied", "killed", "audited"};

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> out;
  for (size_t at = 0; !list.empty() && at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    out.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::string Text(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// "namespace/name" of everybody whom the event is about.
std::vector<std::string> Workloads(const json& event) {
  std::vector<std::string> all = {Text(event, "picked_workload")};
  for (const char* end : {"source", "destination"}) {
    const auto found = event.find(end);
    if (found != event.end() && found->is_object()) all.push_back(Text(*found, "workload"));
  }
  std::erase(all, "");
  return all;
}

bool IsPod(const std::string& workload, const std::string& asked) {
  if (asked.find('/') != std::string::npos) return workload == asked;
  return workload.substr(workload.find('/') + 1) == asked;
}

bool IsBinary(const std::string& path, const std::string& asked) {
  if (path.empty()) return false;
  if (asked.ends_with('*')) return path.starts_with(asked.substr(0, asked.size() - 1));
  if (asked.find('/') == std::string::npos) return path.substr(path.rfind('/') + 1) == asked;
  return path == asked;
}

bool Has(const std::vector<std::string>& wanted, const std::string& value) {
  return wanted.empty() || std::ranges::count(wanted, value) > 0;
}

}  // namespace

absl::StatusOr<EventFilter> EventFilter::Create(const Options& options) {
  EventFilter filter;
  filter.pod_ = options.pod;
  filter.namespace_ = options.namespace_name;
  filter.binary_ = options.binary;
  filter.verdicts_ = Split(options.verdict);
  filter.reasons_ = Split(options.reason);
  for (const std::string& verdict : filter.verdicts_) {
    if (std::ranges::count(kVerdicts, verdict) > 0) continue;
    return absl::InvalidArgumentError("--verdict: allowed, denied, killed or audited, not \"" +
                                      verdict + "\"");
  }
  for (const std::string& reason : filter.reasons_) {
    if (ReasonFromName(reason).has_value()) continue;
    return absl::InvalidArgumentError("--reason: there is no \"" + reason + "\"");
  }
  return filter;
}

bool EventFilter::Matches(const json& event) const {
  if (!Has(verdicts_, Text(event, "verdict")) || !Has(reasons_, Text(event, "reason"))) {
    return false;
  }
  const std::vector<std::string> workloads = Workloads(event);
  const auto any = [&](const auto& matches) { return std::ranges::any_of(workloads, matches); };
  if (!pod_.empty() && !any([&](const std::string& w) { return IsPod(w, pod_); })) return false;
  if (!namespace_.empty() &&
      !any([&](const std::string& w) { return w.starts_with(namespace_ + "/"); })) {
    return false;
  }
  if (binary_.empty() || IsBinary(Text(event, "binary"), binary_)) return true;
  const auto maker = event.find("maker");
  return maker != event.end() && maker->is_object() && IsBinary(Text(*maker, "binary"), binary_);
}

}  // namespace weft::cli
