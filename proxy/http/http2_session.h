// SPDX-License-Identifier: Apache-2.0
// HTTP/2 (nghttp2) behind session.h. nghttp2's callbacks (http2_callbacks.cc) only record: events,
// header lists, output bytes. Thread: the caller's. Owns the nghttp2 session and one Http2Stream
// for each open stream. Internal to proxy/http: others use MakeHttp2Session().
#pragma once
#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proxy/http/event_queue.h"
#include "proxy/http/send_buffer.h"
#include "proxy/http/session.h"

namespace weft::http {

struct Http2Stream {
  StreamId id = 0;
  SendBuffer body;              // submitted, not yet in a DATA frame
  HeaderList trailers;          // to send once `body` is empty
  size_t unconsumed_bytes = 0;  // received, not yet given back by Consume()
  bool announced = false;       // the caller knows the stream
  bool head_received = false;   // request, or final response
  bool receive_ended = false;
  bool head_sent = false;   // request, or final response, submitted
  bool send_ended = false;  // no more SubmitData
  bool has_trailers = false;
  bool deferred = false;    // nghttp2 waits for ResumeBody
  bool above_mark = false;  // owes a kWritable
  bool too_large = false;   // the header block being received is beyond the limits
  bool peer_reset = false;

  void Clear();
};

class Http2Session final : public Session {
 public:
  Http2Session(Role role, const Limits& limits);
  ~Http2Session() override;
  Http2Session(const Http2Session&) = delete;
  Http2Session& operator=(const Http2Session&) = delete;

  [[nodiscard]] Reason Feed(std::span<const uint8_t> bytes, size_t* consumed) override;
  bool wants_input() const override { return true; }
  void FeedEof() override;
  std::span<Event> events() override { return events_.Look(); }
  void ClearEvents() override { events_.Clear(); }
  StreamId SubmitRequest(const RequestHead& head, bool end_stream) override;
  void SubmitResponse(StreamId id, const ResponseHead& head, bool end_stream) override;
  void SubmitData(StreamId id, std::span<const uint8_t> data, bool end_stream) override;
  void SubmitTrailers(StreamId id, const HeaderList& trailers) override;
  void Reset(StreamId id, ResetCode code) override;
  void Consume(StreamId id, size_t bytes) override;
  void StartDrain() override;
  std::span<const uint8_t> Output() override;
  void OutputWritten(size_t bytes) override;
  size_t buffered_bytes(StreamId id) const override;
  size_t open_streams() const override { return streams_.size(); }
  bool can_open_stream() const override;
  bool finished() const override;
  bool receiving_head() const override {
    return role_ == Role::kServer && failed_ == WEFT_R_NONE &&
           (!settings_seen_ || head_stream_ != 0);
  }
  bool is_http2() const override { return true; }

 private:
  friend struct Http2Callbacks;

  void SubmitSettings();
  Http2Stream* Find(StreamId id);
  Http2Stream& Open(StreamId id);
  void Close(StreamId id);
  // The connection is over: resets every stream that the caller knows.
  void Fail(Reason reason);
  void ResetAll(Reason reason);
  void Pump();
  void PushFields(const HeaderList& headers);
  void ResumeBody(Http2Stream& stream);
  void EndBody(Http2Stream& stream);
  void RefuseOversize(Http2Stream& stream);
  // Frames that carry nothing, in a row; beyond the bound the connection ends.
  void CountUseless();
  // Streams that the peer made us reset or refuse; complete ones count against them.
  void CountFault(uint32_t weight);
  void GiveUp(uint32_t error_code, Reason reason);
  Reason ProtocolReason() const;
  Reason PeerGoneReason() const;

  const Role role_;
  const Limits limits_;
  nghttp2_session* session_ = nullptr;
  absl::flat_hash_map<StreamId, std::unique_ptr<Http2Stream>> streams_;
  std::vector<std::unique_ptr<Http2Stream>> spare_streams_;
  Http2Stream* last_found_ = nullptr;

  EventQueue events_;
  RequestHead request_;  // under assembly; HTTP/2 has one header block at a time
  ResponseHead response_;
  HeaderList trailers_;
  bool host_seen_ = false;
  std::string host_;

  SendBuffer output_;
  std::vector<nghttp2_nv> fields_;      // scratch of Submit*()
  size_t connection_credit_bytes_ = 0;  // window of streams that are gone, to be given back
  Reason failed_ = WEFT_R_NONE;
  bool settings_seen_ = false;  // the peer's first
  StreamId head_stream_ = 0;    // whose header block has begun and is not complete
  bool draining_ = false;
  bool final_goaway_submitted_ = false;
  bool peer_is_draining_ = false;
  bool in_feed_ = false;
  Reason giving_up_ = WEFT_R_NONE;  // becomes failed_ as soon as no callback is running
  uint32_t useless_frames_ = 0;
  uint32_t faults_ = 0;
  uint32_t acks_waiting_ = 0;  // PING and SETTINGS answers in output_
  size_t block_bytes_ = 0;     // of the header block being received
  uint32_t resets_received_ = 0;
};

}  // namespace weft::http
