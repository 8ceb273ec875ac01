// SPDX-License-Identifier: Apache-2.0
// One HTTP connection as a state machine without I/O: bytes in, events and bytes out. HTTP/1.1
// (llhttp) and HTTP/2 (nghttp2) behind one interface, so that whoever carries requests does not
// know the version.
//
//   stream.TryRead -> Feed() -> events() -> caller decides -> Submit*() / Consume() -> TakeOutput()
//   -> stream.TryWrite
//
// Thread: the caller's; a session is used by one thread. The parsers' C callbacks only record
// events: they never write to a socket, resume a coroutine or re-enter the session.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "proxy/base/reason.h"
#include "proxy/http/message.h"

namespace weft::http {

// HTTP/2: the stream id. HTTP/1: 1, 3, 5, ... in the order of the requests on the connection. Never
// reused.
using StreamId = int32_t;

enum class Role : uint8_t { kServer, kClient };

// Error codes of HTTP/2 (RFC 9113 7) that callers use; HTTP/1 sessions close the connection
// instead.
enum class ResetCode : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControl = 3,
  kRefusedStream = 7,
  kCancel = 8,
  kConnectError = 10,
  kEnhanceYourCalm = 11,
};

struct Limits {
  uint32_t max_concurrent_streams = 100;
  uint32_t stream_window_bytes = 256 * 1024;  // what a peer may send on a stream before Consume()
  uint32_t connection_window_bytes = 1024 * 1024;
  uint32_t max_frame_bytes = 16 * 1024;
  uint32_t max_header_list_bytes = 60 * 1024;  // Envoy's default; beyond: 431 or a stream reset
  uint32_t max_header_count = 100;
  bool enable_connect_protocol = false;  // SETTINGS_ENABLE_CONNECT_PROTOCOL
};

struct Event {
  enum class Kind : uint8_t {
    kRequest,   // server: `request` is complete (headers). end_stream: no body follows
    kResponse,  // client: `response`, final (status >= 200, or 101). end_stream: no body follows
    kInformational,  // client: `response` with 100 <= status < 200, not 101
    kData,           // `data`; the sender's window shrank by data.size() until Consume()
    kTrailers,       // `trailers`; always the end of that direction
    kEnd,            // that direction ended without trailers (not sent after end_stream was true)
    kReset,  // the stream is gone in both directions: `reason`, `reset_code`. Nothing follows for
             // it
    kWritable,  // buffered_bytes(stream) fell to the low mark: SubmitData again
    kGoAway,  // the peer takes no new streams; streams above last_stream were not processed and may
              // be retried
    // HTTP/1: after 101 or a 2xx to CONNECT, data is raw from here in both directions: kData and
    // SubmitData() carry it, whatever end_stream said about the request and the response head; kEnd
    // is the peer's FIN.
    kUpgraded,
  };
  Kind kind;
  StreamId stream = 0;
  bool end_stream = false;
  RequestHead* request = nullptr;    // may be modified or swapped out by the receiver
  ResponseHead* response = nullptr;  // likewise
  HeaderList* trailers = nullptr;    // likewise
  std::span<const uint8_t> data;     // points into the bytes given to Feed()
  Reason reason = WEFT_R_NONE;
  ResetCode reset_code = ResetCode::kNoError;
  StreamId last_stream = 0;
};

class Session {
 public:
  virtual ~Session() = default;

  // Parses bytes from the peer. Not kNone: the connection is broken; write what TakeOutput() still
  // holds (a 400 or GOAWAY), then close. HTTP/2 always takes all. HTTP/1 sessions may take fewer
  // bytes than given (`consumed`): while a pipelined request waits for the current one, while bytes
  // after an Upgrade wait for the answer, and while stream_window_bytes are not consumed. Keep the
  // rest (do not read more) and feed it again once wants_input() is true.
  [[nodiscard]] virtual Reason Feed(std::span<const uint8_t> bytes, size_t* consumed) = 0;
  // False: Feed() would take nothing now. Turns true by Submit*() of the end of a response, and by
  // Consume().
  virtual bool wants_input() const = 0;
  // The peer sent FIN, and Feed() took everything before it. A response delimited by the end of the
  // connection ends in order; anything else unfinished is reset.
  virtual void FeedEof() = 0;
  // What Feed(), FeedEof(), Submit*() and writing (kWritable) caused, in order. Valid, with all it
  // points to, until the next call of Feed(), FeedEof() or ClearEvents(); the bytes given to Feed()
  // must live as long. Submit*(), Consume() and Reset() may be called while walking it. Look again
  // after Output() and OutputWritten(): call ClearEvents() when done with a batch, or the next look
  // starts with the old ones. After Reset(id), skip what the batch still holds for that stream.
  virtual std::span<Event> events() = 0;
  virtual void ClearEvents() = 0;

  // Client: opens a stream; 0 if none can be opened now (limit reached, GOAWAY, HTTP/1 busy).
  // Fields that the version forbids or that frame the message (Host, Content-Length kept,
  // Transfer-Encoding, Connection, ...) are the session's business.
  virtual StreamId SubmitRequest(const RequestHead& head, bool end_stream) = 0;
  // Server. Informational responses (1xx) first, then exactly one final one.
  virtual void SubmitResponse(StreamId stream, const ResponseHead& head, bool end_stream) = 0;
  // Copies the bytes into the stream's send buffer. There is no limit here: stop when
  // buffered_bytes(stream) passes your high mark and go on at kWritable. Empty data with end_stream
  // ends the direction.
  virtual void SubmitData(StreamId stream, std::span<const uint8_t> data, bool end_stream) = 0;
  virtual void SubmitTrailers(StreamId stream, const HeaderList& trailers) = 0;
  // Ends the stream in both directions. No event follows for it.
  virtual void Reset(StreamId stream, ResetCode code) = 0;
  // Gives `bytes` of receive window back to the peer. Call it when the bytes have left for the
  // other side, not when they arrived (HTTP/1: resumes parsing). Bytes of a stream that is gone are
  // given back by the session itself.
  virtual void Consume(StreamId stream, size_t bytes) = 0;
  // No new streams from the peer; those open go on (GOAWAY / Connection: close on the next
  // response).
  virtual void StartDrain() = 0;

  // Bytes to write; valid until the next non-const call. After writing n of them call
  // OutputWritten(n).
  virtual std::span<const uint8_t> Output() = 0;
  virtual void OutputWritten(size_t bytes) = 0;

  virtual size_t buffered_bytes(StreamId stream) const = 0;  // submitted, not yet in Output()
  virtual size_t open_streams() const = 0;
  virtual bool can_open_stream() const = 0;  // client
  // Nothing more will happen: drained and no stream open, or the protocol says close. Write
  // Output(), then close.
  virtual bool finished() const = 0;
  // HTTP/1 in raw mode: our direction has ended. Once Output() is written, send FIN and go on
  // reading until finished().
  virtual bool output_ended() const { return false; }
  // Server: a request's head has begun and is not complete; HTTP/2: also before the peer's first
  // SETTINGS.
  virtual bool receiving_head() const { return false; }
  virtual bool is_http2() const = 0;
};

std::unique_ptr<Session> MakeHttp1Session(Role role, const Limits& limits);
std::unique_ptr<Session> MakeHttp2Session(Role role, const Limits& limits);

}  // namespace weft::http
