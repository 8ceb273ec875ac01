// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/outbound.h"

#include <linux/netfilter_ipv4.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "bpf/abi.h"
#include "proxy/worker/detect_downstream.h"
#include "proxy/worker/http_downstream.h"

namespace weft::worker {
namespace {

// A downstream that connects and says nothing: as long as Envoy keeps an idle TCP connection.
constexpr std::chrono::milliseconds kFirstByteLimit{3600 * 1000};

SocketAddress FromAbi(const weft_addr& addr) {
  SocketAddress result;
  memcpy(result.ip.bytes.data(), addr.ip, sizeof addr.ip);
  result.port = ntohs(addr.port_be);
  return result;
}

HttpDownstreamArgs HttpArgs(OutboundArgs& args, FirstBytes first) {
  return {.stream = std::move(args.stream),
          .first_bytes = std::move(first.bytes),
          .http2 = first.protocol == http::Protocol::kHttp2,
          .source = args.source,
          .client = args.client,
          .original_destination = args.original.destination,
          .client_identity = args.source ? args.source->identity : std::string(),
          .listener = args.listener};
}

TcpDownstreamArgs TcpArgs(const OutboundArgs& args) {
  return {.source = args.source,
          .client = args.client,
          .original_destination = args.original.destination,
          .picked = args.original.picked,
          .listener = args.listener};
}

void RecordUnserved(WorkerState& state, const OutboundArgs& args, Reason reason,
                    std::chrono::steady_clock::time_point started) {
  telemetry::FlowRecord record = TcpRecord(TcpArgs(args), TcpUpstream());
  record.kind = telemetry::FlowKind::kOutboundHttp;
  record.reason = reason;
  state.Record(std::move(record), started);
}

std::unique_ptr<net::Stream> AsMember(WorkerState& state, OutboundArgs& args) {
  return std::make_unique<MemberStream>(
      state.connections, args.source ? args.source->uid : std::string(), std::move(args.stream));
}

Task<void> ServeHttpOnly(WorkerState& state, OutboundArgs args) {
  auto started = std::chrono::steady_clock::now();
  args.stream = AsMember(state, args);
  FirstBytes first = co_await DetectDownstream(state.executor, *args.stream, kFirstByteLimit);
  if (first.reason != WEFT_R_NONE) {
    args.stream->Close(first.reason);
    RecordUnserved(state, args, first.reason, started);
    co_return;
  }
  // What is no HTTP goes there too: it answers 400 and counts the protocol error.
  co_await ServeHttp(*state.http, HttpArgs(args, std::move(first)));
}

Task<void> ServeEither(WorkerState& state, OutboundArgs args) {
  auto started = std::chrono::steady_clock::now();
  args.stream = AsMember(state, args);
  TcpDownstreamArgs tcp = TcpArgs(args);
  RaceResult race = co_await RaceTcp(state, *args.stream, tcp);
  if (race.http) {
    race.upstream = TcpUpstream();  // gives back its place before the requests take theirs
    co_await ServeHttp(*state.http, HttpArgs(args, std::move(race.first)));
    co_return;
  }
  telemetry::FlowRecord record = TcpRecord(tcp, race.upstream);
  record.sent_bytes = race.moved.to_upstream_bytes;
  record.received_bytes = race.moved.to_downstream_bytes;
  record.reason = race.moved.reason;
  state.Record(std::move(record), started);
}

}  // namespace

std::optional<OriginalDestination> CapturedDestination(int fd) {
  weft_original original = {};
  socklen_t length = sizeof original;
  if (getsockopt(fd, WEFT_SOL, WEFT_SO_ORIGINAL, &original, &length) != 0) return std::nullopt;
  if (length != sizeof original || original.dst.port_be == 0) return std::nullopt;
  return OriginalDestination{FromAbi(original.dst), FromAbi(original.picked)};
}

std::optional<OriginalDestination> RedirectedDestination(int fd) {
  sockaddr_storage storage = {};
  socklen_t length = sizeof storage;
  bool found = getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &storage, &length) == 0;
  if (!found) {
    constexpr int kIp6OriginalDst =
        80;  // IP6T_SO_ORIGINAL_DST; its header clashes with netinet/in.h
    length = sizeof storage;
    found = getsockopt(fd, SOL_IPV6, kIp6OriginalDst, &storage, &length) == 0;
  }
  if (!found) return std::nullopt;
  auto address = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&storage), length);
  if (!address) return std::nullopt;
  return OriginalDestination{.destination = *address, .picked = {}};
}

Task<void> ServeOutbound(WorkerState& state, OutboundArgs args) {
  state.telemetry.counters[telemetry::Counter::kOutboundConnections].Add();
  telemetry::Active active(state.telemetry.counters[telemetry::Counter::kOutboundActive]);
  if (args.listener != nullptr && args.listener->http) {
    if (args.listener->tcp) {
      co_await ServeEither(state, std::move(args));
    } else {
      co_await ServeHttpOnly(state, std::move(args));
    }
    co_return;
  }
  TcpDownstreamArgs tcp = TcpArgs(args);
  co_await ServeTcp(state, std::move(args.stream), std::move(tcp));
}

}  // namespace weft::worker
