// SPDX-License-Identifier: Apache-2.0
// An HTTP/2 session fed with anything behind a valid preface: first byte the role, second how the
// input is cut, third what the caller does with events, the rest frames. Properties: events only of
// streams that were announced and are not over; nothing is left open after an error; what waits to
// be written is bounded.
#include <set>

#include "proxy/http/session.h"
#include "tests/fuzz/fuzz.h"

namespace weft {
namespace {

using http::Event;

constexpr http::Limits kLimits{.max_concurrent_streams = 10,
                               .stream_window_bytes = 1000,
                               .max_header_list_bytes = 2000,
                               .max_header_count = 20};

class Caller final {
 public:
  Caller(http::Role role, uint8_t habits)
      : session_(http::MakeHttp2Session(role, kLimits)), role_(role), habits_(habits) {
    if (role != http::Role::kClient) return;
    for (int i = 0; i < 3; ++i) {
      http::RequestHead head;
      head.method = i == 2 ? "CONNECT" : "GET";
      head.scheme = "http";
      head.authority = "h";
      head.path = "/";
      const http::StreamId id = session_->SubmitRequest(head, i == 0);
      FUZZ_CHECK(id == 2 * i + 1);
      known_.insert(id);
    }
  }

  bool Feed(std::span<const uint8_t> bytes) {
    const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
    size_t consumed = 0;
    const Reason reason = session_->Feed(copy, &consumed);
    FUZZ_CHECK(consumed == copy.size());
    Handle();
    if ((habits_ & 1) != 0 || reason != WEFT_R_NONE) Write();
    if (reason == WEFT_R_NONE) return true;
    FUZZ_CHECK(session_->finished() && session_->open_streams() == 0 && known_.empty());
    return false;
  }
  void Finish() {
    session_->FeedEof();
    Handle();
    FUZZ_CHECK(session_->open_streams() == 0 && known_.empty());
  }

 private:
  void Handle() {
    std::set<http::StreamId> dropped;
    for (const Event& event : session_->events()) {
      if (event.kind == Event::Kind::kGoAway) continue;
      if (event.kind == Event::Kind::kRequest) FUZZ_CHECK(known_.insert(event.stream).second);
      if (dropped.contains(event.stream)) continue;
      FUZZ_CHECK(known_.contains(event.stream));
      if (event.kind == Event::Kind::kReset) {
        known_.erase(event.stream);
        dropped.insert(event.stream);
      }
      const bool over = event.end_stream || event.kind == Event::Kind::kEnd ||
                        event.kind == Event::Kind::kTrailers;
      if (event.kind == Event::Kind::kData && (habits_ & 2) != 0)
        session_->Consume(event.stream, event.data.size());
      if (over) Answer(event.stream, &dropped);
    }
    session_->ClearEvents();
  }
  void Answer(http::StreamId id, std::set<http::StreamId>* dropped) {
    if (role_ == http::Role::kClient || (habits_ & 4) != 0) {
      session_->Reset(id, http::ResetCode::kCancel);
      known_.erase(id);
      dropped->insert(id);
      return;
    }
    http::ResponseHead head;
    head.status = 200;
    head.headers.Add("a", "b");
    session_->SubmitResponse(id, head, false);
    const std::vector<uint8_t> body(3000, 'x');
    session_->SubmitData(id, body, false);
    http::HeaderList trailers;
    trailers.Add("t", "v");
    if ((habits_ & 8) != 0) {
      session_->SubmitTrailers(id, trailers);
    } else {
      session_->SubmitData(id, {}, true);
    }
    closing_.insert(id);
  }
  void Write() {
    const auto out = session_->Output();
    FUZZ_CHECK(out.size() < 200 * 1024);
    session_->OutputWritten(out.size());
    Handle();
    // A stream that ended on both sides goes without a word.
    for (http::StreamId id : closing_) {
      if (session_->buffered_bytes(id) == 0) known_.erase(id);
    }
  }

  std::unique_ptr<http::Session> session_;
  const http::Role role_;
  const uint8_t habits_;
  std::set<http::StreamId> known_, closing_;
};

}  // namespace
}  // namespace weft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  weft::fuzz::Decisions decisions({data, size});
  const bool server = decisions.Byte() % 2 == 0;
  const size_t cut = 1 + size_t{decisions.Byte()} * 8;
  weft::Caller caller(server ? weft::http::Role::kServer : weft::http::Role::kClient,
                      decisions.Byte());
  std::string wire = server ? std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") : std::string();
  wire.append(std::string("\0\0\0\4\0\0\0\0\0", 9)).append(weft::fuzz::Text(decisions.Rest()));
  for (size_t at = 0; at < wire.size(); at += cut) {
    const std::string_view piece = std::string_view(wire).substr(at, cut);
    if (!caller.Feed({reinterpret_cast<const uint8_t*>(piece.data()), piece.size()})) return 0;
  }
  caller.Finish();
  return 0;
}
