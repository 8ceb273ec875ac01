// SPDX-License-Identifier: Apache-2.0
// Unary calls: what a client may send right and wrong, several calls on one connection.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/session.h"
#include "proxy/net/io.h"
#include "proxy/net/stream_pair.h"
#include "tests/support/run_task.h"
#include "xds/server/server.h"

namespace weft::xds {
namespace {

struct Answer {
  int http = 0;
  std::string grpc, error, body;
  bool ended = false;
};

Task<GrpcReply> Echo(GrpcRequest request) {
  co_return GrpcReply{.message = request.peer.identity + "|" + request.message + "|" +
                                 std::string(request.metadata.Get("x-a").value_or("none"))};
}
Task<GrpcReply> Refuse(GrpcRequest) {
  co_return GrpcReply{.status = GrpcStatus::kPermissionDenied, .error = "no: 100%"};
}

class UnaryTest : public testing::Test {
 protected:
  UnaryTest() {
    options_->unary["/s/Echo"] = Echo;
    options_->unary["/s/Refuse"] = Refuse;
    options_->max_unary_bytes = 1000;
    auto [near, far] = net::MakeStreamPair(runner_.executor());
    near_ = std::move(near);
    runner_.Spawn(ServeGrpc(std::move(far), {.identity = "id", .address = "test"}, options_));
  }
  http::StreamId Call(const std::string& path, const std::string& bytes, bool end = true,
                      const std::string& type = "application/grpc") {
    http::RequestHead head;
    head.method = "POST";
    head.scheme = "http";
    head.authority = "x";
    head.path = path;
    head.headers.Add("content-type", type);
    head.headers.Add("x-a", "A");
    const http::StreamId id = session_->SubmitRequest(head, false);
    session_->SubmitData(id, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, end);
    return id;
  }
  static std::string Framed(const std::string& message) {
    std::string out;
    http::EncodeGrpcMessage(message, &out);
    return out;
  }
  // Writes what was submitted and reads until `count` calls have ended; then hangs up.
  Task<void> Exchange(size_t count) {
    std::vector<uint8_t> buffer(16384);
    size_t ended = 0;
    while (ended < count) {
      const std::span<const uint8_t> out = session_->Output();
      if (!out.empty()) {
        const net::IoResult written = co_await net::WriteAll(*near_, out);
        if (written.status != net::IoStatus::kOk) break;
        session_->OutputWritten(out.size());
        continue;
      }
      const net::IoResult in = co_await net::ReadSome(*near_, buffer);
      if (in.status != net::IoStatus::kOk) break;
      size_t consumed = 0;
      EXPECT_EQ(session_->Feed({buffer.data(), in.bytes}, &consumed), WEFT_R_NONE);
      for (http::Event& event : session_->events()) ended += Record(event);
      session_->ClearEvents();
    }
    near_->Close(WEFT_R_CLOSED);
  }
  bool Record(http::Event& event) {
    using Kind = http::Event::Kind;
    Answer& answer = answers_[event.stream];
    const http::HeaderList* fields = nullptr;
    bool end = event.end_stream || event.kind == Kind::kEnd || event.kind == Kind::kReset;
    if (event.kind == Kind::kResponse) {
      answer.http = event.response->status;
      fields = &event.response->headers;
    } else if (event.kind == Kind::kTrailers) {
      fields = event.trailers;
      end = true;
    } else if (event.kind == Kind::kData) {
      answer.body.append(reinterpret_cast<const char*>(event.data.data()), event.data.size());
      session_->Consume(event.stream, event.data.size());
    }
    if (fields != nullptr) {
      answer.grpc = fields->Get("grpc-status").value_or(answer.grpc);
      answer.error = fields->Get("grpc-message").value_or("");
    }
    const bool first = end && !answer.ended;
    answer.ended = answer.ended || end;
    return first;
  }

  test::TaskRunner runner_;
  std::shared_ptr<ServerOptions> options_ = std::make_shared<ServerOptions>();
  std::unique_ptr<net::Stream> near_;
  std::unique_ptr<http::Session> session_ = http::MakeHttp2Session(http::Role::kClient, {});
  std::map<http::StreamId, Answer> answers_;
};

// Whoever connects and asks for nothing must not stay; who waits for an answer may.
TEST_F(UnaryTest, ConnectionsWithoutACallEnd) {
  auto options = std::make_shared<ServerOptions>(*options_);
  options->idle_limit = std::chrono::milliseconds(20);
  auto [near, far] = net::MakeStreamPair(runner_.executor());
  bool ended = false;
  asio::co_spawn(runner_.io(), ServeGrpc(std::move(far), {.address = "test"}, options),
                 [&](std::exception_ptr) { ended = true; });
  runner_.io().restart();
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!ended && std::chrono::steady_clock::now() < limit) {
    runner_.io().run_one_for(std::chrono::milliseconds(50));
  }
  EXPECT_TRUE(ended);
  near_->Close(WEFT_R_CLOSED);
  runner_.Run();
}

TEST_F(UnaryTest, SeveralCallsOnOneConnection) {
  const auto echo = Call("/s/Echo", Framed("hello"));
  const auto refuse = Call("/s/Refuse", Framed(""));
  const auto unknown = Call("/s/What", Framed(""));
  runner_.Run(Exchange(3));
  EXPECT_EQ(answers_[echo].grpc, "0");
  EXPECT_EQ(answers_[echo].body, Framed("id|hello|A"));
  EXPECT_EQ(answers_[refuse].grpc, "7");
  EXPECT_EQ(answers_[refuse].error, "no: 100%25");
  EXPECT_EQ(answers_[unknown].grpc, "12");
  EXPECT_EQ(answers_[unknown].error, "there is no method /s/What");
}

TEST_F(UnaryTest, WhatIsNotACallGetsAnAnswerThatSaysSo) {
  const auto twice = Call("/s/Echo", Framed("a") + Framed("b"));
  const auto half = Call("/s/Echo", Framed("hello").substr(0, 7));
  const auto none = Call("/s/Echo", "");
  const auto large = Call("/s/Echo", Framed(std::string(1001, 'x')));
  const auto packed = Call("/s/Echo", std::string("\1\0\0\0\1x", 6));
  const auto type = Call("/s/Echo", Framed("a"), true, "application/json");
  const auto ads = Call(
      "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
      "DeltaAggregatedResources",
      Framed(""));
  runner_.Run(Exchange(7));
  EXPECT_EQ(answers_[twice].grpc, "3");
  EXPECT_EQ(answers_[half].grpc, "3");
  EXPECT_EQ(answers_[none].grpc, "3");
  EXPECT_EQ(answers_[large].grpc, "8");
  EXPECT_EQ(answers_[packed].grpc, "8");
  EXPECT_EQ(answers_[type].http, 415);
  EXPECT_EQ(answers_[ads].grpc, "12") << "without a cache there is no ADS";
}

}  // namespace
}  // namespace weft::xds
