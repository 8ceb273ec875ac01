// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/worker.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>

#include "proxy/base/log.h"
#include "proxy/net/deadline.h"
#include "proxy/worker/accept_points.h"
#include "proxy/worker/mesh_connector.h"
#include "proxy/worker/request_log.h"
#include "proxy/worker/worker_state.h"

namespace weft::worker {
namespace {

using Clock = std::chrono::steady_clock;

// Connections of a workload that left may finish for this long: its netns lives as long as we hold
// one.
constexpr std::chrono::seconds kGoneGrace{3};
constexpr std::chrono::seconds kTick{1};

}  // namespace

struct Worker::Parts {
  explicit Parts(WorkerOptions options_in);

  void AdoptNow(std::shared_ptr<const model::Snapshot> snapshot);
  void ShareWith(const std::vector<Worker*>& others, const SharedSockets& sockets);
  void DrainUpstreams(const model::LocalWorkload& workload);
  void CloseUpstreams(const model::LocalWorkload& workload);
  void OnTick();
  Task<void> TickLoop();
  Task<void> DrainAndStop(std::chrono::milliseconds limit);

  WorkerOptions options;
  // Descriptors are touched by the worker's thread only; others may Post(). So no lock for each
  // wait.
  asio::io_context io{BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  std::unique_ptr<net::SocketSource> sockets;
  std::unique_ptr<tls::KeySigner> signer;
  WorkerState state;
  RequestLog requests;
  MeshConnector connector;
  HttpServices http;
  tunnel::TunnelPool tunnels;
  AcceptPoints accepts;
  asio::steady_timer tick;
  struct Gone {
    std::string uid;
    std::shared_ptr<const model::LocalWorkload> workload;  // as it was
    Clock::time_point close_at;
  };
  std::vector<Gone> gone;
  std::vector<Worker*> others;
  bool stopping = false;
  std::thread thread;
};

Worker::Parts::Parts(WorkerOptions options_in)
    : options(std::move(options_in)),
      sockets(options.make_sockets(io.get_executor())),
      signer(options.make_signer ? options.make_signer(io.get_executor()) : nullptr),
      state(io.get_executor(), *sockets, signer.get()),
      requests(state),
      connector(state),
      http(io.get_executor(),
           {.connector = &connector,
            .table = options.table,
            .worker = options.index,
            .seed = options.seed,
            .on_request = [this](const RequestRecord& record) { requests.Add(record); }}),
      tunnels(io.get_executor(), connector,
              {.scratch = state.scratch,
               .on_connection =
                   [this](bool opened) {
                     telemetry::Counters& counters = state.telemetry.counters;
                     if (opened) {
                       counters[telemetry::Counter::kTunnelsOpened].Add();
                       counters[telemetry::Counter::kTunnelsActive].Add();
                     } else {
                       counters[telemetry::Counter::kTunnelsActive].Sub();
                     }
                   },
               .on_stream =
                   [this] { state.telemetry.counters[telemetry::Counter::kTunnelStreams].Add(); }}),
      accepts(state, options.alone, options.index == 0,
              [this](const SharedSockets& shared) { ShareWith(others, shared); }),
      tick(io.get_executor()) {
  state.cluster_id = options.cluster_id;
  state.http = &http;
  state.tunnels = &tunnels;
  state.connector = &connector;
}

void Worker::Parts::AdoptNow(std::shared_ptr<const model::Snapshot> snapshot) {
  if (stopping) return;
  std::shared_ptr<const model::Snapshot> before = state.snapshot;
  state.Adopt(std::move(snapshot));
  accepts.Adopt([this, &before](const std::string& uid, uint32_t id) {
    state.connections.Drain(uid);
    auto found = before->local_workloads.find(uid);
    std::shared_ptr<const model::LocalWorkload> workload;
    if (found != before->local_workloads.end()) workload = found->second;
    if (workload != nullptr) DrainUpstreams(*workload);
    gone.push_back({uid, std::move(workload), Clock::now() + kGoneGrace});
    sockets->Forget(id);
  });
}

// Pooled connections that a workload made: each of their sockets keeps its netns alive.
void Worker::Parts::DrainUpstreams(const model::LocalWorkload& workload) {
  for (const IpAddress& ip : workload.addresses) tunnels.DrainSource(workload.identity, ip);
  http.DrainSource(workload.id, workload.generation);
}

void Worker::Parts::CloseUpstreams(const model::LocalWorkload& workload) {
  for (const IpAddress& ip : workload.addresses) {
    tunnels.CloseDrained(workload.identity, ip, WEFT_R_DRAINING);
  }
}

void Worker::Parts::ShareWith(const std::vector<Worker*>& workers,
                              const SharedSockets& sockets_in) {
  for (Worker* other : workers) {
    SharedSockets copy = sockets_in;
    for (int& fd : copy.fds) fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (std::find(copy.fds.begin(), copy.fds.end(), -1) != copy.fds.end()) {
      LogError("no descriptors left: a worker goes without a listener", {{"name", copy.name}});
      for (int fd : copy.fds) {
        if (fd >= 0) close(fd);
      }
      continue;
    }
    Parts& parts = *other->parts_;
    other->Post([&parts, copy = std::move(copy)] { parts.accepts.Add(copy); });
  }
}

void Worker::Parts::OnTick() {
  tunnels.Sweep();
  accepts.Retry();
  auto now = Clock::now();
  std::erase_if(gone, [&](const Gone& workload) {
    if (workload.close_at > now) return false;
    if (workload.workload != nullptr) CloseUpstreams(*workload.workload);
    // A workload that came back under the same uid keeps its connections: they are of the new
    // generation, or drained anyway.
    if (!state.snapshot->local_workloads.contains(workload.uid)) {
      state.connections.Close(workload.uid, WEFT_R_DRAINING);
      // Once more: a connection that drained may have taken sockets of the netns meanwhile.
      if (workload.workload != nullptr) sockets->Forget(workload.workload->id);
    }
    return true;
  });
}

Task<void> Worker::Parts::TickLoop() {
  while (!stopping) {
    tick.expires_after(kTick);
    auto [error] = co_await tick.async_wait(kAsTuple);
    if (!error && !stopping) OnTick();
  }
}

Task<void> Worker::Parts::DrainAndStop(std::chrono::milliseconds limit) {
  stopping = true;
  state.draining = true;
  accepts.CloseAll();
  state.connections.DrainAll();
  http.StartDrain();
  tick.cancel();
  {
    net::Deadline deadline(state.executor, std::max(limit, std::chrono::milliseconds(1)), [this] {
      state.connections.CloseAll(WEFT_R_DRAINING);
      tunnels.Close(WEFT_R_DRAINING);
    });
    co_await state.gate.Empty();
  }
  co_await http.Shutdown();
  tunnels.Close(WEFT_R_CLOSED);
  co_await tunnels.Closed();
  if (state.connections.size() != 0) WEFT_BUG("connections left after the gate was empty");
  work.reset();
  io.stop();
}

Worker::Worker(WorkerOptions options) : parts_(std::make_unique<Parts>(std::move(options))) {}

Worker::~Worker() {
  if (parts_->thread.joinable()) WEFT_BUG("worker destroyed while it runs");
}

void Worker::Start(std::vector<Worker*> all) {
  std::erase(all, this);
  parts_->others = std::move(all);
  parts_->state.gate.Spawn(parts_->TickLoop());
  parts_->thread = std::thread([parts = parts_.get()] {
    pthread_setname_np(pthread_self(), ("worker-" + std::to_string(parts->options.index)).c_str());
    parts->io.run();
  });
}

void Worker::Post(std::function<void()> function) { asio::post(parts_->io, std::move(function)); }

void Worker::Adopt(std::shared_ptr<const model::Snapshot> snapshot) {
  Post([parts = parts_.get(), snapshot = std::move(snapshot)] { parts->AdoptNow(snapshot); });
}

void Worker::Drain(std::chrono::milliseconds limit) {
  Post([parts = parts_.get(), limit] {
    if (parts->stopping) return;
    asio::co_spawn(parts->io, parts->DrainAndStop(limit), [](std::exception_ptr error) {
      if (error) WEFT_BUG("exception while draining");
    });
  });
}

void Worker::Join() {
  if (parts_->thread.joinable()) parts_->thread.join();
}

const telemetry::WorkerTelemetry& Worker::telemetry() const { return parts_->state.telemetry; }
const HttpCounters& Worker::http_counters() const { return parts_->http.counters(); }

WorkerStatus Worker::Status(uint64_t flows_after) const {
  const WorkerState& state = parts_->state;
  WorkerStatus status{.index = parts_->options.index,
                      .snapshot = state.snapshot->sequence,
                      .in_flight = state.gate.in_flight(),
                      .tunnels = parts_->tunnels.List(),
                      .flows = state.telemetry.flows.Since(flows_after)};
  for (AcceptPoints::Bound& bound : parts_->accepts.bound()) {
    status.listening.push_back({std::move(bound.name), bound.address});
  }
  return status;
}

}  // namespace weft::worker
