// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/traffic.h"

#include <algorithm>
#include <cstdio>

namespace weft::telemetry {
namespace {

// Appends name="value" with the escapes of the Prometheus text format; control characters do not
// occur in valid names, so they become '?'.
void AppendLabel(std::string& out, std::string_view name, std::string_view value) {
  if (!out.empty()) out += ',';
  out += name;
  out += "=\"";
  for (char c : value.empty() ? std::string_view("unknown") : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  }
  out += '"';
}

void AppendParty(std::string& out, bool source, const Party& party) {
  auto name = [source](const char* of_source, const char* of_destination) {
    return std::string_view(source ? of_source : of_destination);
  };
  AppendLabel(out, name("source_workload", "destination_workload"), party.workload);
  AppendLabel(out, name("source_workload_namespace", "destination_workload_namespace"),
              party.namespace_name);
  AppendLabel(out, name("source_principal", "destination_principal"), party.principal);
  AppendLabel(out, name("source_app", "destination_app"), party.app);
  AppendLabel(out, name("source_version", "destination_version"), party.version);
  AppendLabel(out, name("source_canonical_service", "destination_canonical_service"), party.app);
  AppendLabel(out, name("source_canonical_revision", "destination_canonical_revision"),
              party.version);
}

void AppendLabels(std::string& out, const TrafficLabels& labels) {
  AppendLabel(out, "reporter", labels.reporter_is_source ? "source" : "destination");
  AppendParty(out, true, labels.source);
  AppendParty(out, false, labels.destination);
  AppendLabel(out, "destination_service", labels.service);
  AppendLabel(out, "destination_service_name", labels.service.substr(0, labels.service.find('.')));
  AppendLabel(out, "destination_service_namespace", labels.service_namespace);
  AppendLabel(out, "request_protocol", labels.protocol);
  AppendLabel(out, "response_flags", labels.response_flags.empty() ? "-" : labels.response_flags);
  AppendLabel(out, "connection_security_policy", labels.mutual_tls ? "mutual_tls" : "none");
  if (labels.response_code != 0) {
    char code[16];
    int length = snprintf(code, sizeof code, "%d", labels.response_code);
    AppendLabel(out, "response_code", {code, static_cast<size_t>(length)});
  }
}

// A copy whose views point into `text`.
TrafficLabels CopyInto(std::string& text, const TrafficLabels& labels) {
  TrafficLabels copy = labels;
  std::string_view* const views[] = {&copy.source.workload,
                                     &copy.source.namespace_name,
                                     &copy.source.principal,
                                     &copy.source.app,
                                     &copy.source.version,
                                     &copy.destination.workload,
                                     &copy.destination.namespace_name,
                                     &copy.destination.principal,
                                     &copy.destination.app,
                                     &copy.destination.version,
                                     &copy.service,
                                     &copy.service_namespace,
                                     &copy.protocol,
                                     &copy.response_flags};
  size_t size = 0;
  for (const std::string_view* view : views) size += view->size();
  text.clear();
  text.reserve(size);  // so that it does not move below
  for (std::string_view* view : views) {
    const size_t at = text.size();
    text.append(*view);
    *view = {text.data() + at, view->size()};
  }
  return copy;
}

// Where it may be among the recent ones. By address: equal labels mostly come from the same model
// objects; if not, they only miss.
size_t RecentSlot(const TrafficLabels& labels, size_t slots) {
  auto hash = reinterpret_cast<uintptr_t>(labels.source.workload.data()) >> 4;
  hash = hash * 31 + (reinterpret_cast<uintptr_t>(labels.destination.workload.data()) >> 4);
  hash = hash * 31 + (reinterpret_cast<uintptr_t>(labels.service.data()) >> 4);
  hash = hash * 31 + static_cast<uintptr_t>(labels.response_code);
  return static_cast<size_t>((hash * 0x9e3779b97f4a7c15ull) >> 32) % slots;
}

}  // namespace

Party PartyOf(const model::Workload& workload) {
  return {.workload = workload.workload_name.empty() ? workload.name : workload.workload_name,
          .namespace_name = workload.namespace_name,
          .app = workload.canonical_name,
          .version = workload.canonical_revision};
}

Party PartyOf(const model::LocalWorkload& workload) {
  return {.workload = workload.name,
          .namespace_name = workload.namespace_name,
          .principal = workload.identity};
}

Traffic::Traffic() = default;
Traffic::~Traffic() = default;

TrafficSeries& Traffic::Publish(std::string labels, bool http) {
  size_t index = size_.load(std::memory_order_relaxed);
  auto series = std::make_unique<TrafficSeries>();
  series->labels = std::move(labels);
  series->http = http;
  TrafficSeries& result = *series;
  series_[index] = std::move(series);
  size_.store(index + 1, std::memory_order_release);
  return result;
}

TrafficSeries& Traffic::Find(const TrafficLabels& labels) {
  Recent& recent = recent_[RecentSlot(labels, kRecent)];
  if (recent.series != nullptr && recent.labels == labels) return *recent.series;
  recent.series = &FindByText(labels);
  recent.labels = CopyInto(recent.text, labels);
  return *recent.series;
}

TrafficSeries& Traffic::FindByText(const TrafficLabels& labels) {
  scratch_.clear();
  AppendLabels(scratch_, labels);
  if (auto found = by_labels_.find(scratch_); found != by_labels_.end()) return *found->second;
  bool http = labels.response_code != 0;
  if (by_labels_.size() < kMaxSeries) {
    TrafficSeries& series = Publish(scratch_, http);
    by_labels_.emplace(scratch_, &series);
    return series;
  }
  if (other_ == nullptr) {
    std::string text;
    Party other{.workload = "other",
                .namespace_name = "other",
                .principal = "other",
                .app = "other",
                .version = "other"};
    AppendLabels(text, {.reporter_is_source = true,
                        .source = other,
                        .destination = other,
                        .service = "other",
                        .service_namespace = "other",
                        .protocol = "other"});
    other_ = &Publish(std::move(text), true);
  }
  return *other_;
}

void Traffic::CountRequest(const TrafficLabels& labels, double duration_ms, uint64_t request_bytes,
                           uint64_t response_bytes) {
  TrafficSeries& series = Find(labels);
  series.requests.Add();
  series.request_bytes.Add(request_bytes);
  series.response_bytes.Add(response_bytes);
  series.duration_us_sum.Add(static_cast<uint64_t>(duration_ms * 1000));
  auto bound = std::lower_bound(kDurationBoundsMs.begin(), kDurationBoundsMs.end(), duration_ms);
  series.duration[static_cast<size_t>(bound - kDurationBoundsMs.begin())].Add();
}

}  // namespace weft::telemetry
