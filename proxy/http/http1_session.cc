// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/http1_session.h"

#include <algorithm>
#include <charconv>

#include "proxy/http/fields.h"
#include "proxy/http/http1_parse.h"
#include "proxy/http/http1_write.h"

namespace weft::http {
namespace {

constexpr size_t kIdleOutputBytes = 16 * 1024;
// What is left of a request body that nobody wants is read to keep the connection, up to this.
constexpr size_t kMaxDiscardBytes = 64 * 1024;

bool MayHaveBody(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

}  // namespace

Http1Session::Http1Session(Role role, const Limits& limits) : role_(role), limits_(limits) {
  llhttp_init(&parser_, role == Role::kServer ? HTTP_REQUEST : HTTP_RESPONSE, Http1Settings());
  parser_.data = this;
}

Reason Http1Session::ProtocolReason() const {
  if (got_.too_large) return WEFT_R_HEADERS_TOO_LARGE;
  return role_ == Role::kServer ? WEFT_R_DOWNSTREAM_PROTOCOL_ERROR : WEFT_R_UPSTREAM_PROTOCOL_ERROR;
}

bool Http1Session::wants_input() const {
  if (phase_ == Phase::kWaiting) return false;
  const bool body = phase_ == Phase::kBody || phase_ == Phase::kRaw;
  return !body || unconsumed_bytes_ < limits_.stream_window_bytes;
}

std::span<Event> Http1Session::events() {
  if (upgraded_unsaid_) {
    upgraded_unsaid_ = false;
    events_.Push(Event::Kind::kUpgraded, current_);
  }
  return events_.Look();
}

// Makes the parser and the fields of a message ready for the next one. Never from inside a
// callback.
void Http1Session::BeginMessage() {
  llhttp_reset(&parser_);
  const uint32_t informational_count = got_.informational ? got_.informational_count : 0;
  got_ = Receiving{};
  got_.informational_count = informational_count;
  target_.Clear();
  name_.Clear();
  value_.Clear();
  host_.clear();
  connection_.clear();
  upgrade_value_.clear();
  trailers_.Clear();
  if (role_ == Role::kServer) {
    request_.Clear();
  } else {
    response_.Clear();
  }
}

void Http1Session::Open() {
  current_ += 2;
  open_ = true;
  sent_ = Sending{};
  unconsumed_bytes_ = 0;
  discarding_ = false;
  discarded_bytes_ = 0;
  above_mark_ = false;
}

void Http1Session::Close() {
  phase_ = Phase::kClosed;
  open_ = false;
}

void Http1Session::Fail(Reason reason) {
  failed_ = reason;
  if (role_ == Role::kServer && !sent_.head) {
    WriteStatusLine(reason == WEFT_R_HEADERS_TOO_LARGE ? 431 : got_.error_status, &output_);
    output_.Append("connection: close\r\ncontent-length: 0\r\n\r\n");
  }
  if (open_) events_.PushReset(current_, reason, ResetCode::kProtocolError);
  Close();
}

void Http1Session::MaybeFinish() {
  if (!got_.ended || !sent_.ended || phase_ == Phase::kRaw || phase_ == Phase::kClosed) return;
  open_ = false;
  if (!keep_alive_ || sent_.cut || peer_half_closed_) return Close();
  phase_ = Phase::kIdle;
  sent_ = Sending{};
  BeginMessage();
}

// Runs the parser over `bytes` until they are used up, one message is complete, or they are
// refused.
size_t Http1Session::Parse(std::span<const uint8_t> bytes) {
  const char* begin = reinterpret_cast<const char*>(bytes.data());
  const llhttp_errno_t error = llhttp_execute(&parser_, begin, bytes.size());
  target_.Hold();
  name_.Hold();
  value_.Hold();
  if (error == HPE_OK) return bytes.size();
  if (error != HPE_PAUSED) {
    Fail(ProtocolReason());
    return bytes.size();
  }
  const size_t taken = static_cast<size_t>(llhttp_get_error_pos(&parser_) - begin);
  if (got_.informational) {
    BeginMessage();
    phase_ = Phase::kHead;
    return taken;
  }
  if (upgraded_unsaid_) {
    EnterRaw();
  } else if (role_ == Role::kClient && !sent_.ended) {
    // The upstream has answered before it had the whole request; the rest has nowhere to go.
    events_.PushReset(current_, WEFT_R_NONE, ResetCode::kNoError);
    Close();
  } else {
    MaybeFinish();
  }
  return taken;
}

Reason Http1Session::Feed(std::span<const uint8_t> bytes, size_t* consumed) {
  events_.DropSeen();
  size_t taken = 0;
  while (taken < bytes.size()) {
    const std::span<const uint8_t> rest = bytes.subspan(taken);
    if (phase_ == Phase::kIdle && role_ == Role::kClient) Close();  // nobody asked: not reusable
    if (phase_ == Phase::kIdle && draining_) Close();
    if (phase_ == Phase::kClosed) {
      taken = bytes.size();
      break;
    }
    if (!wants_input()) break;
    if (phase_ == Phase::kRaw) {
      (void)events();  // kUpgraded comes first
      events_.Push(Event::Kind::kData, current_).data = rest;
      unconsumed_bytes_ += rest.size();
      taken = bytes.size();
      break;
    }
    taken += Parse(rest);
    if (discarding_ && discarded_bytes_ > kMaxDiscardBytes) Close();
  }
  *consumed = taken;
  return failed_;
}

void Http1Session::FeedEof() {
  events_.DropSeen();
  peer_half_closed_ = true;
  switch (phase_) {
    case Phase::kIdle:
      Close();
      break;
    case Phase::kWaiting:  // a request that is waiting for its answer still gets it
      break;
    case Phase::kRaw:
      (void)events();
      if (got_.ended) break;
      got_.ended = true;
      events_.Push(Event::Kind::kEnd, current_);
      if (sent_.ended) Close();
      break;
    case Phase::kHead:
    case Phase::kBody:
      // llhttp knows whether this message is one that the end of the connection ends.
      if (role_ == Role::kClient && phase_ == Phase::kBody) (void)llhttp_finish(&parser_);
      if (got_.ended) {
        if (!sent_.ended) events_.PushReset(current_, WEFT_R_NONE, ResetCode::kNoError);
      } else if (open_) {
        events_.PushReset(current_,
                          role_ == Role::kServer ? WEFT_R_PEER_RESET : WEFT_R_UPSTREAM_RESET,
                          ResetCode::kCancel);
      }
      Close();
      break;
    case Phase::kClosed:
      break;
  }
}

bool Http1Session::can_open_stream() const {
  return role_ == Role::kClient && phase_ == Phase::kIdle && !draining_ && !peer_half_closed_;
}

// Content-Length if the head has one, else chunked. False if the length is no number.
bool Http1Session::BeginFraming(const HeaderList& headers) {
  const std::optional<std::string_view> length = headers.Get("content-length");
  if (!length.has_value()) {
    sent_.chunked = true;
    return true;
  }
  sent_.counted = true;
  const char* end = length->data() + length->size();
  const auto parsed = std::from_chars(length->data(), end, sent_.remaining_bytes);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

StreamId Http1Session::SubmitRequest(const RequestHead& head, bool end_stream) {
  if (!can_open_stream()) return 0;
  const bool connect = head.method == "CONNECT";
  const std::string_view target = connect ? head.authority : head.path;
  if (target.empty() || !IsValidTarget(target) || !IsValidTarget(head.method) ||
      !IsValidAuthority(head.authority) || !head.protocol.empty()) {
    return 0;
  }
  Open();
  connect_ = connect;
  head_request_ = head.method == "HEAD";
  upgrade_ = end_stream && head.headers.Get("upgrade").has_value();
  early_.Clear();
  early_ended_ = false;
  if (!end_stream && !connect && !BeginFraming(head.headers)) {
    open_ = false;
    return 0;
  }
  output_.Append(head.method);
  output_.Append(" ");
  output_.Append(target);
  output_.Append(" HTTP/1.1\r\nhost: ");
  output_.Append(head.authority);
  output_.Append("\r\n");
  WriteFields(head.headers, {.upgrade = upgrade_, .content_length = !connect}, &output_);
  if (upgrade_) output_.Append("connection: upgrade\r\n");
  if (sent_.chunked) output_.Append("transfer-encoding: chunked\r\n");
  if (end_stream && MayHaveBody(head.method) && !head.headers.Get("content-length").has_value()) {
    output_.Append("content-length: 0\r\n");
  }
  output_.Append("\r\n");
  sent_.head = true;
  sent_.ended = end_stream || connect;
  phase_ = Phase::kHead;
  return current_;
}

void Http1Session::WriteResponseHead(const ResponseHead& head, bool end_stream) {
  const int status = head.status;
  sent_.bodiless = head_request_ || status == 204 || status == 304;
  WriteStatusLine(status, &output_);
  WriteFields(head.headers, {.content_length = status != 204}, &output_);
  if (!sent_.bodiless) {
    const bool has_length = head.headers.Get("content-length").has_value();
    if (end_stream && !has_length) {
      output_.Append("content-length: 0\r\n");
    } else if (http10_ && !has_length) {
      keep_alive_ = false;  // the end of the connection is the end of the body
    } else if (!BeginFraming(head.headers)) {
      keep_alive_ = false;
    } else if (sent_.chunked) {
      output_.Append("transfer-encoding: chunked\r\n");
    }
  }
  if (draining_ || connect_) keep_alive_ = false;
  if (!keep_alive_) {
    output_.Append("connection: close\r\n");
  } else if (http10_) {
    output_.Append("connection: keep-alive\r\n");
  }
  output_.Append("\r\n");
}

void Http1Session::SubmitResponse(StreamId id, const ResponseHead& head, bool end_stream) {
  if (id != current_ || !open_ || sent_.head || role_ != Role::kServer) return;
  const int status = head.status;
  if (status < 200 && status != 101) {
    if (http10_) return;
    WriteStatusLine(status, &output_);
    WriteFields(head.headers, {.content_length = false}, &output_);
    output_.Append("\r\n");
    return;
  }
  if (status == 101 || (connect_ && status / 100 == 2)) {
    if (!got_.ended || (status == 101 && !upgrade_)) return Reset(id, ResetCode::kInternalError);
    WriteStatusLine(status, &output_);
    WriteFields(head.headers, {.upgrade = status == 101, .content_length = false}, &output_);
    if (status == 101) output_.Append("connection: upgrade\r\n");
    output_.Append("\r\n");
    upgraded_unsaid_ = true;
    return EnterRaw();
  }
  sent_.head = true;
  WriteResponseHead(head, end_stream);
  if (end_stream) EndSending();
}

// From here bytes are bytes: what was HTTP's end of a message no longer counts.
void Http1Session::EnterRaw() {
  phase_ = Phase::kRaw;
  keep_alive_ = false;
  got_.ended = false;
  sent_ = Sending{};
  sent_.head = true;
  if (role_ == Role::kClient) {
    output_.Append(std::string_view(early_.data(), early_.size()));
    early_.Clear();
    sent_.ended = early_ended_;
  }
  if (peer_half_closed_) {
    (void)events();
    got_.ended = true;
    events_.Push(Event::Kind::kEnd, current_);
  }
}

void Http1Session::WriteBody(std::string_view data) {
  if (data.empty() || sent_.bodiless) return;
  if (sent_.chunked) return WriteChunk(data, &output_);
  if (sent_.counted) {
    if (data.size() > sent_.remaining_bytes) {
      // More than announced: cut here, and say so by closing.
      data = data.substr(0, sent_.remaining_bytes);
      sent_.cut = true;
    }
    sent_.remaining_bytes -= data.size();
  }
  output_.Append(data);
}

void Http1Session::MarkBuffered() {
  if (output_.size() + early_.size() > kLowMarkBytes) above_mark_ = true;
}

void Http1Session::SubmitData(StreamId id, std::span<const uint8_t> data, bool end_stream) {
  if (id != current_ || !open_) return;
  const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
  if (role_ == Role::kClient && (connect_ || upgrade_) && phase_ != Phase::kRaw) {
    early_.Append(text);
    early_ended_ = early_ended_ || end_stream;
    return MarkBuffered();
  }
  if (!sent_.head || sent_.ended) return;
  WriteBody(text);
  MarkBuffered();
  if (end_stream) EndSending();
}

void Http1Session::SubmitTrailers(StreamId id, const HeaderList& trailers) {
  if (id != current_ || !open_ || !sent_.head || sent_.ended) return;
  if (sent_.chunked && !sent_.bodiless) {
    output_.Append("0\r\n");
    WriteFields(trailers, {.content_length = false}, &output_);
    output_.Append("\r\n");
    sent_.chunked = false;
  }
  EndSending();
}

void Http1Session::EndSending() {
  if (sent_.chunked && !sent_.bodiless) output_.Append("0\r\n\r\n");
  if (sent_.counted && sent_.remaining_bytes > 0 && !sent_.bodiless) sent_.cut = true;
  sent_.ended = true;
  if (phase_ == Phase::kRaw) {
    if (got_.ended) Close();
    return;
  }
  if (role_ == Role::kServer) MaybeFinish();
}

void Http1Session::Reset(StreamId id, ResetCode) {
  if (id != current_ || !open_) return;
  open_ = false;
  // A response that is complete is not spoiled by a request body that nobody reads.
  if (role_ == Role::kServer && sent_.ended && phase_ == Phase::kBody && keep_alive_) {
    discarding_ = true;
    unconsumed_bytes_ = 0;
    return;
  }
  Close();
}

void Http1Session::Consume(StreamId id, size_t bytes) {
  if (id == current_) unconsumed_bytes_ -= std::min(bytes, unconsumed_bytes_);
}

void Http1Session::OutputWritten(size_t bytes) {
  output_.RemovePrefix(bytes);
  if (above_mark_ && output_.size() <= kLowMarkBytes) {
    above_mark_ = false;
    if (open_ && !sent_.ended) events_.Push(Event::Kind::kWritable, current_);
  }
  if (phase_ == Phase::kIdle) output_.Shrink(kIdleOutputBytes);
}

size_t Http1Session::buffered_bytes(StreamId id) const {
  return id == current_ && open_ ? output_.size() + early_.size() : 0;
}

bool Http1Session::finished() const {
  return phase_ == Phase::kClosed || (phase_ == Phase::kIdle && draining_);
}

std::unique_ptr<Session> MakeHttp1Session(Role role, const Limits& limits) {
  return std::make_unique<Http1Session>(role, limits);
}

}  // namespace weft::http
