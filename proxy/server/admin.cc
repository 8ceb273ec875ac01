// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/admin.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "proxy/net/deadline.h"
#include "proxy/server/status_json.h"
#include "proxy/telemetry/prometheus.h"
#include "proxy/upstream/status.h"

namespace weft::server {
namespace {

using nlohmann::json;

// A worker that has drained its last connection has ended and answers nothing any more.
constexpr std::chrono::milliseconds kWorkerAnswers{1000};
constexpr char kText[] = "text/plain; charset=utf-8";
constexpr char kJson[] = "application/json";
constexpr char kHelp[] =
    "GET  /ready             200 once the first configuration is in use, else 503\n"
    "GET  /stats/prometheus  metrics\n"
    "GET  /clusters          upstreams (?format=json)\n"
    "GET  /config_dump       resources and their versions\n"
    "GET  /listeners         what is listened on\n"
    "GET  /certs             certificates in use\n"
    "GET  /status            everything weft status shows\n"
    "GET  /flows             the last connections and requests\n"
    "POST /drain             let connections finish, then end\n"
    "POST /quitquitquit      the same\n";

std::string Pretty(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

void AppendHttp(std::string& out, const std::vector<std::unique_ptr<worker::Worker>>& workers) {
  auto sum = [&](std::atomic<uint64_t> worker::HttpCounters::* field) {
    uint64_t total = 0;
    for (const auto& worker : workers)
      total += (worker->http_counters().*field).load(std::memory_order_relaxed);
    return total;
  };
  using C = worker::HttpCounters;
  auto add = [&](const char* name, const char* type, const char* help,
                 std::atomic<uint64_t> C::* field) {
    telemetry::AppendMetric(out, name, type, help, sum(field));
  };
  add("weft_http_downstream_connections_total", "counter", "HTTP connections accepted",
      &C::downstream_connections);
  add("weft_http_downstream_connections_active", "gauge", "HTTP connections now open",
      &C::downstream_active);
  add("weft_http_requests_total", "counter", "requests", &C::requests);
  add("weft_http_requests_active", "gauge", "requests now in flight", &C::requests_active);
  add("weft_http_upstream_connections_total", "counter", "upstream connections made",
      &C::upstream_connections);
  add("weft_http_upstream_connections_active", "gauge", "upstream connections now open",
      &C::upstream_active);
  add("weft_http_upstream_connect_failures_total", "counter", "connects failed",
      &C::upstream_connect_failures);
  add("weft_http_retries_total", "counter", "attempts repeated", &C::retries);
  add("weft_http_retries_succeeded_total", "counter", "requests that a retry saved",
      &C::retries_succeeded);
  add("weft_http_retries_refused_total", "counter", "retries a budget or breaker refused",
      &C::retries_refused);
  add("weft_http_timeouts_total", "counter", "requests timed out", &C::timeouts);
  add("weft_http_protocol_errors_total", "counter", "connections that broke HTTP",
      &C::protocol_errors);
}

}  // namespace

Admin::Admin(AdminView view, int listen_fd)
    : view_(std::move(view)),
      server_(view_.executor, listen_fd,
              [this](const ipc::LocalRequest& request, const ipc::Responder& responder) {
                Handle(request, responder);
              }) {}

void Admin::Handle(const ipc::LocalRequest& request, const ipc::Responder& responder) {
  bool post = request.method == "POST";
  if (post && (request.path == "/quitquitquit" || request.path == "/drain")) {
    responder.Send(200, kText, "OK\n");
    view_.drain();
  } else if (request.method != "GET") {
    responder.Send(405, kText, "not allowed\n");
  } else if (request.path == "/") {
    responder.Send(200, kText, kHelp);
  } else if (request.path == "/ready") {
    Ready(responder);
  } else if (request.path == "/stats/prometheus" || request.path == "/metrics") {
    responder.Send(200, "text/plain; version=0.0.4; charset=utf-8", Metrics());
  } else if (request.path == "/clusters") {
    Clusters(request, responder);
  } else if (request.path == "/config_dump") {
    responder.Send(200, kJson, ConfigDump());
  } else if (request.path == "/certs") {
    responder.Send(200, kJson, Certificates());
  } else if (request.path == "/status") {
    AskWorkers(0, responder, [this](const auto& workers) { return Status(workers); });
  } else if (request.path == "/listeners") {
    AskWorkers(UINT64_MAX, responder,
               [](const auto& workers) { return Pretty(ListeningJson(workers)); });
  } else if (request.path == "/flows") {
    AskWorkers(0, responder, [](const auto& workers) { return Pretty(FlowsJson(workers)); });
  } else {
    responder.Send(404, kText, std::string("no such page\n\n") + kHelp);
  }
}

void Admin::Ready(const ipc::Responder& responder) const {
  if (view_.draining()) {
    responder.Send(503, kText, "DRAINING\n");
  } else if (view_.source->current() == nullptr) {
    responder.Send(503, kText, "PRE_INITIALIZING\n");
  } else {
    responder.Send(200, kText, "LIVE\n");
  }
}

std::string Admin::Metrics() const {
  std::vector<const telemetry::WorkerTelemetry*> workers;
  for (const auto& worker : *view_.workers) workers.push_back(&worker->telemetry());
  std::string out = telemetry::PrometheusText(workers);
  AppendHttp(out, *view_.workers);
  xds::ClientStatus status = view_.source->status();
  uint64_t updates = 0, nacks = 0;
  for (const xds::TypeStatus& type : status.types) {
    updates += type.updates;
    nacks += type.nacks;
  }
  telemetry::AppendMetric(out, "weft_xds_connected", "gauge", "1: the xDS stream is open",
                          status.connected);
  telemetry::AppendMetric(out, "weft_xds_updates_total", "counter", "xDS responses taken", updates);
  telemetry::AppendMetric(out, "weft_xds_nacks_total", "counter",
                          "xDS responses refused, wholly or in part", nacks);
  return out;
}

void Admin::Clusters(const ipc::LocalRequest& request, const ipc::Responder& responder) const {
  std::vector<upstream::ClusterStatus> clusters;
  if (auto snapshot = view_.source->current()) {
    clusters = upstream::Status(*view_.table, *snapshot, std::chrono::steady_clock::now());
  }
  if (request.query == "format=json") {
    responder.Send(200, kJson, Pretty(ClustersJson(clusters)));
  } else {
    responder.Send(200, kText, ClustersText(clusters));
  }
}

std::string Admin::ConfigDump() const {
  json out = json::object();
  for (const auto& [type, names] : *view_.versions) {
    json& resources = out[type] = json::array();
    for (const auto& [name, version] : names)
      resources.push_back({{"name", name}, {"version", version}});
  }
  return Pretty(out);
}

std::string Admin::Certificates() const {
  auto snapshot = view_.source->current();
  return Pretty(snapshot ? CertificatesJson(*snapshot) : json::array());
}

void Admin::AskWorkers(uint64_t flows_after, const ipc::Responder& responder, Render render) const {
  // Lives and dies on main: the responder is for its thread only.
  struct Gathered {
    ipc::Responder responder;
    Render render;
    size_t missing;
    std::vector<worker::WorkerStatus> answers{};
    std::optional<net::Deadline> limit{};
    void Answer() { responder.Send(200, kJson, render(answers)); }  // only the first one counts
  };
  auto gathered = std::make_shared<Gathered>(responder, std::move(render), view_.workers->size());
  gathered->limit.emplace(view_.executor, kWorkerAnswers,
                          [gathered = gathered.get()] { gathered->Answer(); });
  for (const auto& worker : *view_.workers) {
    // On the worker: copy. On main: collect; the last one answers. The worker hands its reference
    // on, so that it is never the one that lets the last go.
    worker->Post([this, gathered, flows_after, from = worker.get()]() mutable {
      worker::WorkerStatus status = from->Status(flows_after);
      asio::post(view_.executor,
                 [gathered = std::move(gathered), status = std::move(status)]() mutable {
                   gathered->answers.push_back(std::move(status));
                   if (--gathered->missing == 0) gathered->Answer();
                 });
    });
  }
}

std::string Admin::Status(const std::vector<worker::WorkerStatus>& workers) const {
  auto uptime = std::chrono::steady_clock::now() - started_;
  json out{{"pid", getpid()},
           {"node", view_.node},
           {"trust_domain", view_.trust_domain},
           {"uptime_s", std::chrono::duration_cast<std::chrono::seconds>(uptime).count()},
           {"draining", view_.draining()},
           {"xds", XdsJson(view_.source->status(), view_.source->warming())},
           {"workers", WorkersJson(workers)},
           {"listeners", ListeningJson(workers)},
           {"tunnels", TunnelsJson(workers)},
           {"flows", FlowsJson(workers)}};
  if (auto snapshot = view_.source->current()) {
    out["snapshot"] = snapshot->sequence;
    out["workloads"] = WorkloadsJson(*snapshot, workers);
    out["certificates"] = CertificatesJson(*snapshot);
    out["clusters"] =
        ClustersJson(upstream::Status(*view_.table, *snapshot, std::chrono::steady_clock::now()));
  }
  return Pretty(out);
}

}  // namespace weft::server
