// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/inbound.h"

#include <algorithm>
#include <utility>

#include "proxy/net/deadline.h"
#include "proxy/net/pump.h"
#include "proxy/tls/tls_stream.h"
#include "proxy/tunnel/server.h"
#include "proxy/worker/mesh_connector.h"

namespace weft::worker {
namespace {

constexpr std::chrono::milliseconds kAppConnectTimeout{5000};
constexpr std::chrono::milliseconds kIdleTimeout{3600 * 1000};

// The workload of one HBONE connection, as it was when the connection came; policies are today's.
class WorkloadHandler final : public tunnel::ServerHandler {
 public:
  WorkloadHandler(WorkerState& state, std::shared_ptr<const model::LocalWorkload> workload)
      : state_(state), workload_(std::move(workload)) {}

  bool Serves(const SocketAddress& destination) const override {
    const auto& ips = workload_->addresses;
    return !IsOwnPort(destination.port) &&
           std::find(ips.begin(), ips.end(), destination.ip) != ips.end();
  }
  policy::Decision Decide(const policy::Connection& connection) const override {
    return state_.policies.Decide(connection);
  }
  Task<App> ConnectApp(SocketAddress client, SocketAddress destination) override {
    App app = co_await ConnectToApp(state_, workload_, client, destination, kAppConnectTimeout);
    co_return app;
  }
  void OnStreamStart() override {
    state_.telemetry.counters[telemetry::Counter::kInboundStreams].Add();
    state_.telemetry.counters[telemetry::Counter::kInboundActive].Add();
  }
  void OnStreamEnd(const tunnel::ServedStream& stream) override {
    state_.telemetry.counters[telemetry::Counter::kInboundActive].Sub();
    state_.Record({.kind = telemetry::FlowKind::kInboundTunnel,
                   .source = stream.client,
                   .destination = stream.destination,
                   .upstream = stream.destination,
                   .source_identity = stream.peer_identity,
                   .destination_identity = workload_->identity,
                   .workload = workload_->uid,
                   .policy = stream.decision.policy,
                   .sent_bytes = stream.sent_bytes,
                   .received_bytes = stream.received_bytes,
                   .reason = stream.reason,
                   .mutual_tls = true},
                  stream.started);
  }

 private:
  WorkerState& state_;
  std::shared_ptr<const model::LocalWorkload> workload_;
};

// Whether a plaintext connection may be, today. STRICT is a policy, too: one that denies whoever
// has no identity.
policy::Decision JudgePlaintext(const WorkerState& state, const InboundArgs& args) {
  return state.policies.Decide({.source_ip = args.peer.ip, .destination = args.destination});
}

telemetry::FlowRecord RecordOf(const InboundArgs& args, telemetry::FlowKind kind) {
  return {.kind = kind,
          .source = args.peer,
          .destination = args.destination,
          .upstream = args.destination,
          .destination_identity = args.workload->identity,
          .workload = args.workload->uid};
}

}  // namespace

Task<void> ServeInboundTunnel(WorkerState& state, InboundArgs args) {
  auto started = std::chrono::steady_clock::now();
  tls::HandshakeResult handshake;
  std::shared_ptr<const tls::TlsContext> context = state.certs.Find(args.workload->identity);
  if (context == nullptr) {
    handshake.reason = state.certs.WhyNot(args.workload->identity);
    args.stream->Close(handshake.reason);
  } else {
    handshake = co_await tls::TlsAccept(state.executor, std::move(args.stream), std::move(context));
  }
  if (handshake.stream == nullptr) {
    telemetry::FlowRecord record = RecordOf(args, telemetry::FlowKind::kInboundTunnel);
    record.reason = handshake.reason;
    state.Record(std::move(record), started);
    co_return;
  }
  state.telemetry.counters[telemetry::Counter::kTunnelsAccepted].Add();
  telemetry::Active active(state.telemetry.counters[telemetry::Counter::kTunnelsServed]);
  WorkloadHandler handler(state, args.workload);
  tunnel::TunnelServer server(handler, {.executor = state.executor,
                                        .stream = std::move(handshake.stream),
                                        .peer_identity = std::move(handshake.peer_identity),
                                        .peer = args.peer,
                                        .scratch = state.scratch});
  ConnectionSet::Membership member(state.connections,
                                   {.workload = args.workload->uid,
                                    .close = [&server](Reason reason) { server.Close(reason); },
                                    .drain = [&server] { server.StartDrain(); },
                                    .recheck =
                                        [&] {
                                          const auto& ips = args.workload->addresses;
                                          if (!ips.empty() && state.Knows(ips[0])) server.Recheck();
                                        }});
  // Whoever comes with more after that shows a new certificate.
  const net::Deadline expired(state.executor, tunnel::UntilExpiry(handshake.peer_expiry),
                              [&server] { server.StartDrain(); });
  if (state.draining) server.StartDrain();
  Reason reason = co_await server.Serve();
  state.telemetry.counters.Closed(reason);
}

Task<void> ServeInboundPlaintext(WorkerState& state, InboundArgs args) {
  auto started = std::chrono::steady_clock::now();
  state.telemetry.counters[telemetry::Counter::kPlaintextConnections].Add();
  telemetry::Active active(state.telemetry.counters[telemetry::Counter::kPlaintextActive]);
  telemetry::FlowRecord record = RecordOf(args, telemetry::FlowKind::kInboundPlaintext);
  policy::Decision decision = JudgePlaintext(state, args);
  tunnel::ServerHandler::App app{.stream = nullptr, .reason = decision.reason};
  auto recheck = [&] {
    policy::Decision again = JudgePlaintext(state, args);
    if (again.allowed() || !state.Knows(args.destination.ip)) return;
    decision = std::move(again);
    args.stream->Close(decision.reason);
  };
  ConnectionSet::Membership member(state.connections,
                                   {.workload = args.workload->uid,
                                    .close = [&args](Reason reason) { args.stream->Close(reason); },
                                    .drain = nullptr,
                                    .recheck = recheck});
  if (decision.allowed()) {
    app = co_await ConnectToApp(state, args.workload, args.peer, args.destination,
                                kAppConnectTimeout);
  }
  if (app.stream == nullptr) {
    args.stream->Close(app.reason);
    record.reason = app.reason;
  } else {
    net::PumpResult result =
        co_await net::Pump(*args.stream, *app.stream, {.idle_timeout = kIdleTimeout});
    record.sent_bytes = result.to_upstream_bytes;
    record.received_bytes = result.to_downstream_bytes;
    record.reason = result.reason;
  }
  record.policy = std::move(decision.policy);
  state.Record(std::move(record), started);
}

}  // namespace weft::worker
