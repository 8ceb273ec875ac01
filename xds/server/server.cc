// SPDX-License-Identifier: Apache-2.0
#include "xds/server/server.h"

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/this_coro.hpp>

#include "proxy/base/log.h"
#include "proxy/base/signal.h"
#include "proxy/base/status.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/session.h"
#include "proxy/net/deadline.h"
#include "xds/server/ads_stream.h"

namespace weft::xds {
namespace {

constexpr std::string_view kAds = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
constexpr size_t kHighMarkBytes = 1u
                                  << 20;  // of a stream's unsent bytes: no further response is made

struct Call {
  explicit Call(size_t max_message_bytes) : decoder(max_message_bytes) {}

  http::GrpcDecoder decoder;
  GrpcRequest request;
  std::unique_ptr<AdsStream> ads;  // null: unary
  const std::function<Task<GrpcReply>(GrpcRequest)>* handler = nullptr;
  bool has_message = false;
  bool running = false;  // the handler was started
  bool headers_sent = false;
};

// One connection. Shared with the handlers that run for it; they must not touch it once it is done.
struct Connection final : std::enable_shared_from_this<Connection> {
  Connection(asio::any_io_executor executor_in, std::unique_ptr<net::Stream> stream_in,
             GrpcPeer peer_in, std::shared_ptr<const ServerOptions> options_in)
      : executor(std::move(executor_in)),
        stream(std::move(stream_in)),
        peer(std::move(peer_in)),
        options(std::move(options_in)),
        write(executor) {
    http::Limits limits;
    limits.max_concurrent_streams = options->max_streams;
    limits.stream_window_bytes = 1u << 20;
    limits.connection_window_bytes = 4u << 20;
    session = http::MakeHttp2Session(http::Role::kServer, limits);
  }

  void OnEvent(http::Event& event);
  void OnRequest(http::StreamId id, http::RequestHead& head);
  void OnData(http::StreamId id, Call& call, std::span<const uint8_t> data);
  void OnEnd(http::StreamId id, Call& call);
  void Finish(http::StreamId id, GrpcStatus status, std::string_view error);
  void Forget(http::StreamId id);
  void SendMessage(http::StreamId id, Call& call, std::string_view message);
  void MakeResponses();
  void Close();
  bool InUse() const;
  void WatchIdle();

  const asio::any_io_executor executor;
  const std::unique_ptr<net::Stream> stream;
  std::unique_ptr<http::Session> session;
  const GrpcPeer peer;
  const std::shared_ptr<const ServerOptions> options;
  Signal write;
  bool done = false;
  std::map<http::StreamId, Call> calls;
  std::unique_ptr<net::Deadline> idle;
};

// gRPC's percent-encoding of a status text.
std::string EncodeError(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (char c : text.substr(0, 4096)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte <= 0x7e && c != '%') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

// `handler` lives in the options, which the connection keeps. The client may have left before this
// starts.
Task<void> RunUnary(std::shared_ptr<Connection> connection, http::StreamId id,
                    const std::function<Task<GrpcReply>(GrpcRequest)>* handler,
                    GrpcRequest request) {
  GrpcReply reply = co_await (*handler)(std::move(request));
  const auto at = connection->calls.find(id);
  if (connection->done || at == connection->calls.end()) co_return;
  if (reply.status == GrpcStatus::kOk) connection->SendMessage(id, at->second, reply.message);
  connection->Finish(id, reply.status, reply.error);
  connection->write.Notify();
}

// A handler that throws costs its caller the connection, nothing else.
struct UnaryDone {
  std::shared_ptr<Connection> connection;
  void operator()(const std::exception_ptr& failure) const {
    if (!failure) return;
    LogError("a unary call threw", {{"peer", connection->peer.address}});
    connection->Close();
  }
};

void Connection::OnEvent(http::Event& event) {
  using Kind = http::Event::Kind;
  if (event.kind == Kind::kRequest) OnRequest(event.stream, *event.request);
  if (event.kind == Kind::kData) session->Consume(event.stream, event.data.size());
  const auto at = calls.find(event.stream);
  if (at == calls.end()) return;  // refused, finished, or about the connection
  switch (event.kind) {
    case Kind::kData:
      OnData(event.stream, at->second, event.data);
      if (event.end_stream && calls.contains(event.stream)) OnEnd(event.stream, at->second);
      break;
    case Kind::kRequest:
      if (event.end_stream) OnEnd(event.stream, at->second);
      break;
    case Kind::kTrailers:
    case Kind::kEnd:
      OnEnd(event.stream, at->second);
      break;
    case Kind::kReset:
      Forget(event.stream);
      break;
    default:
      break;
  }
}

void Connection::OnRequest(http::StreamId id, http::RequestHead& head) {
  const std::string_view type = head.headers.Get("content-type").value_or("");
  const bool is_grpc = type == "application/grpc" || type.starts_with("application/grpc+");
  if (head.method != "POST" || !is_grpc) {
    http::ResponseHead response;
    response.status = head.method != "POST" ? 405 : 415;
    session->SubmitResponse(id, response, true);
    return;
  }
  const std::string_view path = head.path;
  const std::string_view method = path.starts_with(kAds) ? path.substr(kAds.size()) : "";
  const bool delta = method == "DeltaAggregatedResources";
  const bool ads = options->cache != nullptr && (delta || method == "StreamAggregatedResources");
  const auto handler = options->unary.find(path);
  Call call(ads ? options->max_request_bytes : options->max_unary_bytes);
  if (ads) {
    call.ads = std::make_unique<AdsStream>(delta, *options, peer, std::move(head.headers));
  } else if (handler != options->unary.end()) {
    call.handler = &handler->second;
    call.request = {
        .path = std::move(head.path), .metadata = std::move(head.headers), .peer = peer};
  }
  const bool known = ads || call.handler != nullptr;
  const std::string asked(path.substr(0, 200));
  calls.emplace(id, std::move(call));
  if (!known) Finish(id, GrpcStatus::kUnimplemented, "there is no method " + asked);
}

void Connection::OnData(http::StreamId id, Call& call, std::span<const uint8_t> data) {
  if (!call.decoder.Feed(data)) {
    Finish(id, GrpcStatus::kResourceExhausted, "a message is too large, or compressed");
    return;
  }
  while (const auto message = call.decoder.Next()) {
    if (call.ads != nullptr) {
      const absl::Status status = call.ads->OnRequest(*message);
      if (!status.ok()) {
        Finish(id, static_cast<GrpcStatus>(status.code()), StdView(status.message()));
        return;
      }
    } else if (call.has_message) {
      Finish(id, GrpcStatus::kInvalidArgument, "more than one message");
      return;
    } else {
      call.has_message = true;
      call.request.message = *message;
    }
  }
  if (call.decoder.failed()) {
    Finish(id, GrpcStatus::kResourceExhausted, "a message is too large, or compressed");
  }
}

void Connection::OnEnd(http::StreamId id, Call& call) {
  if (call.ads != nullptr) {
    Finish(id, GrpcStatus::kOk, "");
  } else if (!call.has_message || call.decoder.pending_bytes() > 0) {
    Finish(id, GrpcStatus::kInvalidArgument, "the message is not complete");
  } else if (!call.running) {
    call.running = true;
    asio::co_spawn(executor,
                   RunUnary(shared_from_this(), id, call.handler, std::move(call.request)),
                   UnaryDone{shared_from_this()});
  }
}

void Connection::SendMessage(http::StreamId id, Call& call, std::string_view message) {
  if (!call.headers_sent) {
    call.headers_sent = true;
    http::ResponseHead head;
    head.status = 200;
    head.headers.Add("content-type", "application/grpc");
    session->SubmitResponse(id, head, false);
  }
  std::string framed;
  framed.reserve(message.size() + http::kGrpcPrefixBytes);
  http::EncodeGrpcMessage(message, &framed);
  session->SubmitData(id, {reinterpret_cast<const uint8_t*>(framed.data()), framed.size()}, false);
}

void Connection::Finish(http::StreamId id, GrpcStatus status, std::string_view error) {
  const auto at = calls.find(id);
  if (at == calls.end()) return;
  http::ResponseHead head;  // without a message before it, the status comes with the head
  head.status = 200;
  http::HeaderList trailers;
  http::HeaderList& fields = at->second.headers_sent ? trailers : head.headers;
  if (!at->second.headers_sent) fields.Add("content-type", "application/grpc");
  fields.Add("grpc-status", std::to_string(static_cast<int>(status)));
  if (!error.empty()) fields.Add("grpc-message", EncodeError(error));
  if (at->second.headers_sent) {
    session->SubmitTrailers(id, trailers);
  } else {
    session->SubmitResponse(id, head, true);
  }
  Forget(id);
}

void Connection::Forget(http::StreamId id) {
  const auto at = calls.find(id);
  if (at == calls.end()) return;
  if (at->second.ads != nullptr && at->second.ads->admitted() && options->on_stream) {
    options->on_stream(peer, at->second.ads->node(), false);
  }
  calls.erase(at);
}

void Connection::MakeResponses() {
  for (auto& [id, call] : calls) {
    if (call.ads == nullptr || !call.ads->admitted()) continue;
    while (session->buffered_bytes(id) < kHighMarkBytes) {
      const auto response = call.ads->NextResponse();
      if (!response) break;
      SendMessage(id, call, *response);
    }
  }
}

bool Connection::InUse() const {
  return std::any_of(calls.begin(), calls.end(), [](const auto& entry) {
    const Call& call = entry.second;
    return call.running || (call.ads != nullptr && call.ads->admitted());
  });
}

void Connection::WatchIdle() {
  idle = std::make_unique<net::Deadline>(executor, options->idle_limit, [this] {
    if (InUse()) return WatchIdle();
    LogInfo("closed a connection that asked for nothing", {{"peer", peer.address}});
    Close();
  });
}

void Connection::Close() {
  if (done) return;
  done = true;
  stream->Close(WEFT_R_CLOSED);
  while (!calls.empty()) Forget(calls.begin()->first);
  write.Notify();
}

Task<void> ReadLoop(Connection& connection) {
  std::vector<uint8_t> buffer(32 * 1024);
  while (!connection.done) {
    const net::IoResult in = connection.stream->TryRead(buffer);
    if (in.status == net::IoStatus::kWouldBlock) {
      co_await connection.stream->Readable();
      continue;
    }
    if (in.status != net::IoStatus::kOk) break;
    size_t consumed = 0;
    const Reason reason = connection.session->Feed({buffer.data(), in.bytes}, &consumed);
    for (http::Event& event : connection.session->events()) connection.OnEvent(event);
    connection.session->ClearEvents();
    if (reason != WEFT_R_NONE) {
      LogWarning("a client of the configuration server broke HTTP/2",
                 {{"peer", connection.peer.address}, {"reason", std::string(ReasonName(reason))}});
      break;
    }
    connection.write.Notify();
  }
  connection.Close();
}

Task<void> WriteLoop(Connection& connection) {
  while (!connection.done) {
    connection.MakeResponses();
    const std::span<const uint8_t> out = connection.session->Output();
    if (out.empty()) {
      co_await connection.write.Wait();
      continue;
    }
    const iovec from{const_cast<uint8_t*>(out.data()), out.size()};
    const net::IoResult written = connection.stream->TryWrite({&from, 1});
    if (written.status == net::IoStatus::kOk) {
      connection.session->OutputWritten(written.bytes);
    } else if (written.status == net::IoStatus::kWouldBlock) {
      co_await connection.stream->Writable();
    } else {
      break;
    }
  }
  connection.Close();
}

}  // namespace

Task<void> ServeGrpc(std::unique_ptr<net::Stream> stream, GrpcPeer peer,
                     std::shared_ptr<const ServerOptions> options) {
  using namespace asio::experimental::awaitable_operators;  // NOLINT: for && on tasks
  const auto executor = co_await asio::this_coro::executor;
  auto connection = std::make_shared<Connection>(executor, std::move(stream), std::move(peer),
                                                 std::move(options));
  ResourceCache* cache = connection->options->cache;
  uint64_t listener = 0;
  if (cache != nullptr) {
    listener = cache->AddListener([c = connection.get()](const std::set<std::string>& types) {
      for (auto& [id, call] : c->calls) {
        if (call.ads != nullptr) call.ads->OnCacheChanged(types);
      }
      c->write.Notify();
    });
  }
  connection->WatchIdle();
  co_await (ReadLoop(*connection) && WriteLoop(*connection));
  connection->idle.reset();
  if (cache != nullptr) cache->RemoveListener(listener);
}

}  // namespace weft::xds
