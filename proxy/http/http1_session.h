// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 (llhttp, strict) behind session.h: one message a direction at a time. http1_parse.cc has
// llhttp's callbacks and the rules for heads, http1_session.cc what callers call, http1_write.cc
// the bytes of heads. Thread: the caller's. Holds at most one header section and what was
// submitted; bodies are passed on, never kept. Internal to proxy/http: others use
// MakeHttp1Session().
#pragma once
#include <llhttp.h>

#include <string>
#include <string_view>

#include "proxy/http/event_queue.h"
#include "proxy/http/send_buffer.h"
#include "proxy/http/session.h"

namespace weft::http {

// A piece of the head: a view into the input while it came in one part, else a copy.
class Http1Token final {
 public:
  void Add(const char* at, size_t size) {
    if (held_.empty() && view_.empty()) {
      view_ = {at, size};
      return;
    }
    Hold();
    held_.append(at, size);
    view_ = held_;
  }
  // The input is about to go away.
  void Hold() {
    if (held_.empty() && !view_.empty()) {
      held_ = view_;
      view_ = held_;
    }
  }
  void Clear() {
    view_ = {};
    held_.clear();
  }
  std::string_view view() const { return view_; }

 private:
  std::string_view view_;
  std::string held_;
};

class Http1Session final : public Session {
 public:
  Http1Session(Role role, const Limits& limits);
  Http1Session(const Http1Session&) = delete;
  Http1Session& operator=(const Http1Session&) = delete;

  [[nodiscard]] Reason Feed(std::span<const uint8_t> bytes, size_t* consumed) override;
  bool wants_input() const override;
  void FeedEof() override;
  std::span<Event> events() override;
  void ClearEvents() override { events_.Clear(); }
  StreamId SubmitRequest(const RequestHead& head, bool end_stream) override;
  void SubmitResponse(StreamId id, const ResponseHead& head, bool end_stream) override;
  void SubmitData(StreamId id, std::span<const uint8_t> data, bool end_stream) override;
  void SubmitTrailers(StreamId id, const HeaderList& trailers) override;
  void Reset(StreamId id, ResetCode code) override;
  void Consume(StreamId id, size_t bytes) override;
  void StartDrain() override { draining_ = true; }
  std::span<const uint8_t> Output() override { return output_.bytes(); }
  void OutputWritten(size_t bytes) override;
  size_t buffered_bytes(StreamId id) const override;
  size_t open_streams() const override { return open_ ? 1 : 0; }
  bool can_open_stream() const override;
  bool finished() const override;
  bool receiving_head() const override { return role_ == Role::kServer && phase_ == Phase::kHead; }
  bool is_http2() const override { return false; }
  bool output_ended() const override { return phase_ == Phase::kRaw && sent_.ended; }

 private:
  friend struct Http1Callbacks;

  enum class Phase : uint8_t {
    kIdle,     // server: the next request may begin; client: no request is out
    kHead,     // inside a header section (client: waiting for one)
    kBody,     // its body and trailers
    kWaiting,  // the peer's message is complete, ours is not
    kRaw,      // no HTTP any more
    kClosed,   // input is ignored
  };
  // How the message that we send ends.
  struct Sending {
    bool head = false;  // final head written
    bool ended = false;
    bool chunked = false;
    bool bodiless = false;  // HEAD, 204, 304: body bytes are swallowed
    bool counted = false;   // by Content-Length
    bool cut = false;       // not as long as announced: the connection cannot be used again
    uint64_t remaining_bytes = 0;
  };
  struct Receiving {
    bool ended = false;
    bool end_announced = false;  // by end_stream on the head, or by trailers
    bool informational = false;
    bool too_large = false;
    int error_status = 400;
    uint32_t informational_count = 0;
    size_t head_bytes = 0;
    size_t extension_bytes = 0;
    uint32_t transfer_encodings = 0;
    bool has_host = false;
    bool is_upgrade = false;  // has an Upgrade field, and Connection names it
  };

  size_t Parse(std::span<const uint8_t> bytes);
  void BeginMessage();
  void Open();
  // Both directions of the exchange may be over: then the next one, or the end.
  void MaybeFinish();
  void EndSending();
  void EnterRaw();
  void Close();
  void Fail(Reason reason);
  void WriteResponseHead(const ResponseHead& head, bool end_stream);
  void WriteBody(std::string_view data);
  bool BeginFraming(const HeaderList& headers);
  void MarkBuffered();
  Reason ProtocolReason() const;

  // http1_parse.cc: return what llhttp expects from the callback.
  int OnSpan(Http1Token* token, const char* at, size_t size);
  int OnField();
  int OnHeadComplete();
  int OnRequestHead();
  int OnResponseHead();
  int OnMessageComplete();
  bool TakeConnectionFields();
  bool SplitTarget(std::string_view target);

  const Role role_;
  const Limits limits_;
  llhttp_t parser_;
  Phase phase_ = Phase::kIdle;
  Reason failed_ = WEFT_R_NONE;
  bool draining_ = false;
  bool peer_half_closed_ = false;

  // The exchange.
  StreamId current_ = -1;
  bool open_ = false;  // the caller knows `current_` and it is not over
  bool keep_alive_ = true;
  bool http10_ = false;        // server: the request's version
  bool head_request_ = false;  // method HEAD
  bool connect_ = false;       // method CONNECT
  bool upgrade_ = false;       // the request asks for an upgrade
  bool upgraded_unsaid_ = false;
  bool discarding_ = false;  // after Reset(): the rest of a request body, up to a bound
  size_t discarded_bytes_ = 0;
  size_t unconsumed_bytes_ = 0;
  Receiving got_;
  Sending sent_;

  EventQueue events_;
  Http1Token target_, name_, value_;
  std::string host_, connection_, upgrade_value_;
  RequestHead request_;
  ResponseHead response_;
  HeaderList trailers_;
  SendBuffer output_;
  SendBuffer early_;  // client: submitted after CONNECT or an upgrade request, before the answer
  bool early_ended_ = false;
  bool above_mark_ = false;
};

}  // namespace weft::http
