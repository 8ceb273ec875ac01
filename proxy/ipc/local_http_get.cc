// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/local_http_get.h"

#include <string_view>
#include <vector>

#include "proxy/ipc/http_text.h"
#include "proxy/net/deadline.h"
#include "proxy/net/dial.h"
#include "proxy/net/io.h"

namespace weft::ipc {
namespace {

// `text` is all that came before the end of the connection.
absl::StatusOr<LocalResponse> ParseAnswer(const std::string& text) {
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos || end > kMaxHeadBytes) {
    return absl::UnavailableError("the connection ended without an answer");
  }
  const auto head = ParseResponseHead(std::string_view(text).substr(0, end + 4));
  if (!head) return absl::InternalError("the answer is no HTTP response");
  LocalResponse response{.status = head->status, .body = text.substr(end + 4)};
  if (head->body_bytes && *head->body_bytes != response.body.size()) {
    return absl::UnavailableError("the answer was cut short");
  }
  return response;
}

}  // namespace

Task<absl::StatusOr<LocalResponse>> HttpGet(asio::any_io_executor executor, std::string socket_path,
                                            std::string target, std::chrono::milliseconds limit) {
  auto dialled = co_await net::DialUnix(executor, socket_path, limit);
  if (!dialled.ok()) co_return dialled.status();
  net::Stream& stream = **dialled;
  const net::Deadline deadline(executor, limit, [&stream] { stream.Close(WEFT_R_IDLE_TIMEOUT); });
  const std::string request =
      "GET " + target + " HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n";
  const net::IoResult sent = co_await net::WriteAll(stream, request);
  std::string text;
  std::vector<uint8_t> buffer(64 * 1024);
  while (sent.status == net::IoStatus::kOk) {
    const net::IoResult in = co_await net::ReadSome(stream, buffer);
    if (in.status == net::IoStatus::kEof) co_return ParseAnswer(text);
    if (in.status != net::IoStatus::kOk) break;
    text.append(reinterpret_cast<const char*>(buffer.data()), in.bytes);
    if (text.size() > kMaxHeadBytes + kMaxBodyBytes) {
      co_return absl::ResourceExhaustedError("answer larger than 16 MiB");
    }
  }
  if (deadline.expired()) co_return absl::DeadlineExceededError("no complete answer in time");
  co_return absl::UnavailableError("the connection broke");
}

}  // namespace weft::ipc
