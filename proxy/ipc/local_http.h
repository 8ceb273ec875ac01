// SPDX-License-Identifier: Apache-2.0
// A small HTTP/1.1 server and client for the admin interface, metrics and the CLI. Not a data path:
// one request a connection, heads up to 16 KiB, bodies up to 16 MiB, 30 s to receive a request.
// Thread: the server belongs to its executor's thread; the client blocks its caller and needs no
// executor.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/status.h"

namespace weft::ipc {

struct LocalRequest {
  std::string method;
  std::string target;  // path with query
  std::string path;    // without
  std::string query;   // without "?"
  std::string body;
};

// Answers one request. Keep it (copy it) to answer later or to go on streaming; on the server's
// thread only, its end included. If every copy is gone without an answer, the client gets a 500.
// Survives the server and the connection: calls then do nothing.
class Responder final {
 public:
  // The whole answer at once.
  void Send(int status, std::string_view content_type, std::string body) const;
  // Or: head, any number of chunks, end. Each chunk is passed on at once.
  void StartStream(int status, std::string_view content_type) const;
  // False if the client is gone or does not read (more than 4 MiB waiting): stop producing.
  bool Write(std::string_view chunk) const;
  void EndStream() const;

  struct State;
  explicit Responder(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

class LocalHttpServer final {
 public:
  using Handler = std::function<void(LocalRequest request, Responder responder)>;
  // Takes `listen_fd` (unix or TCP, listening) and serves at once.
  LocalHttpServer(boost::asio::any_io_executor executor, int listen_fd, Handler handler);
  ~LocalHttpServer();  // ends its connections

 private:
  struct State;
  std::shared_ptr<State> state_;
};

struct LocalResponse {
  int status = 0;
  std::string body;
};
// Blocking, at most `timeout_seconds` for the whole answer. `socket_path` is a unix socket; target
// as in "/status?x=1".
absl::StatusOr<LocalResponse> HttpRequest(const std::string& socket_path, std::string_view method,
                                          std::string_view target, std::string_view body = {},
                                          int timeout_seconds = 30);
// Calls on_line for each line of the answer's body as it arrives (without "\n"), until the server
// ends, on_line returns false, or an error. Returns the status and, unless it is 200, the body.
absl::StatusOr<LocalResponse> HttpStream(const std::string& socket_path, std::string_view target,
                                         const std::function<bool(std::string_view line)>& on_line);

}  // namespace weft::ipc
