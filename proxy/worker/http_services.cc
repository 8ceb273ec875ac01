// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/http_services.h"

#include <algorithm>

#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/route/router.h"
#include "proxy/worker/exchange.h"
#include "proxy/worker/http_downstream_connection.h"
#include "proxy/worker/http_pool.h"
#include "proxy/worker/http_state.h"

namespace weft::worker {
namespace {

// How often ejected endpoints and unused pools are looked at: often only while there is one to
// return.
constexpr std::chrono::milliseconds kSweepSoon{100};
constexpr std::chrono::milliseconds kSweepIdle{1000};

}  // namespace

HttpServicesState::HttpServicesState(asio::any_io_executor executor_in,
                                     HttpServicesOptions options_in)
    : executor(std::move(executor_in)),
      options(std::move(options_in)),
      clusters(*options.table, options.worker),
      random(options.seed),
      wheel(options.clock ? options.clock() : std::chrono::steady_clock::now()),
      task_ended(executor),
      driver_(executor),
      sweep_timer_([](void* self) { static_cast<HttpServicesState*>(self)->Sweep(); }, this) {
  UpdateNow();
  SetTimer(sweep_timer_, now + kSweepIdle);
}

HttpServicesState::~HttpServicesState() {
  if (tasks != 0) WEFT_BUG("HTTP connections outlive their services");
}

void HttpServicesState::SetTimer(WheelTimer& timer, TimePoint due) {
  if (wheel.Set(timer, due)) ArmDriver();
}

// With a test's own clock nobody ticks but the test.
void HttpServicesState::ArmDriver() {
  const std::optional<TimePoint> wake = wheel.NextWake();
  if (options.clock || !wake || *wake >= driver_due_) return;
  driver_due_ = *wake;
  driver_.expires_at(*wake);
  driver_.async_wait([this](const boost::system::error_code& error) { OnDriver(error); });
}

void HttpServicesState::OnDriver(const boost::system::error_code& error) {
  if (error) return;  // set anew, or the end
  driver_due_ = TimePoint::max();
  Tick();
  ArmDriver();
}

void HttpServicesState::Tick() {
  UpdateNow();
  wheel.Advance(now);
  FlushDirty();
}

void HttpServicesState::StopTimers() {
  sweep_timer_.Clear();
  driver_.cancel();
}

void HttpServicesState::Sweep() {
  const bool ejected = clusters.Sweep(now);
  SweepPools();
  SetTimer(sweep_timer_, now + (ejected ? kSweepSoon : kSweepIdle));
}

void HttpServicesState::MarkDirty(HttpConnection& connection) {
  if (connection.dirty_) return;
  connection.dirty_ = true;
  dirty_.push_back(&connection);
}

void HttpServicesState::Forget(HttpConnection& connection) {
  if (!connection.dirty_) return;
  std::replace(dirty_.begin(), dirty_.end(), &connection, static_cast<HttpConnection*>(nullptr));
}

void HttpServicesState::FlushDirty() {
  if (flushing_) return;  // the outer call sees what was added
  flushing_ = true;
  for (size_t i = 0; i < dirty_.size(); ++i) {  // grows while it runs
    HttpConnection* connection = dirty_[i];
    if (connection == nullptr) continue;
    connection->dirty_ = false;
    dirty_[i] = nullptr;
    if (connection->closed()) continue;
    connection->TakeWaitingInput();
    connection->Flush();
  }
  dirty_.clear();
  for (Exchange* exchange : ended_) {
    exchange->Reset();
    free_.push_back(exchange);
  }
  ended_.clear();
  flushing_ = false;
}

Exchange* HttpServicesState::NewExchange() {
  if (free_.empty()) {
    exchanges_.push_back(std::make_unique<Exchange>(*this));
    return exchanges_.back().get();
  }
  Exchange* exchange = free_.back();
  free_.pop_back();
  return exchange;
}

void HttpServicesState::Recycle(Exchange* exchange) { ended_.push_back(exchange); }

std::shared_ptr<const route::Router> HttpServicesState::RouterFor(
    const std::shared_ptr<const model::RouteConfiguration>& config) {
  if (auto it = routers_.find(config.get()); it != routers_.end()) return it->second.router;
  auto router = route::Router::Create(config);
  if (!router.ok()) {
    // The decoder refuses what cannot be compiled, so this was not decoded.
    LogError("route configuration does not compile",
             {{"name", config->name}, {"error", std::string(StdView(router.status().message()))}});
  }
  CompiledRoutes& compiled = routers_[config.get()];
  compiled.config = config;
  if (router.ok()) compiled.router = *std::move(router);
  return compiled.router;
}

// The router keeps its configuration, too: two references are ours.
void HttpServicesState::ForgetRouters() {
  std::erase_if(routers_, [](const auto& entry) { return entry.second.config.use_count() <= 2; });
}

HttpPool& HttpServicesState::PoolFor(const HttpPoolKey& key, Exchange& exchange) {
  if (auto it = pools.find(key); it != pools.end()) return *it->second;
  const HttpDownstreamArgs& args = exchange.downstream().args();
  auto pool = std::make_unique<HttpPool>(*this, key, exchange.cluster(), exchange.host(),
                                         args.source, args.client);
  return *pools.emplace(key, std::move(pool)).first->second;
}

void HttpServicesState::SweepPools() {
  for (auto it = pools.begin(); it != pools.end();) {
    if (it->second->removed()) it->second->Drain();
    it = it->second->unused() ? pools.erase(it) : std::next(it);
  }
}

HttpServices::HttpServices(asio::any_io_executor executor, HttpServicesOptions options)
    : state_(std::make_unique<HttpServicesState>(std::move(executor), std::move(options))) {}

HttpServices::~HttpServices() = default;

void HttpServices::Adopt(std::shared_ptr<const model::Snapshot> snapshot) {
  state_->snapshot = snapshot;
  state_->ForgetRouters();
  state_->clusters.Adopt(snapshot);
  state_->SweepPools();
  for (auto& [key, pool] : state_->pools) pool->DrainPlaintext(*snapshot);
}

void HttpServices::DrainSource(uint32_t workload, uint32_t generation) {
  for (auto& [key, pool] : state_->pools) {
    if (key.workload == workload && key.generation == generation) pool->Drain();
  }
}

void HttpServices::StartDrain() {
  state_->draining = true;
  for (DownstreamConnection* connection : state_->downstreams) connection->StartDrain();
  state_->FlushDirty();
}

Task<void> HttpServices::Shutdown() {
  HttpServicesState& state = *state_;
  state.stopping = state.draining = true;
  const std::vector<DownstreamConnection*> connections = state.downstreams;
  for (DownstreamConnection* connection : connections) connection->Close(WEFT_R_DRAINING);
  for (auto& [key, pool] : state.pools) pool->CloseAll(WEFT_R_DRAINING);
  while (state.tasks > 0) {
    co_await state.task_ended.Wait();
    // A connect that was under way when we began has become a connection.
    for (auto& [key, pool] : state.pools) pool->CloseAll(WEFT_R_DRAINING);
  }
  state.FlushDirty();
  state.StopTimers();
  state.pools.clear();
  state.clusters.Clear();
}

upstream::ClusterMap& HttpServices::clusters() { return state_->clusters; }
upstream::Random& HttpServices::random() { return state_->random; }
TimePoint HttpServices::now() const {
  return state_->options.clock ? state_->options.clock() : std::chrono::steady_clock::now();
}
const HttpCounters& HttpServices::counters() const { return state_->counters; }
size_t HttpServices::downstream_connections() const { return state_->downstreams.size(); }
void HttpServices::Tick() { state_->Tick(); }

}  // namespace weft::worker
