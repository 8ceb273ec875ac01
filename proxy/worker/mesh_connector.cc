// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/mesh_connector.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "bpf/abi.h"
#include "proxy/net/dial.h"
#include "proxy/tls/tls_stream.h"

namespace weft::worker {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kConnectTimeout{5000};

int FamilyOf(const IpAddress& ip) { return ip.is_v4() ? AF_INET : AF_INET6; }

milliseconds Left(Clock::time_point until) {
  return std::max(std::chrono::duration_cast<milliseconds>(until - Clock::now()), milliseconds(1));
}

// Tells the kernel programs whom the application shall see. Not an error where they are not there
// (run alone, no stamp).
void AnnounceClient(int fd, const SocketAddress& client) {
  weft_addr addr = {};
  memcpy(addr.ip, client.ip.bytes.data(), sizeof addr.ip);
  addr.port_be = htons(client.port);
  setsockopt(fd, WEFT_SOL, WEFT_SO_CLIENT, &addr, sizeof addr);
}

// A baggage value: what RFC 9110 calls a token is passed, the rest percent-encoded (W3C
// Baggage 3.3.1).
std::string Encode(std::string_view value) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : value) {
    auto byte = static_cast<unsigned char>(c);
    if (isalnum(byte) || strchr("-._~/", c) != nullptr) {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

// The epoch is no end.
tunnel::Expiry EarlierOf(tunnel::Expiry a, tunnel::Expiry b) {
  if (a == tunnel::Expiry{}) return b;
  return b == tunnel::Expiry{} ? a : std::min(a, b);
}

// Of a connection between two workloads of this node; `source` is null where the proxy itself
// calls.
policy::Decision JudgeInPlace(const WorkerState& state, const model::LocalWorkload* source,
                              const IpAddress& client, const SocketAddress& destination) {
  return state.policies.Decide(
      {.source_identity = source != nullptr ? source->identity : std::string_view(),
       .source_ip = client,
       .destination = destination});
}

}  // namespace

bool IsOwnPort(uint16_t port) {
  return port == WEFT_PORT_OUTBOUND || port == WEFT_PORT_INBOUND || port == WEFT_PORT_HBONE ||
         port == WEFT_PORT_DNS;
}

std::string BaggageOf(const model::LocalWorkload& source, const model::Workload* known,
                      const std::string& cluster_id) {
  std::string out;
  auto add = [&out](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    if (!out.empty()) out += ',';
    out += name;
    out += '=';
    out += Encode(value);
  };
  add("k8s.cluster.name", cluster_id);
  add("k8s.namespace.name", source.namespace_name);
  add("k8s.pod.name", source.name);
  if (known != nullptr) {
    add("service.name", known->canonical_name);
    add("service.version", known->canonical_revision);
    add("cloud.region", known->locality.region);
    add("cloud.availability_zone", known->locality.zone);
  }
  return out;
}

Task<tunnel::ServerHandler::App> ConnectToApp(WorkerState& state,
                                              std::shared_ptr<const model::LocalWorkload> workload,
                                              SocketAddress client, SocketAddress destination,
                                              milliseconds timeout) {
  using App = tunnel::ServerHandler::App;
  if (IsOwnPort(destination.port)) co_return App{.reason = WEFT_R_NO_LISTENER};
  net::SocketSource::Result socket =
      co_await state.sockets.Take({.kind = net::SocketKind::kToApp,
                                   .workload = workload->id,
                                   .generation = workload->generation,
                                   .family = FamilyOf(destination.ip)});
  if (socket.fd < 0) co_return App{.reason = socket.reason};
  AnnounceClient(socket.fd, client);
  net::Connected connected =
      co_await net::ConnectFd(state.executor, socket.fd, destination, timeout);
  co_return App{.stream = std::move(connected.stream), .reason = connected.reason};
}

Task<ConnectResult> MeshConnector::Connect(ConnectRequest request) {
  milliseconds timeout =
      request.cluster != nullptr ? request.cluster->connect_timeout : kConnectTimeout;
  if (std::shared_ptr<const model::LocalWorkload> local =
          state_.FindLocal(request.destination.ip)) {
    ConnectResult result = co_await ConnectInPlace(std::move(request), std::move(local), timeout);
    co_return result;
  }
  std::shared_ptr<const model::Snapshot> snapshot =
      state_.snapshot;  // keeps the workload while we wait
  const model::Workload* workload = snapshot->FindWorkload(request.destination.ip);
  if (workload != nullptr && workload->hbone) {
    ConnectResult result = co_await ConnectByTunnel(std::move(request), *workload, timeout);
    co_return result;
  }
  // Of the mesh by its mark, but by no tunnel that we know of: its workload has not come, was
  // refused, has gone or says otherwise. Another endpoint may do.
  if (request.in_mesh || snapshot->IsMarked(request.destination.ip)) {
    co_return ConnectResult{.reason = WEFT_R_PLAINTEXT_REFUSED};
  }
  ConnectResult result = co_await ConnectOutside(std::move(request), timeout);
  co_return result;
}

Task<ConnectResult> MeshConnector::ConnectInPlace(ConnectRequest request,
                                                  std::shared_ptr<const model::LocalWorkload> local,
                                                  milliseconds timeout) {
  policy::Decision decision =
      JudgeInPlace(state_, request.source.get(), request.client.ip, request.destination);
  if (!decision.allowed()) {
    co_return ConnectResult{.reason = decision.reason, .policy = std::move(decision.policy)};
  }
  tunnel::ServerHandler::App app =
      co_await ConnectToApp(state_, local, request.client, request.destination, timeout);
  if (app.stream == nullptr) co_return ConnectResult{.reason = app.reason};
  // Pooled or long: judged again when policies change, and gone with the workload it leads to.
  auto judge = [&state = state_, source = request.source, client = request.client.ip,
                destination = request.destination] {
    if (!state.Knows(destination.ip)) return Reason{WEFT_R_NONE};
    return JudgeInPlace(state, source.get(), client, destination).reason;
  };
  co_return ConnectResult{
      .stream = std::make_unique<MemberStream>(state_.connections, local->uid,
                                               std::move(app.stream), std::move(judge)),
      .reason = WEFT_R_NONE,
      .peer_identity = local->identity};
}

Task<ConnectResult> MeshConnector::ConnectByTunnel(ConnectRequest request,
                                                   const model::Workload& workload,
                                                   milliseconds timeout) {
  if (request.source == nullptr) co_return ConnectResult{.reason = WEFT_R_NO_CERTIFICATE};
  Reason permitted = co_await state_.permits.Ask(request.source, request.destination);
  if (permitted != WEFT_R_NONE) co_return ConnectResult{.reason = permitted};
  IpAddress source_address = WorkerState::AddressOf(*request.source, request.destination.ip);
  tunnel::TunnelRequest tunnel{
      .source = request.source,
      .source_address = source_address,
      .destination_identity = workload.Identity(),
      .destination = request.destination,
      .client = request.client,
      .baggage = BaggageOf(*request.source, state_.snapshot->FindWorkload(source_address),
                           state_.cluster_id),
      .timeout = timeout};
  tunnel::TunnelResult result = co_await state_.tunnels->Connect(std::move(tunnel));
  auto judge = [&state = state_, source = request.source, destination = request.destination] {
    return state.permits.AskAgain(*source, destination);
  };
  if (result.stream != nullptr) {
    // From here on it is asked when policy changes; what changed until now has not been.
    permitted = judge();
    if (permitted != WEFT_R_NONE) co_return ConnectResult{.reason = permitted};
    result.stream = std::make_unique<MemberStream>(state_.connections, request.source->uid,
                                                   std::move(result.stream), std::move(judge));
  }
  co_return ConnectResult{.stream = std::move(result.stream),
                          .reason = result.reason,
                          .policy = std::move(result.policy),
                          .peer_identity = std::move(result.peer_identity),
                          .expiry = result.expiry};
}

std::shared_ptr<const tls::TlsContext> MeshConnector::UpstreamContext(
    const model::Cluster& cluster) const {
  auto bundle = state_.snapshot->trust_bundles.find(cluster.tls->validation_context);
  if (bundle == state_.snapshot->trust_bundles.end()) return nullptr;
  tls::ClientTlsOptions options{.server_name = cluster.tls->sni};
  for (const std::string& root : bundle->second->roots)
    options.roots_pem += tls::CertificateToPem(root);
  if (cluster.http == model::HttpVersion::kHttp1) options.alpn = {"http/1.1"};
  auto context = tls::TlsContext::Client(options);
  return context.ok() ? *std::move(context) : nullptr;
}

Task<ConnectResult> MeshConnector::ConnectOutside(ConnectRequest request, milliseconds timeout) {
  Clock::time_point until = Clock::now() + timeout;
  net::SocketRequest wanted{.kind = net::SocketKind::kHost,
                            .family = FamilyOf(request.destination.ip)};
  if (request.source != nullptr) {
    wanted.kind = net::SocketKind::kTunnel;
    wanted.workload = request.source->id;
    wanted.generation = request.source->generation;
  }
  std::shared_ptr<const tls::TlsContext> context;
  tls::TlsClientOptions tls_options;
  if (request.cluster != nullptr && request.cluster->tls) {
    context = UpstreamContext(*request.cluster);
    if (context == nullptr) co_return ConnectResult{.reason = WEFT_R_CERT_UNTRUSTED};
  }
  net::SocketSource::Result socket = co_await state_.sockets.Take(wanted);
  if (socket.fd < 0) co_return ConnectResult{.reason = socket.reason};
  net::Connected connected =
      co_await net::ConnectFd(state_.executor, socket.fd, request.destination, Left(until));
  if (connected.stream == nullptr || context == nullptr) {
    co_return ConnectResult{.stream = std::move(connected.stream), .reason = connected.reason};
  }
  tls_options.timeout = Left(until);
  tls::HandshakeResult handshake =
      co_await tls::TlsConnect(state_.executor, std::move(connected.stream), context, tls_options);
  co_return ConnectResult{.stream = std::move(handshake.stream),
                          .reason = handshake.reason,
                          .peer_identity = std::move(handshake.peer_identity)};
}

Task<tunnel::DialResult> MeshConnector::Dial(tunnel::TunnelKey key,
                                             std::shared_ptr<const model::LocalWorkload> source,
                                             milliseconds timeout) {
  Clock::time_point until = Clock::now() + timeout;
  std::shared_ptr<const tls::TlsContext> context = state_.certs.Find(key.source_identity);
  if (context == nullptr || source == nullptr)
    co_return tunnel::DialResult{.reason = state_.certs.WhyNot(key.source_identity)};
  const tunnel::Expiry own_expiry = state_.certs.ExpiryOf(key.source_identity);
  if (tunnel::IsOver(own_expiry, std::chrono::system_clock::now()))
    co_return tunnel::DialResult{.reason = WEFT_R_CERT_EXPIRED};
  net::SocketSource::Result socket =
      co_await state_.sockets.Take({.kind = net::SocketKind::kTunnel,
                                    .workload = source->id,
                                    .generation = source->generation,
                                    .family = FamilyOf(key.destination)});
  if (socket.fd < 0) co_return tunnel::DialResult{.reason = socket.reason};
  net::Connected connected = co_await net::ConnectFd(
      state_.executor, socket.fd, SocketAddress{key.destination, WEFT_PORT_HBONE}, Left(until));
  if (connected.stream == nullptr) co_return tunnel::DialResult{.reason = connected.reason};
  tls::TlsClientOptions options{.expected_identities = {key.destination_identity},
                                .timeout = Left(until)};
  tls::HandshakeResult handshake = co_await tls::TlsConnect(
      state_.executor, std::move(connected.stream), context, std::move(options));
  co_return tunnel::DialResult{.stream = std::move(handshake.stream),
                               .reason = handshake.reason,
                               .peer_identity = std::move(handshake.peer_identity),
                               .expiry = EarlierOf(own_expiry, handshake.peer_expiry)};
}

}  // namespace weft::worker
