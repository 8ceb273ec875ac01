// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "proxy/ipc/http_text.h"
#include "proxy/ipc/local_http.h"

namespace weft::ipc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxAnswerBytes = 64 << 20;
constexpr size_t kMaxLineBytes = 1 << 20;

class Connection final {
 public:
  explicit Connection(int fd) : fd_(fd) {}
  ~Connection() { (void)close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  absl::Status SendAll(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoStatus(errno, "send");
      text.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  // Appends what comes next; false at the end.
  absl::StatusOr<bool> ReceiveSome(std::string* text, Clock::time_point until) {
    int wait_ms = -1;
    if (until != Clock::time_point::max()) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return absl::DeadlineExceededError("no complete answer in time");
      wait_ms = static_cast<int>(left);
    }
    pollfd polled{.fd = fd_, .events = POLLIN, .revents = 0};
    const int ready = poll(&polled, 1, wait_ms);
    if (ready == 0) return absl::DeadlineExceededError("no complete answer in time");
    if (ready < 0 && errno == EINTR) return true;
    char buffer[65536];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0) return ErrnoStatus(errno, "receive");
    text->append(buffer, static_cast<size_t>(n));
    return n > 0;
  }

 private:
  int fd_;
};

absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return absl::InvalidArgumentError("bad socket path: " + path);
  memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  auto connection = std::make_unique<Connection>(fd);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoStatus(errno, "connect " + path);
  }
  return connection;
}

std::string RequestText(std::string_view method, std::string_view target, std::string_view body) {
  std::string text(method);
  text += " ";
  text += target;
  text += " HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n";
  if (!body.empty() || method == "POST" || method == "PUT") {
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  text += "\r\n";
  text += body;
  return text;
}

// Sends the request and reads the head of the answer; `rest` gets the bytes after it.
absl::StatusOr<ResponseHead> Exchange(Connection& connection, const std::string& request,
                                      Clock::time_point until, std::string* rest) {
  const absl::Status sent = connection.SendAll(request);
  std::string text;
  for (;;) {
    const size_t end = text.find("\r\n\r\n");
    if (end != std::string::npos) {
      const auto head = ParseResponseHead(std::string_view(text).substr(0, end + 4));
      if (!head) return absl::InternalError("the answer is no HTTP response");
      *rest = text.substr(end + 4);
      if (head->status != 100) return *head;
      text = std::move(*rest);
      continue;
    }
    if (text.size() > kMaxHeadBytes)
      return absl::InternalError("the head of the answer is too long");
    auto more = connection.ReceiveSome(&text, until);
    // A server may refuse before it has read everything: its answer says more than our broken pipe.
    if (!more.ok() || !*more) {
      if (!sent.ok()) return sent;
      return more.ok() ? absl::UnavailableError("the connection ended without an answer")
                       : more.status();
    }
  }
}

absl::Status ReadBody(Connection& connection, const ResponseHead& head, Clock::time_point until,
                      std::string* body) {
  if (head.status == 204) return absl::OkStatus();
  while (!head.body_bytes || body->size() < *head.body_bytes) {
    if (body->size() > kMaxAnswerBytes)
      return absl::ResourceExhaustedError("answer larger than 64 MiB");
    auto more = connection.ReceiveSome(body, until);
    if (!more.ok()) return more.status();
    if (*more) continue;
    return head.body_bytes ? absl::UnavailableError("the answer was cut short") : absl::OkStatus();
  }
  body->resize(*head.body_bytes);
  return absl::OkStatus();
}

// Passes complete lines on and removes them; false if on_line wants no more.
bool TakeLines(std::string* text, const std::function<bool(std::string_view)>& on_line) {
  size_t at = 0;
  for (;;) {
    const size_t end = text->find('\n', at);
    if (end == std::string::npos) break;
    if (!on_line(std::string_view(*text).substr(at, end - at))) return false;
    at = end + 1;
  }
  text->erase(0, at);
  return true;
}

}  // namespace

absl::StatusOr<LocalResponse> HttpRequest(const std::string& socket_path, std::string_view method,
                                          std::string_view target, std::string_view body,
                                          int timeout_seconds) {
  const auto until = Clock::now() + std::chrono::seconds(timeout_seconds);
  WEFT_ASSIGN_OR_RETURN(const auto connection, Connect(socket_path));
  LocalResponse response;
  WEFT_ASSIGN_OR_RETURN(
      const ResponseHead head,
      Exchange(*connection, RequestText(method, target, body), until, &response.body));
  response.status = head.status;
  WEFT_RETURN_IF_ERROR(ReadBody(*connection, head, until, &response.body));
  return response;
}

absl::StatusOr<LocalResponse> HttpStream(
    const std::string& socket_path, std::string_view target,
    const std::function<bool(std::string_view line)>& on_line) {
  WEFT_ASSIGN_OR_RETURN(const auto connection, Connect(socket_path));
  LocalResponse response;
  std::string text;
  const auto never = Clock::time_point::max();
  WEFT_ASSIGN_OR_RETURN(const ResponseHead head,
                        Exchange(*connection, RequestText("GET", target, {}), never, &text));
  response.status = head.status;
  if (head.status != 200) {
    WEFT_RETURN_IF_ERROR(ReadBody(*connection, head, never, &text));
    response.body = std::move(text);
    return response;
  }
  while (TakeLines(&text, on_line)) {
    if (text.size() > kMaxLineBytes)
      return absl::ResourceExhaustedError("a line of the answer is longer than 1 MiB");
    WEFT_ASSIGN_OR_RETURN(const bool more, connection->ReceiveSome(&text, never));
    if (more) continue;
    if (!text.empty()) (void)on_line(text);
    break;
  }
  return response;
}

}  // namespace weft::ipc
