// SPDX-License-Identifier: Apache-2.0
#include "proxy/tunnel/server.h"

#include <utility>

#include <boost/asio/co_spawn.hpp>

#include "proxy/base/log.h"
#include "proxy/net/pump.h"
#include "proxy/tunnel/tunnel_stream.h"

namespace weft::tunnel {
namespace {

// A tunnelled connection on which nothing moves: TCP's idle timeout of Envoy (facts: mesh.md 4.8).
constexpr std::chrono::milliseconds kIdleTimeout{3600 * 1000};

void Answer(TunnelStream& stream, int status, const policy::Decision* decision = nullptr) {
  http::ResponseHead head;
  head.status = status;
  if (decision != nullptr) {
    head.headers.Add("x-weft-reason", ReasonName(decision->reason));
    if (!decision->policy.empty()) head.headers.Add("x-weft-policy", decision->policy);
  }
  stream.Respond(head, /*end_stream=*/status != 200);
}

}  // namespace

SocketAddress ClientOf(const http::HeaderList& headers, const SocketAddress& peer) {
  std::string_view text = headers.Get("forwarded").value_or("");
  size_t begin = text.find("for=");
  if (begin == std::string_view::npos) return peer;
  text.remove_prefix(begin + 4);
  bool quoted = text.starts_with('"');
  if (quoted) text.remove_prefix(1);
  text = text.substr(0, text.find_first_of(quoted ? "\"" : ";,"));
  std::optional<SocketAddress> named = SocketAddress::Parse(text);
  return named && named->ip == peer.ip && named->port != 0 ? *named : peer;
}

TunnelServer::TunnelServer(ServerHandler& handler, ServerArgs args)
    : handler_(handler),
      executor_(args.executor),
      peer_identity_(std::move(args.peer_identity)),
      peer_(args.peer),
      mux_({.executor = args.executor,
            .transport = std::move(args.stream),
            .role = http::Role::kServer,
            .scratch = args.scratch}),
      idle_timeout_(args.idle_timeout),
      quiet_(args.executor) {
  mux_.on_request = [this](std::unique_ptr<TunnelStream> stream, http::RequestHead head) {
    OnRequest(std::move(stream), std::move(head));
  };
}

Task<Reason> TunnelServer::Serve() {
  WatchIdle();
  Reason reason = co_await mux_.Run();
  idle_.reset();
  while (serving_ > 0) co_await quiet_.Wait();
  co_return reason;
}

void TunnelServer::WatchIdle() {
  using std::chrono::milliseconds;
  milliseconds left = idle_timeout_;
  if (mux_.streams() == 0) {
    left -= std::chrono::floor<milliseconds>(Mux::Clock::now() - mux_.idle_since());
    if (left.count() <= 0) return mux_.Close(WEFT_R_IDLE_TIMEOUT);
  }
  idle_.emplace(executor_, left, [this] { WatchIdle(); });
}

void TunnelServer::Recheck() {
  for (const Judged& judged : judged_) {
    policy::Decision decision = handler_.Decide({.source_identity = peer_identity_,
                                                 .source_ip = peer_.ip,
                                                 .destination = judged.record->destination});
    if (decision.allowed()) continue;
    judged.record->decision = std::move(decision);
    judged.stream->Close(judged.record->decision.reason);
  }
}

void TunnelServer::OnRequest(std::unique_ptr<TunnelStream> stream, http::RequestHead head) {
  ++serving_;
  asio::co_spawn(executor_, ServeStream(std::move(stream), std::move(head)),
                 [this](std::exception_ptr error) {
                   --serving_;
                   quiet_.Notify();
                   if (error) WEFT_BUG("exception in a tunnel stream");
                 });
}

Task<void> TunnelServer::ServeStream(std::unique_ptr<TunnelStream> stream, http::RequestHead head) {
  ServedStream record{.peer_identity = peer_identity_,
                      .client = ClientOf(head.headers, peer_),
                      .started = std::chrono::steady_clock::now()};
  handler_.OnStreamStart();
  std::unique_ptr<net::Stream> app = co_await Open(*stream, head, record);
  if (app != nullptr) {
    net::PumpResult result = co_await net::Pump(*stream, *app, {.idle_timeout = kIdleTimeout});
    record.sent_bytes = result.to_upstream_bytes;
    record.received_bytes = result.to_downstream_bytes;
    record.reason = result.reason;
  } else {
    stream->Close(WEFT_R_CLOSED);  // the answer leaves first
  }
  std::erase_if(judged_, [&](const Judged& judged) { return judged.record == &record; });
  handler_.OnStreamEnd(record);
}

Task<std::unique_ptr<net::Stream>> TunnelServer::Open(TunnelStream& stream,
                                                      const http::RequestHead& head,
                                                      ServedStream& record) {
  std::optional<SocketAddress> destination = SocketAddress::Parse(head.authority);
  bool valid =
      head.method == "CONNECT" && head.protocol.empty() && destination && destination->port != 0;
  if (!valid || !handler_.Serves(*destination)) {
    record.reason = WEFT_R_HBONE_BAD_REQUEST;
    Answer(stream, 400);
    co_return nullptr;
  }
  record.destination = *destination;
  record.decision = handler_.Decide(
      {.source_identity = peer_identity_, .source_ip = peer_.ip, .destination = *destination});
  if (!record.decision.allowed()) {
    record.reason = record.decision.reason;
    Answer(stream, 401, &record.decision);
    co_return nullptr;
  }
  judged_.push_back({&stream, &record});
  ServerHandler::App app = co_await handler_.ConnectApp(record.client, *destination);
  if (app.stream == nullptr) {
    record.reason = app.reason;
    Answer(stream, 503);
    co_return nullptr;
  }
  Answer(stream, 200);
  co_return std::move(app.stream);
}

}  // namespace weft::tunnel
