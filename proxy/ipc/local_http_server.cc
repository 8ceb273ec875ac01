// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <list>
#include <thread>
#include <vector>

#include "proxy/base/log.h"
#include "proxy/base/signal.h"
#include "proxy/ipc/http_text.h"
#include "proxy/ipc/local_http.h"
#include "proxy/net/deadline.h"
#include "proxy/net/io.h"
#include "proxy/net/listen.h"
#include "proxy/net/tcp_stream.h"

namespace weft::ipc {
namespace {

constexpr std::chrono::milliseconds kRequestTimeout{30000};
constexpr std::chrono::milliseconds kWriteTimeout{30000};  // without progress
constexpr size_t kMaxWaitingBytes = 4 << 20;
constexpr size_t kMaxConnections = 256;

// One connection: what the responder adds to `out`, the connection's coroutine sends.
struct Connection {
  Connection(const asio::any_io_executor& executor_in, int fd)
      : executor(executor_in), stream(net::MakeSocketStream(executor_in, fd)), wake(executor_in) {}
  void End() {
    ended = true;
    wake.Notify();
  }
  asio::any_io_executor executor;
  std::unique_ptr<net::Stream> stream;
  Signal wake;
  std::string out;
  bool started = false;  // a head was given
  bool streaming = false;
  bool ended = false;  // nothing more will come
  bool gone = false;   // nobody reads any more
};

}  // namespace

// What all copies of a Responder share: when the last one goes, an unanswered request is answered.
struct Responder::State {
  explicit State(std::shared_ptr<Connection> connection_in)
      : connection(std::move(connection_in)) {}
  ~State() {
    if (std::this_thread::get_id() != thread) WEFT_BUG("a responder went on another thread");
    if (connection->ended) return;
    if (!connection->started) connection->out = FormatResponseHead(500, "text/plain", 0);
    connection->End();
  }
  std::shared_ptr<Connection> connection;
  const std::thread::id thread = std::this_thread::get_id();  // the server's
};

void Responder::Send(int status, std::string_view content_type, std::string body) const {
  Connection& connection = *state_->connection;
  if (connection.started) return;
  connection.started = true;
  connection.out = FormatResponseHead(status, content_type, body.size());
  connection.out += body;
  connection.End();
}

void Responder::StartStream(int status, std::string_view content_type) const {
  Connection& connection = *state_->connection;
  if (connection.started) return;
  connection.started = connection.streaming = true;
  connection.out = FormatResponseHead(status, content_type, std::nullopt);
  connection.wake.Notify();
}

bool Responder::Write(std::string_view chunk) const {
  Connection& connection = *state_->connection;
  if (!connection.streaming || connection.ended || connection.gone) return false;
  if (connection.out.size() + chunk.size() > kMaxWaitingBytes) return false;
  connection.out += chunk;
  connection.wake.Notify();
  return true;
}

void Responder::EndStream() const {
  if (state_->connection->streaming) state_->connection->End();
}

struct LocalHttpServer::State : std::enable_shared_from_this<LocalHttpServer::State> {
  State(asio::any_io_executor executor_in, Handler handler_in)
      : executor(executor_in), handler(std::move(handler_in)) {}
  asio::any_io_executor executor;
  Handler handler;  // empty once the server is gone
  std::unique_ptr<net::Acceptor> acceptor;
  std::list<std::shared_ptr<Connection>> connections;
};

namespace {

// Reads a head into `text` (with what came after it); false if the client left or sent too much.
Task<bool> ReadHead(net::Stream& stream, std::string& text, size_t& head_bytes) {
  std::vector<uint8_t> buffer(4096);  // not in the frame: g++ 12 then warns of a mismatched delete
  for (;;) {
    const size_t end = text.find("\r\n\r\n");
    if (end != std::string::npos) {
      head_bytes = end + 4;
      co_return head_bytes <= kMaxHeadBytes;
    }
    if (text.size() > kMaxHeadBytes) co_return false;
    auto result = co_await net::ReadSome(stream, buffer);
    if (result.status != net::IoStatus::kOk) co_return false;
    text.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
  }
}

// A request, or its refusal (error != 0; -1: say nothing).
Task<RequestHead> ReadRequest(std::shared_ptr<Connection> connection) {
  net::Deadline limit(connection->executor, kRequestTimeout,
                      [&connection] { connection->stream->Close(WEFT_R_IDLE_TIMEOUT); });
  std::string text;
  size_t head_bytes = 0;
  RequestHead head;
  const bool read = co_await ReadHead(*connection->stream, text, head_bytes);
  if (!read) {
    head.error = text.size() > kMaxHeadBytes ? 431 : -1;
    co_return head;
  }
  head = ParseRequestHead(std::string_view(text).substr(0, head_bytes));
  if (head.error != 0) co_return head;
  std::string& body = head.request.body;
  body = text.substr(head_bytes);
  if (head.expects_continue && body.size() < head.body_bytes) {
    auto sent = co_await net::WriteAll(*connection->stream,
                                       std::string_view("HTTP/1.1 100 Continue\r\n\r\n"));
    if (sent.status != net::IoStatus::kOk) head.error = -1;
  }
  std::vector<uint8_t> buffer(65536);
  while (head.error == 0 && body.size() < head.body_bytes) {
    auto result = co_await net::ReadSome(*connection->stream, buffer);
    if (result.status != net::IoStatus::kOk) {
      head.error = -1;
      break;
    }
    body.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
  }
  if (body.size() > head.body_bytes) body.resize(head.body_bytes);
  co_return head;
}

// Notices a streaming client that leaves while there is nothing to send.
Task<void> WatchForEnd(std::shared_ptr<Connection> connection) {
  std::vector<uint8_t> buffer(512);
  for (;;) {
    auto result = co_await net::ReadSome(*connection->stream, buffer);
    if (result.status != net::IoStatus::kOk) break;
  }
  connection->gone = true;
  connection->wake.Notify();
}

Task<void> SendAnswer(std::shared_ptr<Connection> connection) {
  bool watched = false;
  while (!connection->gone) {
    if (connection->streaming && !watched) {
      watched = true;
      asio::co_spawn(connection->executor, WatchForEnd(connection), asio::detached);
    }
    if (connection->out.empty()) {
      if (connection->ended) break;
      co_await connection->wake.Wait();
      continue;
    }
    const std::string sending = std::exchange(connection->out, {});
    net::Deadline limit(connection->executor, kWriteTimeout,
                        [&connection] { connection->stream->Close(WEFT_R_IDLE_TIMEOUT); });
    auto written = co_await net::WriteAll(*connection->stream, std::string_view(sending));
    if (written.status != net::IoStatus::kOk) connection->gone = true;
  }
}

}  // namespace

static Task<void> ServeConnection(std::shared_ptr<Connection> connection,
                                  LocalHttpServer::Handler* handler,
                                  std::shared_ptr<void> keep_handler) {
  auto head = co_await ReadRequest(connection);
  if (head.error > 0) {
    connection->out = FormatResponseHead(head.error, "text/plain", 0);
    connection->End();
  } else if (head.error < 0 || !*handler) {
    connection->gone = true;
  } else {
    (*handler)(std::move(head.request), Responder(std::make_shared<Responder::State>(connection)));
  }
  keep_handler.reset();
  co_await SendAnswer(connection);
  connection->stream->Close(WEFT_R_CLOSED);
}

LocalHttpServer::LocalHttpServer(asio::any_io_executor executor, int listen_fd, Handler handler)
    : state_(std::make_shared<State>(executor, std::move(handler))) {
  const std::weak_ptr<State> weak = state_;
  state_->acceptor =
      std::make_unique<net::Acceptor>(executor, listen_fd, [weak](int fd, SocketAddress) {
        auto state = weak.lock();
        if (!state || state->connections.size() >= kMaxConnections) {
          (void)::close(fd);
          return;
        }
        auto connection = std::make_shared<Connection>(state->executor, fd);
        state->connections.push_back(connection);
        asio::co_spawn(state->executor, ServeConnection(connection, &state->handler, state),
                       [weak, connection](std::exception_ptr failure) {
                         if (failure) connection->stream->Close(WEFT_R_INTERNAL_ERROR);
                         if (auto alive = weak.lock()) alive->connections.remove(connection);
                       });
      });
  state_->acceptor->Start();
}

LocalHttpServer::~LocalHttpServer() {
  state_->handler = nullptr;
  state_->acceptor.reset();
  for (const auto& connection : state_->connections) {
    connection->gone = true;
    connection->stream->Close(WEFT_R_DRAINING);
    connection->wake.Notify();
  }
}

}  // namespace weft::ipc
