// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/tcp_downstream.h"

#include <algorithm>
#include <utility>

#include "proxy/net/pump.h"

namespace weft::worker {
namespace {

constexpr std::chrono::milliseconds kPassThroughIdle{3600 * 1000};

const std::string* ChooseCluster(const model::TcpFilterChain& chain, upstream::Random& random) {
  if (chain.clusters.empty()) return nullptr;
  if (chain.clusters.size() == 1) return &chain.clusters[0].cluster;
  uint64_t total = 0;
  for (const model::WeightedCluster& cluster : chain.clusters) total += cluster.weight;
  uint64_t at = random.Below(total);
  for (const model::WeightedCluster& cluster : chain.clusters) {
    if (at < cluster.weight) return &cluster.cluster;
    at -= cluster.weight;
  }
  return &chain.clusters.back().cluster;
}

// The kernel's choice, if the cluster has it and has not ejected it.
upstream::HostRef FindPicked(upstream::ClusterState& cluster, const SocketAddress& picked) {
  if (picked.port == 0) return {};
  for (const upstream::HostRef& host : cluster.hosts()) {
    if (host->address() == picked && !host->ejected()) return host;
  }
  return {};
}

upstream::Outcome OutcomeOf(const ConnectResult& result) {
  if (result.stream != nullptr) return upstream::Outcome::kSuccess;
  return result.reason == WEFT_R_CONNECT_TIMEOUT ? upstream::Outcome::kTimeout
                                                 : upstream::Outcome::kConnectFailure;
}

// What another endpoint might not have: a policy or our own missing certificate would fail there
// too.
bool MayTryElsewhere(Reason reason) {
  switch (reason) {
    case WEFT_R_POLICY_DENIED:
    case WEFT_R_POLICY_DEFAULT_DENIED:
    case WEFT_R_NO_CERTIFICATE:
    case WEFT_R_DRAINING:
    case WEFT_R_SOCKETS_UNAVAILABLE:
      return false;
    default:
      return true;
  }
}

}  // namespace

TcpUpstream::~TcpUpstream() {
  if (host_) host_->End();
  if (admitted_) admitted_->Release(upstream::Limit::kConnections);
}

std::chrono::milliseconds TcpIdleTimeout(const TcpDownstreamArgs& args) {
  return args.listener != nullptr && args.listener->tcp ? args.listener->tcp->idle_timeout
                                                        : kPassThroughIdle;
}

Task<TcpUpstream> OpenTcpUpstream(WorkerState& state, TcpDownstreamArgs args) {
  TcpUpstream result;
  ConnectRequest request{
      .source = args.source, .client = args.client, .destination = args.original_destination};
  if (args.listener == nullptr || !args.listener->tcp) {
    if (args.picked.port != 0) {
      request.destination = args.picked;
    } else if (state.snapshot->IsServiceAddress(request.destination.ip)) {
      // Its listener has not come, or it has no such port. Passed on, whoever else resolves
      // service addresses here would take it to a pod in plaintext.
      result.reason = WEFT_R_NO_LISTENER;
      co_return result;
    }
    result.address = request.destination;
    ConnectResult connected = co_await state.connector->Connect(std::move(request));
    result.stream = std::move(connected.stream);
    result.reason = connected.reason;
    result.policy = std::move(connected.policy);
    result.peer_identity = std::move(connected.peer_identity);
    co_return result;
  }
  const model::TcpFilterChain& chain = *args.listener->tcp;
  const std::string* name = ChooseCluster(chain, state.http->random());
  upstream::ClusterRef cluster =
      name == nullptr ? upstream::ClusterRef() : state.http->clusters().Find(*name);
  if (!cluster) {
    result.reason = WEFT_R_NO_CLUSTER;
    co_return result;
  }
  result.cluster = *name;
  if (!cluster->TryAdmit(upstream::Limit::kConnections)) {
    result.reason = WEFT_R_OVERFLOW_CONNECTIONS;
    co_return result;
  }
  result.admitted_ = cluster;
  request.cluster = cluster->shared_config();
  std::vector<upstream::HostRef> tried;
  result.reason = WEFT_R_NO_HEALTHY_UPSTREAM;
  for (uint32_t attempt = 0; attempt < std::max(1u, chain.max_connect_attempts); ++attempt) {
    upstream::HostRef host = attempt == 0 ? FindPicked(*cluster, args.picked) : upstream::HostRef();
    if (!host) host = cluster->Pick(state.http->random(), tried, 3, &args.original_destination);
    if (!host) break;
    if (attempt > 0) state.telemetry.counters[telemetry::Counter::kConnectRetries].Add();
    request.destination = host->address();
    request.in_mesh = host->endpoint().in_mesh;
    result.address = host->address();
    host->Begin();
    result.host_ = host;
    ConnectResult connected = co_await state.connector->Connect(request);
    cluster->Report(*host, OutcomeOf(connected), state.http->now(), state.http->random());
    result.stream = std::move(connected.stream);
    result.reason = connected.reason;
    result.policy = std::move(connected.policy);
    result.peer_identity = std::move(connected.peer_identity);
    if (result.stream != nullptr) break;
    host->End();
    result.host_ = {};
    if (!MayTryElsewhere(result.reason)) break;
    tried.push_back(host);
  }
  co_return result;
}

telemetry::FlowRecord TcpRecord(const TcpDownstreamArgs& args, const TcpUpstream& upstream) {
  telemetry::FlowRecord record{.kind = telemetry::FlowKind::kOutboundTcp,
                               .source = args.client,
                               .destination = args.original_destination,
                               .upstream = upstream.address,
                               .destination_identity = upstream.peer_identity,
                               .policy = upstream.policy,
                               .reason = upstream.reason,
                               .mutual_tls = !upstream.peer_identity.empty()};
  if (args.source != nullptr) {
    record.source_identity = args.source->identity;
    record.workload = args.source->uid;
  }
  return record;
}

Task<void> ServeTcp(WorkerState& state, std::unique_ptr<net::Stream> stream,
                    TcpDownstreamArgs args) {
  auto started = std::chrono::steady_clock::now();
  net::Stream* downstream = stream.get();
  ConnectionSet::Membership member(
      state.connections, {.workload = args.source ? args.source->uid : std::string(),
                          .close = [downstream](Reason reason) { downstream->Close(reason); }});
  TcpUpstream upstream = co_await OpenTcpUpstream(state, args);
  telemetry::FlowRecord record = TcpRecord(args, upstream);
  if (upstream.stream != nullptr) {
    net::PumpResult result =
        co_await net::Pump(*stream, *upstream.stream, {.idle_timeout = TcpIdleTimeout(args)});
    record.sent_bytes = result.to_upstream_bytes;
    record.received_bytes = result.to_downstream_bytes;
    record.reason = result.reason;
  } else {
    stream->Close(upstream.reason);
  }
  state.Record(std::move(record), started);
}

}  // namespace weft::worker
