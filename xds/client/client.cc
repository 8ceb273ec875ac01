// SPDX-License-Identifier: Apache-2.0
// The transport: connect, one HTTP/2 stream with gRPC's framing, and what to do when it ends. The
// protocol is in ads_state.cc.
#include "xds/client/client.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <random>

#include "proxy/base/log.h"
#include "proxy/base/signal.h"
#include "proxy/base/status.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/session.h"
#include "proxy/net/deadline.h"
#include "xds/client/ads_state.h"

namespace weft::xds {
namespace {

constexpr std::string_view kService = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
constexpr size_t kMaxMessageBytes = 64u << 20;

double RealRandom() {
  static thread_local std::mt19937_64 engine{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.0, 1.0)(engine);
}

// Undoes gRPC's percent-encoding of a status text; what is not an encoding stays.
std::string DecodeError(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool encoded =
        text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out.push_back(encoded ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]))
                          : text[i]);
    if (encoded) i += 2;
  }
  return out;
}

http::Limits ClientLimits() {
  http::Limits limits;
  limits.stream_window_bytes = 4u << 20;
  limits.connection_window_bytes = 8u << 20;
  return limits;
}

// A server whose host is gone sends no FIN, and a client that only listens would not notice for the
// half hour of our usual keepalive. Preferences, without meaning for a unix socket.
void NoticeDeadPeers(int fd) {
  if (fd < 0) return;
  const auto set = [fd](int name, int value) {
    (void)setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
  };
  set(TCP_KEEPIDLE, 10);
  set(TCP_KEEPINTVL, 5);
  set(TCP_KEEPCNT, 3);
  set(TCP_USER_TIMEOUT, 25000);
}

}  // namespace

// One connection with its ADS stream; lives in the frame of Attempt().
struct Client::Connection {
  Connection(const asio::any_io_executor& executor_in, std::unique_ptr<net::Stream> stream_in,
             AdsState& ads_in)
      : executor(executor_in), stream(std::move(stream_in)), ads(ads_in), write(executor_in) {}

  void End(std::string why);
  void OnEvent(const http::Event& event);
  void OnData(std::span<const uint8_t> data);
  void OnStatus(const http::HeaderList& fields);
  void ArmTimer();

  asio::any_io_executor executor;
  std::unique_ptr<net::Stream> stream;
  AdsState& ads;
  std::unique_ptr<http::Session> session =
      http::MakeHttp2Session(http::Role::kClient, ClientLimits());
  http::StreamId id = 0;
  http::GrpcDecoder decoder{kMaxMessageBytes};
  Signal write;
  std::optional<AdsState::Clock::time_point> timer_for;
  std::unique_ptr<net::Deadline> timer;
  bool done = false;
  bool answered = false;  // a byte came
  bool heard = false;     // a message came: the server works
  std::string why;        // it ended
};

struct Client::State {
  State(asio::any_io_executor executor_in, ClientOptions options_in, OnUpdate on_update)
      : executor(executor_in),
        options(std::move(options_in)),
        ads(options, std::move(on_update)),
        sleep(executor_in) {
    if (!options.random) options.random = RealRandom;
  }

  asio::any_io_executor executor;
  ClientOptions options;
  AdsState ads;
  asio::steady_timer sleep;
  Connection* connection = nullptr;
  int failures = 0;  // attempts in a row that heard nothing
  bool stopping = false;
};

void Client::Connection::End(std::string reason) {
  if (done) return;
  done = true;
  why = std::move(reason);
  stream->Close(WEFT_R_CLOSED);
  write.Notify();
}

void Client::Connection::OnData(std::span<const uint8_t> data) {
  bool good = decoder.Feed(data);
  while (const auto message = decoder.Next()) {
    const absl::Status status = ads.OnMessage(*message, AdsState::Clock::now());
    if (!status.ok()) return End(std::string(StdView(status.message())));
    heard = true;
  }
  good = good && !decoder.failed();
  if (!good) End("the server sent a message that is compressed or larger than 64 MiB");
}

void Client::Connection::OnStatus(const http::HeaderList& fields) {
  const std::string status(fields.Get("grpc-status").value_or("none"));
  const std::string text = DecodeError(fields.Get("grpc-message").value_or("").substr(0, 1024));
  End("the server ended the stream: status " + status + (text.empty() ? "" : ", " + text));
}

void Client::Connection::OnEvent(const http::Event& event) {
  using Kind = http::Event::Kind;
  if (event.kind == Kind::kData) session->Consume(event.stream, event.data.size());
  if (event.kind == Kind::kGoAway) {
    // The stream may live on, but a server that says good-bye is better left before it hangs up.
    return End("the server is going away");
  }
  if (event.stream != id || done) return;
  switch (event.kind) {
    case Kind::kResponse:
      if (event.response->status != 200) {
        return End("the server answers " + std::to_string(event.response->status));
      }
      if (event.end_stream) OnStatus(event.response->headers);
      return;
    case Kind::kData:
      OnData(event.data);
      if (event.end_stream) End("the server ended the stream without a status");
      return;
    case Kind::kTrailers:
      return OnStatus(*event.trailers);
    case Kind::kEnd:
      return End("the server ended the stream without a status");
    case Kind::kReset:
      return End("the server reset the stream: " + std::string(ReasonName(event.reason)));
    default:
      return;
  }
}

void Client::Connection::ArmTimer() {
  const auto deadline = ads.next_deadline();
  if (deadline == timer_for) return;
  timer_for = deadline;
  timer.reset();
  if (!deadline) return;
  const auto wait =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - AdsState::Clock::now());
  timer = std::make_unique<net::Deadline>(executor, std::max(wait, std::chrono::milliseconds(1)),
                                          [this] {
                                            timer_for.reset();
                                            write.Notify();
                                          });
}

Task<void> Client::ReadLoop(Connection& connection) {
  std::vector<uint8_t> buffer(64 * 1024);
  while (!connection.done) {
    const net::IoResult in = connection.stream->TryRead(buffer);
    if (in.status == net::IoStatus::kWouldBlock) {
      co_await connection.stream->Readable();
      continue;
    }
    if (in.status == net::IoStatus::kEof) {
      connection.End("the server closed the connection");
      break;
    }
    if (in.status == net::IoStatus::kError) {
      connection.End("the connection broke: " + std::string(ReasonMeaning(in.reason)));
      break;
    }
    connection.answered = true;
    size_t consumed = 0;
    const Reason reason = connection.session->Feed({buffer.data(), in.bytes}, &consumed);
    // The cause first: the events then only say that the stream is gone.
    if (reason != WEFT_R_NONE) {
      connection.End("the server broke HTTP/2: " + std::string(ReasonMeaning(reason)));
    }
    for (const http::Event& event : connection.session->events()) connection.OnEvent(event);
    connection.session->ClearEvents();
    connection.write.Notify();
  }
}

Task<void> Client::WriteLoop(Connection& connection) {
  while (!connection.done) {
    for (const std::string& request : connection.ads.TakeRequests(AdsState::Clock::now())) {
      std::string framed;
      http::EncodeGrpcMessage(request, &framed);
      connection.session->SubmitData(
          connection.id, {reinterpret_cast<const uint8_t*>(framed.data()), framed.size()}, false);
    }
    connection.ArmTimer();
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
      connection.End("the connection broke: " + std::string(ReasonMeaning(written.reason)));
    }
  }
}

Client::Client(asio::any_io_executor executor, ClientOptions options, OnUpdate on_update)
    : state_(
          std::make_unique<State>(std::move(executor), std::move(options), std::move(on_update))) {}

Client::~Client() = default;

Task<void> Client::Attempt() {
  using namespace asio::experimental::awaitable_operators;  // NOLINT: for && on tasks
  State& state = *state_;
  auto stream = co_await state.options.connect();
  if (!stream.ok()) {
    state.ads.OnDisconnected(std::string(StdView(stream.status().message())));
    co_return;
  }
  if (state.stopping) co_return;
  Connection connection(state.executor, std::move(*stream), state.ads);
  http::RequestHead head;
  head.method = "POST";
  head.scheme = "http";
  head.authority = state.options.authority;
  head.path = std::string(kService) + (state.options.variant == Variant::kDelta
                                           ? "DeltaAggregatedResources"
                                           : "StreamAggregatedResources");
  head.headers.Add("content-type", "application/grpc");
  head.headers.Add("te", "trailers");
  head.headers.Add("user-agent", "weft");
  if (state.options.metadata) {
    for (const auto& [name, value] : state.options.metadata()) head.headers.Add(name, value);
  }
  connection.id = connection.session->SubmitRequest(head, false);
  WEFT_CHECK(connection.id != 0);  // a new connection takes one stream
  NoticeDeadPeers(connection.stream->native_handle());
  const net::Deadline silent(state.executor, state.options.first_byte_limit, [&connection] {
    if (!connection.answered) connection.End("the server accepted the connection and says nothing");
  });
  state.ads.OnConnected();
  state.connection = &connection;
  co_await (ReadLoop(connection) && WriteLoop(connection));
  state.connection = nullptr;
  if (connection.heard) state.failures = 0;
  state.ads.OnDisconnected(connection.why);
}

Task<void> Client::Sleep(std::chrono::milliseconds time) {
  state_->sleep.expires_after(time);
  co_await state_->sleep.async_wait(kAsTuple);
}

Task<void> Client::Run() {
  State& state = *state_;
  while (!state.stopping) {
    co_await Attempt();
    if (state.stopping) break;
    const int doublings = std::min(state.failures++, 20);
    const auto bound = std::min<int64_t>(state.options.backoff_base.count() << doublings,
                                         state.options.backoff_cap.count());
    const std::chrono::milliseconds wait(
        static_cast<int64_t>(static_cast<double>(bound) * state.options.random()));
    LogWarning(
        "no configuration stream; what was received stays in force",
        {{"cause", state.ads.status().last_error}, {"again_in_ms", std::to_string(wait.count())}});
    co_await Sleep(wait);
  }
  state.ads.OnDisconnected("stopped");
}

void Client::Stop() {
  state_->stopping = true;
  if (state_->connection != nullptr) state_->connection->End("stopped");
  state_->sleep.cancel();
}

void Client::SetNames(std::string_view type_url, std::set<std::string> names) {
  state_->ads.SetNames(type_url, std::move(names));
  if (state_->connection != nullptr) state_->connection->write.Notify();
}

ClientStatus Client::status() const { return state_->ads.status(); }

}  // namespace weft::xds
