// SPDX-License-Identifier: Apache-2.0
// Agent: agent.sock, the interface of the CLI. GET /status, /healthz, /events[?follow=1],
// /why?source=S&destination=D[&port=P][&protocol=tcp]; POST /workloads, /splice?on=true|false;
// DELETE /workloads?name=NAMESPACE/NAME.
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <charconv>
#include <nlohmann/json.hpp>

#include "control/agent/agent.h"
#include "control/agent/binaries.h"
#include "control/agent/proxy_status.h"
#include "proxy/base/log.h"
#include "proxy/base/reason.h"

namespace weft::agent {
namespace {

using nlohmann::json;

json Problem(const std::string& text) { return {{"error", text}}; }

std::string Dump(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string TimeText(std::chrono::system_clock::time_point when) {
  const time_t seconds = std::chrono::system_clock::to_time_t(when);
  if (seconds == 0) return "";
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// "type.googleapis.com/envoy.config.cluster.v3.Cluster" -> "Cluster"
std::string ShortType(const std::string& type_url) {
  return type_url.substr(type_url.rfind('.') + 1);
}

json XdsJson(const xds::ClientStatus& status, const std::string& control) {
  json types = json::array();
  for (const xds::TypeStatus& type : status.types) {
    types.push_back({{"name", ShortType(type.type_url)},
                     {"type", type.type_url},
                     {"resources", type.resources},
                     {"version", type.version},
                     {"updates", type.updates},
                     {"nacks", type.nacks},
                     {"last_update", TimeText(type.last_update)}});
  }
  json out = {{"connected", status.connected}, {"control", control},
              {"connects", status.connects},   {"since", TimeText(status.since)},
              {"types", std::move(types)},     {"last_nack", nullptr}};
  if (!status.connected) out["error"] = status.last_error;
  auto latest = std::chrono::system_clock::time_point{};
  for (const xds::TypeStatus& type : status.types) {
    if (type.last_nack.empty() || type.last_nack_at < latest) continue;
    latest = type.last_nack_at;
    out["last_nack"] = {{"resource", ShortType(type.type_url)},
                        {"reason", type.last_nack},
                        {"by", "weft-agent"},
                        {"time", TimeText(latest)}};
  }
  return out;
}

json CertificatesJson(const Certificates* certificates) {
  json out = json::array();
  if (certificates == nullptr) return out;
  for (const CertificateStatus& c : certificates->status()) {
    out.push_back({{"identity", c.identity},
                   {"not_after", c.not_after},
                   {"renew_at", c.renew_at},
                   {"alarm", c.alarm},
                   {"error", c.error}});
  }
  return out;
}

json SpliceJson(const bpf::SpliceStats& s, bool on) {
  return {{"on", on},
          {"sockets", s.inserted - s.removed},
          {"inserted", s.inserted},
          {"insert_failed", s.insert_failed},
          {"messages", s.messages},
          {"bytes", s.bytes},
          {"by_tcp",
           {{"switched_off", s.switched_off},
            {"no_peer", s.no_peer},
            {"not_quiet", s.not_quiet},
            {"peer_full", s.peer_full},
            {"peer_waits", s.peer_waits},
            {"peer_blocking", s.peer_blocking},
            {"redirect_failed", s.redirect_failed},
            {"unlearned", s.unlearned}}}};
}

json SelfTestJson(const bpf::SelfTestReport& report) {
  json rows = json::object();
  for (const bpf::SelfTestRow& row : report.rows) rows[row.name] = row.error;
  return {{"passed", report.ok()},
          {"summary", report.Summary()},
          {"rows", std::move(rows)},
          {"took_ms", report.took.count()}};
}

// What each workload made of events.
void AddActivity(const std::vector<bpf::Activity>& activities, json* workloads) {
  for (json& workload : *workloads) {
    for (const bpf::Activity& activity : activities) {
      if (workload["id"] != activity.workload) continue;
      workload["events"] = {{"reported", activity.events},
                            {"suppressed", activity.suppressed},
                            {"lost", activity.lost}};
    }
  }
}

json ServicesJson(const bpf::ServiceStats& s, const std::set<uint32_t>& kept,
                  const KernelNumbers& numbers) {
  json names = json::array();
  for (const uint32_t id : kept) names.push_back(std::string(numbers.services.NameOf(id)));
  return {{"count", s.services},
          {"bytes", uint64_t{s.cells} * sizeof(weft_cell)},
          {"bytes_used", uint64_t{s.cells_used} * sizeof(weft_cell)},
          {"refused_full", s.refused_full},
          {"kept", std::move(names)}};
}

int StatusCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    default:
      return 500;
  }
}

void Answer(const ipc::Responder& responder, const absl::Status& status) {
  const json body = status.ok() ? json{{"ok", true}} : Problem(std::string(status.message()));
  responder.Send(StatusCode(status), "application/json", Dump(body));
}

// The value of `name` in "a=1&b=2"; names and values need no escapes here.
std::string QueryValue(const std::string& query, const std::string& name) {
  for (size_t at = 0; at < query.size();) {
    const size_t end = std::min(query.find('&', at), query.size());
    const std::string pair = query.substr(at, end - at);
    if (pair.starts_with(name + "=")) return pair.substr(name.size() + 1);
    at = end + 1;
  }
  return "";
}

}  // namespace

absl::Status Agent::StartApi() {
  WEFT_ASSIGN_OR_RETURN(const int fd, net::ListenUnix(options_.Path("agent.sock"), 0600));
  api_ = std::make_unique<ipc::LocalHttpServer>(
      io_.get_executor(), fd, [this](ipc::LocalRequest request, ipc::Responder responder) {
        HandleApi(std::move(request), std::move(responder));
      });
  return absl::OkStatus();
}

std::string Agent::NotReadyBecause() {
  if (!snapshot_)
    return "nothing was heard from the control plane yet: " + source_->status().last_error;
  if (!kernel_error_.empty()) return "kernel maps: " + kernel_error_;
  for (const auto& [file, error] : file_errors_) return error;
  for (const auto& [key, workload] : workloads_) {
    if (!workload.error.empty()) return key + ": " + workload.error;
    if (workload.state == State::kWaitsForCertificate) return key + " waits for its certificate";
    if (workload.state != State::kReady) return key + " waits for the proxy";
  }
  return "";
}

void Agent::AnswerWhy(const ipc::LocalRequest& request, const ipc::Responder& responder) {
  WhyRequest why{.source = QueryValue(request.query, "source"),
                 .destination = QueryValue(request.query, "destination")};
  const std::string protocol = QueryValue(request.query, "protocol");
  const std::string port = QueryValue(request.query, "port");
  if (!protocol.empty()) why.protocol = protocol;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), why.port);
  if (!port.empty() && (error != std::errc() || end != port.data() + port.size())) {
    return Answer(responder, absl::InvalidArgumentError("port: 0 to 65535, not " + port));
  }
  auto text = ExplainWhy(why);
  if (!text.ok()) return Answer(responder, text.status());
  responder.Send(200, "application/json", *std::move(text));
}

void Agent::HandleApi(ipc::LocalRequest request, ipc::Responder responder) {
  const bool get = request.method == "GET";
  const bool post = request.method == "POST";
  if (get && request.path == "/status") {
    asio::co_spawn(io_, AnswerStatus(std::move(responder)), OnTaskEnd);
  } else if (get && request.path == "/healthz") {
    const std::string reason = NotReadyBecause();
    responder.Send(reason.empty() ? 200 : 503, "text/plain", reason.empty() ? "ok\n" : reason);
  } else if (get && request.path == "/events") {
    const std::string follow = QueryValue(request.query, "follow");
    events_.Serve(std::move(responder), follow == "1" || follow == "true");
  } else if (get && request.path == "/why") {
    AnswerWhy(request, responder);
  } else if (post && request.path == "/workloads") {
    auto entry = ParseWorkloadEntry(request.body, "request");
    Answer(responder, entry.ok() ? Enrol(*entry, "") : entry.status());
  } else if (request.method == "DELETE" && request.path == "/workloads") {
    Answer(responder, Remove(QueryValue(request.query, "name")));
  } else if (post && request.path == "/splice") {
    const std::string on = QueryValue(request.query, "on");
    if (on != "true" && on != "false") {
      Answer(responder, absl::InvalidArgumentError("/splice?on=true or /splice?on=false"));
      return;
    }
    Answer(responder, kernel_->SetSplice(on == "true"));
  } else {
    responder.Send(404, "application/json",
                   Dump(Problem(request.method + " " + request.path + " is not served here")));
  }
}

Task<void> Agent::AnswerStatus(ipc::Responder responder) {
  std::string of_proxy;
  if (proxy_.process) {
    of_proxy = co_await StatusOfProxy(io_.get_executor(), options_.Path("proxy.sock"));
  }
  if (!stopping_) responder.Send(200, "application/json", StatusJson(of_proxy));
}

std::string Agent::StatusJson(const std::string& of_proxy) {
  json workloads = json::array();
  for (const auto& [key, workload] : workloads_) {
    const char* state = !workload.error.empty()                         ? "error"
                        : workload.state == State::kReady               ? "ready"
                        : workload.state == State::kWaitsForProxy       ? "waits for the proxy"
                        : workload.state == State::kWaitsForCertificate ? "waits for a certificate"
                                                                        : "waits for weft-control";
    workloads.push_back({{"name", workload.entry.name},
                         {"namespace", workload.entry.namespace_name},
                         {"uid", workload.pod.uid},
                         {"id", workload.pod.id},
                         {"identity", workload.identity},
                         {"address", workload.entry.addresses[0].ToString()},
                         {"netns", workload.entry.netns},
                         {"netns_cookie", workload.pod.netns_cookie},
                         {"guard", workload.bypass.empty() ? "on" : "bypassable"},
                         {"bypass", workload.bypass},
                         {"splice", SpliceModeName(workload.entry.splice)},
                         {"state", state},
                         {"error", workload.error}});
  }
  AddActivity(kernel_->Activities(), &workloads);
  json processes = json::array();
  for (const Child* child : {&sockets_, &keyd_, &proxy_}) {
    if (child == &keyd_ && !certificates_) continue;
    processes.push_back({{"name", child->name},
                         {"running", child->process != nullptr},
                         {"pid", child->process ? child->process->pid() : 0},
                         {"adopted", child->adopted},
                         {"restarts", child->restarts},
                         {"last_exit", child->last_exit}});
  }
  json verdicts = json::object();
  const auto counters = kernel_->Counters();
  for (size_t i = 0; i < counters.size(); ++i) {
    if (counters[i] != 0) {
      verdicts[std::string(ReasonName(static_cast<Reason>(i)))] = counters[i];
    }
  }
  json out = {{"node", options_.node},
              {"run_dir", options_.run_dir},
              {"pid", getpid()},
              {"kernel_adopted", kernel_->adopted()},
              {"kernel_error", kernel_error_},
              {"kernel_updates", writer_->updates()},
              {"policy",
               {{"entries", writer_->written_policy_entries()},
                {"touched", kernel_->policy_touched()},
                {"closed", writer_->closed().size()},
                {"problems", policy_problems_},
                {"cut_connections", cut_connections_}}},
              {"services", ServicesJson(kernel_->GetServiceStats(), writer_->kept(), numbers_)},
              {"xds", XdsJson(source_->status(),
                              certificates_ ? options_.control : options_.xds_plaintext)},
              {"workloads", std::move(workloads)},
              {"workload_file_errors", file_errors_},
              {"certificates", CertificatesJson(certificates_.get())},
              {"processes", std::move(processes)},
              {"splice", SpliceJson(kernel_->GetSpliceStats(), kernel_->splice_is_on())},
              {"binaries", BinariesJson(kernel_->Binaries())},
              {"self_test", SelfTestJson(self_test_)},
              {"learning_error", std::string(kernel_->watching().message())},
              {"verdicts", std::move(verdicts)},
              {"kill_at_connect", kernel_->kills_at_connect() ? "kernel" : "agent"},
              {"events", events_.total()}};
  if (last_nack_) {
    out["xds"]["last_nack"] = {{"resource", ShortType(last_nack_->resource)},
                               {"reason", last_nack_->reason},
                               {"by", last_nack_->who},
                               {"time", last_nack_->time}};
  }
  const json proxy = json::parse(of_proxy, nullptr, false);
  if (proxy.is_object()) {
    out["proxy"] = proxy;
    out["tunnels"] = proxy.value("tunnels", json::array());
  }
  return Dump(out);
}

}  // namespace weft::agent
