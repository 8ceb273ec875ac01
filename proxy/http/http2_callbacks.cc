// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/http2_callbacks.h"

#include <algorithm>
#include <charconv>

#include "proxy/base/log.h"
#include "proxy/http/fields.h"

namespace weft::http {
namespace {

// Bodies are framed until this much waits to be written; what a slow reader leaves behind stays in
// the streams' buffers, where buffered_bytes() shows it.
constexpr size_t kOutputMarkBytes = 64 * 1024;
// Head room for control frames and header blocks.
constexpr size_t kOutputLimitBytes = 128 * 1024;
// A peer that asks and does not read the answers is flooding us.
constexpr uint32_t kMaxAcksWaiting = 500;
// A header block that decompresses to this many times the limit is a bomb, not a large request: no
// answer, no more of it.
constexpr size_t kBombFactor = 4;

Http2Session& Self(void* self) { return *static_cast<Http2Session*>(self); }

std::string_view Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Pseudo fields; nghttp2 has checked that they are known, unique, complete and in front.
void SetPseudo(RequestHead* head, std::string_view name, std::string_view value) {
  if (name == ":method") head->method = value;
  if (name == ":scheme") head->scheme = value;
  if (name == ":authority") head->authority = value;
  if (name == ":path") head->path = value;
  if (name == ":protocol") head->protocol = value;
}

}  // namespace

const nghttp2_session_callbacks* Http2Callbacks::Table() {
  static const nghttp2_session_callbacks* const kTable = [] {
    nghttp2_session_callbacks* table = nullptr;
    WEFT_CHECK(nghttp2_session_callbacks_new(&table) == 0);
    nghttp2_session_callbacks_set_on_begin_frame_callback(table, &OnBeginFrame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(table, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(table, &OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(table, &OnFrame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(table, &OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(table, &OnClose);
    nghttp2_session_callbacks_set_on_frame_send_callback(table, &OnFrameSent);
    nghttp2_session_callbacks_set_send_callback2(table, &Send);
    nghttp2_session_callbacks_set_send_data_callback(table, &SendBody);
    return table;
  }();
  return kTable;
}

// No other frame may come within a header block, so any that does ends it. A block that we gave up
// ends with its stream: nghttp2 reads past the rest without telling.
int Http2Callbacks::OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* self) {
  if (head->type == NGHTTP2_CONTINUATION) return 0;
  Self(self).head_stream_ = head->type == NGHTTP2_HEADERS ? head->stream_id : 0;
  return 0;
}

int Http2Callbacks::OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  Http2Session& session = Self(self);
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) session.Open(frame->hd.stream_id);
  Http2Stream* stream = session.Find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  stream->too_large = false;
  session.block_bytes_ = 0;
  session.host_seen_ = false;
  if (stream->head_received) {
    session.trailers_.Clear();
  } else if (session.role_ == Role::kServer) {
    session.request_.Clear();
  } else {
    session.response_.Clear();
  }
  return 0;
}

int Http2Callbacks::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name_data,
                             size_t name_size, const uint8_t* value_data, size_t value_size,
                             uint8_t, void* self) {
  Http2Session& session = Self(self);
  Http2Stream* stream = session.Find(frame->hd.stream_id);
  if (stream == nullptr || frame->hd.type != NGHTTP2_HEADERS) return 0;
  session.block_bytes_ += name_size + value_size + 1;
  if (session.block_bytes_ > kBombFactor * session.limits_.max_header_list_bytes) {
    session.GiveUp(NGHTTP2_ENHANCE_YOUR_CALM, WEFT_R_HEADERS_TOO_LARGE);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  if (stream->too_large) return 0;
  const std::string_view name = Text(name_data, name_size);
  const std::string_view value = Text(value_data, value_size);
  HeaderList& list = stream->head_received            ? session.trailers_
                     : session.role_ == Role::kServer ? session.request_.headers
                                                      : session.response_.headers;
  size_t held = list.bytes();
  if (!stream->head_received && session.role_ == Role::kServer) {
    held += session.request_.path.size() + session.request_.authority.size();
  }
  if (held + name.size() + value.size() > session.limits_.max_header_list_bytes ||
      list.size() >= session.limits_.max_header_count) {
    stream->too_large = true;
    return 0;
  }
  if (name[0] == ':') {
    if (session.role_ == Role::kServer) {
      SetPseudo(&session.request_, name, value);
    } else {
      std::from_chars(value.data(), value.data() + value.size(), session.response_.status);
    }
    return 0;
  }
  if (name == "host" && session.role_ == Role::kServer && !stream->head_received) {
    session.host_seen_ = true;
    session.host_ = value;
    return 0;
  }
  list.Add(name, value);
  return 0;
}

void Http2Callbacks::FinishRequest(Http2Session& session, Http2Stream& stream, bool end_stream) {
  RequestHead& head = session.request_;
  if (session.host_seen_ && head.authority.empty()) head.authority = session.host_;
  // RFC 9113 8.3.1: Host may repeat :authority, nothing else. Two names for one request is how
  // requests get smuggled.
  const bool host_differs = session.host_seen_ && !EqualsIgnoreCase(head.authority, session.host_);
  if (host_differs || !IsValidAuthority(head.authority) || !IsValidTarget(head.path)) {
    nghttp2_submit_rst_stream(session.session_, NGHTTP2_FLAG_NONE, stream.id,
                              NGHTTP2_PROTOCOL_ERROR);
    session.CountFault(1);
    session.Close(stream.id);
    return;
  }
  stream.head_received = true;
  stream.announced = true;
  stream.receive_ended = end_stream;
  Event& event = session.events_.Push(Event::Kind::kRequest, stream.id);
  event.end_stream = end_stream;
  event.request = session.events_.requests.Take(&head);
}

void Http2Callbacks::FinishResponse(Http2Session& session, Http2Stream& stream, bool end_stream) {
  const bool informational = session.response_.status < 200;
  stream.head_received = !informational;
  stream.receive_ended = end_stream;
  Event& event = session.events_.Push(
      informational ? Event::Kind::kInformational : Event::Kind::kResponse, stream.id);
  event.end_stream = end_stream;
  event.response = session.events_.responses.Take(&session.response_);
}

void Http2Callbacks::FinishHeaders(Http2Session& session, const nghttp2_frame* frame) {
  Http2Stream* stream = session.Find(frame->hd.stream_id);
  if (stream == nullptr) return;
  if (stream->too_large) {
    session.RefuseOversize(*stream);
    return;
  }
  session.useless_frames_ = 0;
  const bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (stream->head_received) {
    stream->receive_ended = true;  // nghttp2 takes trailers with END_STREAM only
    session.events_.Push(Event::Kind::kTrailers, stream->id).trailers =
        session.events_.trailers.Take(&session.trailers_);
  } else if (session.role_ == Role::kServer) {
    FinishRequest(session, *stream, end_stream);
  } else {
    FinishResponse(session, *stream, end_stream);
  }
}

void Http2Callbacks::OnGoAway(Http2Session& session, const nghttp2_goaway& goaway) {
  session.peer_is_draining_ = true;
  Event& event = session.events_.Push(Event::Kind::kGoAway, 0);
  event.last_stream = goaway.last_stream_id;
  event.reset_code = static_cast<ResetCode>(goaway.error_code);
}

int Http2Callbacks::OnFrame(nghttp2_session* nghttp2, const nghttp2_frame* frame, void* self) {
  Http2Session& session = Self(self);
  session.head_stream_ = 0;
  if (frame->hd.type == NGHTTP2_SETTINGS) session.settings_seen_ = true;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
      FinishHeaders(session, frame);
      break;
    case NGHTTP2_DATA: {
      Http2Stream* stream = session.Find(frame->hd.stream_id);
      const bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
      if (frame->hd.length == 0 && !end_stream) session.CountUseless();
      if (stream != nullptr && end_stream) {
        stream->receive_ended = true;
        session.events_.Push(Event::Kind::kEnd, stream->id);
      }
      break;
    }
    case NGHTTP2_RST_STREAM: {
      // nghttp2's own budget has a clock, but stops counting once a GOAWAY was submitted.
      constexpr uint32_t kWhileDraining = 1000;
      if (session.draining_ && ++session.resets_received_ > kWhileDraining) {
        session.GiveUp(NGHTTP2_ENHANCE_YOUR_CALM, session.ProtocolReason());
      }
      Http2Stream* stream = session.Find(frame->hd.stream_id);
      if (stream != nullptr) stream->peer_reset = true;
      break;
    }
    case NGHTTP2_PING:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 && session.draining_ &&
          session.role_ == Role::kServer && !session.final_goaway_submitted_) {
        session.final_goaway_submitted_ = true;
        nghttp2_submit_goaway(nghttp2, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(nghttp2), NGHTTP2_NO_ERROR,
                              nullptr, 0);
      }
      break;
    case NGHTTP2_GOAWAY:
      OnGoAway(session, frame->goaway);
      break;
    case NGHTTP2_PRIORITY:
    case NGHTTP2_WINDOW_UPDATE:
    case NGHTTP2_SETTINGS:
      session.CountUseless();
      break;
    default:
      break;
  }
  return 0;
}

int Http2Callbacks::OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size,
                           void* self) {
  Http2Session& session = Self(self);
  Http2Stream* stream = session.Find(id);
  if (stream == nullptr) {
    session.connection_credit_bytes_ += size;
    return 0;
  }
  session.useless_frames_ = 0;
  stream->unconsumed_bytes += size;
  session.events_.Push(Event::Kind::kData, id).data = {data, size};
  return 0;
}

int Http2Callbacks::OnClose(nghttp2_session*, int32_t id, uint32_t error_code, void* self) {
  Http2Session& session = Self(self);
  if (session.head_stream_ == id) session.head_stream_ = 0;
  Http2Stream* stream = session.Find(id);
  if (stream == nullptr) return 0;
  const bool complete = stream->receive_ended && stream->send_ended && stream->body.empty() &&
                        error_code == NGHTTP2_NO_ERROR;
  if (complete && session.faults_ > 0) --session.faults_;
  if (stream->announced && !complete) {
    const bool by_peer = stream->peer_reset || error_code == NGHTTP2_REFUSED_STREAM;
    session.events_.PushReset(id, by_peer ? session.PeerGoneReason() : session.ProtocolReason(),
                              static_cast<ResetCode>(error_code));
  }
  session.Close(id);
  return 0;
}

int Http2Callbacks::OnFrameSent(nghttp2_session* nghttp2, const nghttp2_frame* frame, void* self) {
  Http2Session& session = Self(self);
  const int32_t id = frame->hd.stream_id;
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
    session.Fail(session.giving_up_ != WEFT_R_NONE ? session.giving_up_ : session.ProtocolReason());
  }
  // nghttp2's own resets; the caller's are of streams that are no longer known.
  if (frame->hd.type == NGHTTP2_RST_STREAM && session.Find(id) != nullptr) session.CountFault(1);
  // Only the session's own 431 belongs to a stream that is no longer known.
  if (frame->hd.type == NGHTTP2_HEADERS && session.role_ == Role::kServer &&
      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && session.Find(id) == nullptr &&
      nghttp2_session_get_stream_remote_close(nghttp2, id) == 0) {
    nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
  }
  return 0;
}

nghttp2_ssize Http2Callbacks::Send(nghttp2_session*, const uint8_t* data, size_t size, int,
                                   void* self) {
  Http2Session& session = Self(self);
  const size_t waiting = session.output_.size();
  if (waiting >= kOutputLimitBytes) return NGHTTP2_ERR_WOULDBLOCK;
  constexpr size_t kTypeAt = 3, kFlagsAt = 4;
  const bool ack = size >= 9 &&
                   (data[kTypeAt] == NGHTTP2_PING || data[kTypeAt] == NGHTTP2_SETTINGS) &&
                   (data[kFlagsAt] & NGHTTP2_FLAG_ACK) != 0;
  if (ack && ++session.acks_waiting_ > kMaxAcksWaiting) {
    session.giving_up_ = session.ProtocolReason();
    return NGHTTP2_ERR_WOULDBLOCK;
  }
  session.output_.Append(data, size);
  return static_cast<nghttp2_ssize>(size);
}

nghttp2_ssize Http2Callbacks::ReadBody(nghttp2_session*, int32_t id, uint8_t*, size_t size,
                                       uint32_t* flags, nghttp2_data_source*, void* self) {
  Http2Session& session = Self(self);
  Http2Stream* stream = session.Find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (session.output_.size() >= kOutputMarkBytes) return NGHTTP2_ERR_PAUSE;
  if (stream->body.empty() && !stream->send_ended) {
    stream->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  const size_t taken = std::min(size, stream->body.size());
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (taken == stream->body.size() && stream->send_ended) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->has_trailers) {
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      session.EndBody(*stream);
    }
  }
  return static_cast<nghttp2_ssize>(taken);
}

int Http2Callbacks::SendBody(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_head,
                             size_t size, nghttp2_data_source*, void* self) {
  Http2Session& session = Self(self);
  Http2Stream* stream = session.Find(frame->hd.stream_id);
  if (stream == nullptr || stream->body.size() < size) return NGHTTP2_ERR_CALLBACK_FAILURE;
  session.output_.Append(frame_head, 9);
  session.output_.Append(reinterpret_cast<const uint8_t*>(stream->body.data()), size);
  stream->body.RemovePrefix(size);
  session.useless_frames_ = 0;
  if (stream->above_mark && stream->body.size() <= kLowMarkBytes) {
    stream->above_mark = false;
    if (!stream->send_ended) session.events_.Push(Event::Kind::kWritable, stream->id);
  }
  return 0;
}

}  // namespace weft::http
