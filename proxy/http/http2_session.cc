// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/http2_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <charconv>

#include "proxy/base/log.h"
#include "proxy/http/fields.h"
#include "proxy/http/http2_callbacks.h"

namespace weft::http {
namespace {

// One stream's leftovers kept for reuse; a body buffer above this is freed with its stream.
constexpr size_t kSpareStreams = 32;
constexpr size_t kSpareBodyBytes = 16 * 1024;
constexpr size_t kIdleOutputBytes = 16 * 1024;
// Unacknowledged PING and SETTINGS of the peer that nghttp2 holds back before it calls the
// connection flooded.
constexpr size_t kMaxHeldAcks = 500;
// See Http2Session::CountUseless.
constexpr uint32_t kMaxUselessFrames = 1000;
constexpr uint32_t kMaxFaults = 1000;
constexpr uint32_t kOversizeFaultWeight = 10;
constexpr uint8_t kDrainPing[8] = {'w', 'e', 'f', 't', 'd', 'r', 'n', 0};

nghttp2_nv Field(std::string_view name, std::string_view value) {
  // nghttp2 copies both; it never writes through the pointers.
  return {const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(name.data())),
          const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(value.data())), name.size(),
          value.size(), NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

void Http2Stream::Clear() {
  body.Clear();
  body.Shrink(kSpareBodyBytes);
  trailers.Clear();
  SendBuffer kept_body = std::move(body);
  HeaderList kept_trailers = std::move(trailers);
  *this = Http2Stream{};
  body = std::move(kept_body);
  trailers = std::move(kept_trailers);
}

Http2Session::Http2Session(Role role, const Limits& limits) : role_(role), limits_(limits) {
  nghttp2_option* option = nullptr;
  WEFT_CHECK(nghttp2_option_new(&option) == 0);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_max_outbound_ack(option, kMaxHeldAcks);
  // What we forward was accepted from the other side under its own limit.
  nghttp2_option_set_max_send_header_block_length(option, 256 * 1024);
  const nghttp2_session_callbacks* callbacks = Http2Callbacks::Table();
  const int error = role == Role::kServer
                        ? nghttp2_session_server_new2(&session_, callbacks, this, option)
                        : nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  WEFT_CHECK(error == 0);  // only out of memory
  SubmitSettings();
}

Http2Session::~Http2Session() { nghttp2_session_del(session_); }

void Http2Session::SubmitSettings() {
  nghttp2_settings_entry entries[6];
  size_t count = 0;
  const auto add = [&](int32_t id, uint32_t value) { entries[count++] = {id, value}; };
  if (role_ == Role::kServer) {
    add(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits_.max_concurrent_streams);
  } else {
    add(NGHTTP2_SETTINGS_ENABLE_PUSH, 0);
  }
  add(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits_.stream_window_bytes);
  if (limits_.max_frame_bytes > 16384) {
    add(NGHTTP2_SETTINGS_MAX_FRAME_SIZE, limits_.max_frame_bytes);
  }
  add(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits_.max_header_list_bytes);
  if (role_ == Role::kServer && limits_.enable_connect_protocol) {
    add(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1);
  }
  WEFT_CHECK(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries, count) == 0);
  const auto window = static_cast<int32_t>(limits_.connection_window_bytes);
  WEFT_CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, window) == 0);
}

Reason Http2Session::ProtocolReason() const {
  return role_ == Role::kServer ? WEFT_R_DOWNSTREAM_PROTOCOL_ERROR : WEFT_R_UPSTREAM_PROTOCOL_ERROR;
}

Reason Http2Session::PeerGoneReason() const {
  return role_ == Role::kServer ? WEFT_R_PEER_RESET : WEFT_R_UPSTREAM_RESET;
}

Reason Http2Session::Feed(std::span<const uint8_t> bytes, size_t* consumed) {
  events_.DropSeen();
  *consumed = bytes.size();
  if (failed_ != WEFT_R_NONE) return failed_;
  if (bytes.empty()) return WEFT_R_NONE;
  in_feed_ = true;
  const nghttp2_ssize taken = nghttp2_session_mem_recv2(session_, bytes.data(), bytes.size());
  in_feed_ = false;
  if (taken < 0 && giving_up_ == WEFT_R_NONE) {
    const uint32_t code = taken == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM
                          : taken == NGHTTP2_ERR_NOMEM ? NGHTTP2_INTERNAL_ERROR
                                                       : NGHTTP2_PROTOCOL_ERROR;
    GiveUp(code, taken == NGHTTP2_ERR_NOMEM ? WEFT_R_INTERNAL_ERROR : ProtocolReason());
  }
  if (connection_credit_bytes_ > 0) {
    nghttp2_session_consume_connection(session_, connection_credit_bytes_);
    connection_credit_bytes_ = 0;
  }
  // Also the way to learn that nghttp2 has given up: it says so by the GOAWAY it sends.
  Pump();
  return failed_;
}

void Http2Session::FeedEof() {
  events_.DropSeen();
  if (failed_ != WEFT_R_NONE) return;
  Fail(PeerGoneReason());
}

Http2Stream* Http2Session::Find(StreamId id) {
  if (last_found_ != nullptr && last_found_->id == id) return last_found_;
  const auto it = streams_.find(id);
  if (it == streams_.end()) return nullptr;
  last_found_ = it->second.get();
  return last_found_;
}

Http2Stream& Http2Session::Open(StreamId id) {
  std::unique_ptr<Http2Stream> stream;
  if (spare_streams_.empty()) {
    stream = std::make_unique<Http2Stream>();
  } else {
    stream = std::move(spare_streams_.back());
    spare_streams_.pop_back();
  }
  stream->id = id;
  last_found_ = stream.get();
  streams_[id] = std::move(stream);
  return *last_found_;
}

void Http2Session::Close(StreamId id) {
  const auto it = streams_.find(id);
  if (it == streams_.end()) return;
  std::unique_ptr<Http2Stream> stream = std::move(it->second);
  streams_.erase(it);
  if (last_found_ == stream.get()) last_found_ = nullptr;
  if (stream->unconsumed_bytes > 0) {
    // Not from inside a callback of nghttp2: Feed() gives it back when that is over.
    if (in_feed_) {
      connection_credit_bytes_ += stream->unconsumed_bytes;
    } else {
      nghttp2_session_consume_connection(session_, stream->unconsumed_bytes);
    }
  }
  if (spare_streams_.size() < kSpareStreams) {
    stream->Clear();
    spare_streams_.push_back(std::move(stream));
  }
}

void Http2Session::ResetAll(Reason reason) {
  const ResetCode code =
      reason == PeerGoneReason() ? ResetCode::kCancel : ResetCode::kProtocolError;
  std::vector<StreamId> ids;
  for (const auto& [id, stream] : streams_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (StreamId id : ids) {
    Http2Stream* stream = Find(id);
    if (stream->announced) events_.PushReset(id, reason, code);
  }
  streams_.clear();
  last_found_ = nullptr;
}

void Http2Session::Fail(Reason reason) {
  if (failed_ != WEFT_R_NONE) return;
  failed_ = reason;
  ResetAll(reason);
}

void Http2Session::GiveUp(uint32_t error_code, Reason reason) {
  if (giving_up_ == WEFT_R_NONE) giving_up_ = reason;
  nghttp2_session_terminate_session(session_, error_code);
}

void Http2Session::CountUseless() {
  if (++useless_frames_ > kMaxUselessFrames) GiveUp(NGHTTP2_ENHANCE_YOUR_CALM, ProtocolReason());
}

void Http2Session::CountFault(uint32_t weight) {
  faults_ += weight;
  if (faults_ > kMaxFaults) GiveUp(NGHTTP2_ENHANCE_YOUR_CALM, ProtocolReason());
}

void Http2Session::PushFields(const HeaderList& headers) {
  for (size_t i = 0; i < headers.size(); ++i) {
    const HeaderList::Field field = headers[i];
    if (IsConnectionField(field.name) || field.name == "upgrade") continue;
    if (field.name.empty() || field.name[0] == ':') continue;
    if (field.name == "te" && !EqualsIgnoreCase(field.value, "trailers")) continue;
    fields_.push_back(Field(field.name, field.value));
  }
}

bool Http2Session::can_open_stream() const {
  if (role_ != Role::kClient || failed_ != WEFT_R_NONE || draining_ || peer_is_draining_) {
    return false;
  }
  if (nghttp2_session_check_request_allowed(session_) == 0) return false;
  return streams_.size() <
         nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

StreamId Http2Session::SubmitRequest(const RequestHead& head, bool end_stream) {
  if (!can_open_stream()) return 0;
  fields_.clear();
  const bool connect = head.method == "CONNECT";
  fields_.push_back(Field(":method", head.method));
  if (!connect || !head.protocol.empty()) {
    const std::string_view scheme = head.scheme.empty() ? "http" : std::string_view(head.scheme);
    fields_.push_back(Field(":scheme", scheme));
    fields_.push_back(Field(":path", head.path));
  }
  if (!head.authority.empty()) fields_.push_back(Field(":authority", head.authority));
  if (!head.protocol.empty()) fields_.push_back(Field(":protocol", head.protocol));
  PushFields(head.headers);
  nghttp2_data_provider2 provider = {};
  provider.read_callback = &Http2Callbacks::ReadBody;
  const int32_t id = nghttp2_submit_request2(session_, nullptr, fields_.data(), fields_.size(),
                                             end_stream ? nullptr : &provider, nullptr);
  if (id < 0) {
    peer_is_draining_ = true;  // stream ids are used up: this connection takes no more requests
    return 0;
  }
  Http2Stream& stream = Open(id);
  stream.announced = true;
  stream.head_sent = true;
  stream.send_ended = end_stream;
  return id;
}

void Http2Session::SubmitResponse(StreamId id, const ResponseHead& head, bool end_stream) {
  Http2Stream* stream = Find(id);
  if (stream == nullptr || role_ != Role::kServer || stream->head_sent) return;
  char status[8];
  const char* status_end = std::to_chars(status, status + sizeof status, head.status).ptr;
  fields_.clear();
  fields_.push_back(Field(":status", {status, static_cast<size_t>(status_end - status)}));
  PushFields(head.headers);
  if (head.status < 200) {
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, id, nullptr, fields_.data(), fields_.size(),
                           nullptr);
    return;
  }
  nghttp2_data_provider2 provider = {};
  provider.read_callback = &Http2Callbacks::ReadBody;
  stream->head_sent = true;
  stream->send_ended = end_stream;
  const int error = nghttp2_submit_response2(session_, id, fields_.data(), fields_.size(),
                                             end_stream ? nullptr : &provider);
  if (error != 0) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
  }
}

void Http2Session::ResumeBody(Http2Stream& stream) {
  if (!stream.deferred) return;
  stream.deferred = false;
  nghttp2_session_resume_data(session_, stream.id);
}

void Http2Session::SubmitData(StreamId id, std::span<const uint8_t> data, bool end_stream) {
  Http2Stream* stream = Find(id);
  if (stream == nullptr || !stream->head_sent || stream->send_ended) return;
  if (data.empty() && !end_stream) return;
  stream->body.Append(data.data(), data.size());
  stream->send_ended = end_stream;
  if (stream->body.size() > kLowMarkBytes) stream->above_mark = true;
  ResumeBody(*stream);
}

void Http2Session::SubmitTrailers(StreamId id, const HeaderList& trailers) {
  Http2Stream* stream = Find(id);
  if (stream == nullptr || !stream->head_sent || stream->send_ended) return;
  stream->trailers = trailers;
  stream->has_trailers = !trailers.empty();
  stream->send_ended = true;
  ResumeBody(*stream);
}

// The last DATA frame is on its way; what remains are the trailers.
void Http2Session::EndBody(Http2Stream& stream) {
  fields_.clear();
  PushFields(stream.trailers);
  nghttp2_submit_trailer(session_, stream.id, fields_.data(), fields_.size());
}

void Http2Session::Reset(StreamId id, ResetCode code) {
  if (Find(id) == nullptr) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, static_cast<uint32_t>(code));
  Close(id);
}

void Http2Session::Consume(StreamId id, size_t bytes) {
  Http2Stream* stream = Find(id);
  if (stream == nullptr) return;  // given back when it closed
  const size_t returned = std::min(bytes, stream->unconsumed_bytes);
  stream->unconsumed_bytes -= returned;
  if (returned > 0) nghttp2_session_consume(session_, id, returned);
}

void Http2Session::RefuseOversize(Http2Stream& stream) {
  const StreamId id = stream.id;
  CountFault(kOversizeFaultWeight);
  if (role_ == Role::kServer && !stream.head_received) {
    const nghttp2_nv fields[] = {Field(":status", "431"), Field("content-length", "0")};
    nghttp2_submit_response2(session_, id, fields, 2, nullptr);
    Close(id);  // OnFrameSent resets what the peer still wants to send
    return;
  }
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM);
  if (stream.announced) {
    events_.PushReset(id, WEFT_R_HEADERS_TOO_LARGE, ResetCode::kEnhanceYourCalm);
  }
  Close(id);
}

void Http2Session::StartDrain() {
  if (draining_ || failed_ != WEFT_R_NONE) return;
  draining_ = true;
  if (role_ == Role::kClient) {
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, nullptr, 0);
    final_goaway_submitted_ = true;
    return;
  }
  // RFC 9113 6.8: a notice first; the final GOAWAY follows when the peer has certainly seen it
  // (http2_callbacks.cc).
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, kDrainPing);
}

void Http2Session::Pump() {
  const int error = nghttp2_session_send(session_);
  if (giving_up_ != WEFT_R_NONE) {
    Fail(giving_up_);
  } else if (error != 0) {
    Fail(WEFT_R_INTERNAL_ERROR);
  }
}

std::span<const uint8_t> Http2Session::Output() {
  Pump();
  return output_.bytes();
}

void Http2Session::OutputWritten(size_t bytes) {
  output_.RemovePrefix(bytes);
  if (output_.empty()) acks_waiting_ = 0;
  if (streams_.empty()) output_.Shrink(kIdleOutputBytes);
}

size_t Http2Session::buffered_bytes(StreamId id) const {
  const auto it = streams_.find(id);
  return it == streams_.end() ? 0 : it->second->body.size();
}

bool Http2Session::finished() const {
  if (failed_ != WEFT_R_NONE) return true;
  if (!streams_.empty()) return false;
  if (draining_ && final_goaway_submitted_) return true;
  if (role_ == Role::kClient && peer_is_draining_) return true;
  return nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
}

std::unique_ptr<Session> MakeHttp2Session(Role role, const Limits& limits) {
  return std::make_unique<Http2Session>(role, limits);
}

}  // namespace weft::http
