// SPDX-License-Identifier: Apache-2.0
#include "control/agent/grpc_call.h"

#include <chrono>
#include <optional>

#include "proxy/base/status.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/session.h"
#include "proxy/net/deadline.h"
#include "proxy/net/io.h"

namespace weft::agent {
namespace {

constexpr std::chrono::seconds kTimeout{15};
constexpr size_t kMaxAnswerBytes = 1u << 20;  // certificate chains are a few KiB

// What has arrived of the answer.
struct Answer {
  std::string body;
  std::optional<std::string> grpc_status;
  std::string grpc_message;
  int http_status = 0;
  bool ended = false;
  bool reset = false;

  void TakeStatus(const http::HeaderList& headers) {
    if (auto status = headers.Get("grpc-status")) grpc_status = std::string(*status);
    if (auto message = headers.Get("grpc-message")) grpc_message = std::string(*message);
  }
  absl::StatusOr<std::string> Result() const;
};

absl::StatusOr<std::string> Answer::Result() const {
  if (reset) return absl::UnavailableError("the server reset the call");
  if (http_status != 200) return absl::UnavailableError(absl::StrCat("HTTP ", http_status));
  if (grpc_status.has_value() && *grpc_status != "0") {
    const std::string text = absl::StrCat("gRPC status ", *grpc_status, ": ", grpc_message);
    // 7 and 16: no use to try again with the same credentials.
    if (*grpc_status == "7" || *grpc_status == "16") return absl::PermissionDeniedError(text);
    return absl::UnavailableError(text);
  }
  if (body.size() < http::kGrpcPrefixBytes || body[0] != 0) {
    return absl::DataLossError("no uncompressed gRPC message in the answer");
  }
  uint32_t length = 0;
  for (int i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(body[i]);
  if (length != body.size() - http::kGrpcPrefixBytes) {
    return absl::DataLossError("the answer is cut or holds several messages");
  }
  return body.substr(http::kGrpcPrefixBytes);
}

void TakeEvents(http::Session& session, Answer* answer) {
  for (http::Event& event : session.events()) {
    switch (event.kind) {
      case http::Event::Kind::kResponse:
        answer->http_status = event.response->status;
        answer->TakeStatus(event.response->headers);
        break;
      case http::Event::Kind::kData:
        answer->body.append(reinterpret_cast<const char*>(event.data.data()), event.data.size());
        session.Consume(event.stream, event.data.size());
        break;
      case http::Event::Kind::kTrailers:
        answer->TakeStatus(*event.trailers);
        answer->ended = true;
        break;
      case http::Event::Kind::kEnd:
        answer->ended = true;
        break;
      case http::Event::Kind::kReset:
        answer->reset = true;
        break;
      default:
        break;
    }
    if (event.end_stream) answer->ended = true;
  }
  session.ClearEvents();
}

// Writes all the session has; false: the stream is dead.
Task<bool> Flush(net::Stream& stream, http::Session& session) {
  for (;;) {
    const std::span<const uint8_t> out = session.Output();
    if (out.empty()) co_return true;
    const size_t n = out.size();
    const net::IoResult written = co_await net::WriteAll(stream, out);
    if (written.status != net::IoStatus::kOk) co_return false;
    session.OutputWritten(n);
  }
}

void Submit(http::Session& session, const GrpcCall& call) {
  http::RequestHead head;
  head.method = "POST";
  head.scheme = "https";
  head.authority = call.authority;
  head.path = call.path;
  head.headers.Add("content-type", "application/grpc");
  head.headers.Add("te", "trailers");
  for (const auto& [name, value] : call.metadata) head.headers.Add(name, value);
  const http::StreamId id = session.SubmitRequest(head, /*end_stream=*/false);
  std::string frame;
  http::EncodeGrpcMessage(call.message, &frame);
  session.SubmitData(id, {reinterpret_cast<const uint8_t*>(frame.data()), frame.size()},
                     /*end_stream=*/true);
}

}  // namespace

Task<absl::StatusOr<std::string>> CallUnary(asio::any_io_executor executor,
                                            std::unique_ptr<net::Stream> stream, GrpcCall call) {
  net::Deadline deadline(executor, kTimeout, [&stream] { stream->Close(WEFT_R_ROUTE_TIMEOUT); });
  auto session = http::MakeHttp2Session(http::Role::kClient, http::Limits{});
  Submit(*session, call);
  Answer answer;
  std::vector<uint8_t> buffer(16 * 1024);
  while (!answer.ended && !answer.reset) {
    const bool alive = co_await Flush(*stream, *session);
    if (!alive) break;
    const net::IoResult in = co_await net::ReadSome(*stream, buffer);
    if (in.status != net::IoStatus::kOk) {
      session->FeedEof();
      TakeEvents(*session, &answer);
      break;
    }
    size_t consumed = 0;
    const Reason reason = session->Feed(std::span(buffer).first(in.bytes), &consumed);
    TakeEvents(*session, &answer);
    if (reason != WEFT_R_NONE || answer.body.size() > kMaxAnswerBytes) {
      co_return absl::DataLossError("the server broke the protocol of the call");
    }
  }
  stream->Close(WEFT_R_CLOSED);
  if (deadline.expired()) co_return absl::DeadlineExceededError("no answer within 15 s");
  if (!answer.ended && !answer.reset) {
    co_return absl::UnavailableError("the connection ended before the answer");
  }
  co_return answer.Result();
}

}  // namespace weft::agent
