// SPDX-License-Identifier: Apache-2.0
// One HBONE connection: an HTTP/2 session over a TLS stream whose CONNECT streams are byte streams
// (TunnelStream).
//
//   transport.TryRead -> Session::Feed -> events -> TunnelStreams   (ReadLoop)
//   TunnelStreams -> Session::Submit* -> Output -> transport.TryWrite (WriteLoop)
//
// Thread: the worker's. Owned by the frame that runs Run(). Streams hold a pointer to it until they
// or it end: whoever goes first unlinks the other.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/http/session.h"
#include "proxy/net/stream.h"

namespace weft::tunnel {

class TunnelStream;

// What one stream may hold unread. The connection's window is that of all its streams together, so
// that streams whose readers sleep never take the window of another: that bounds the memory of a
// connection, it is not allocated.
inline constexpr uint32_t kStreamWindowBytes = 256 * 1024;
inline constexpr uint32_t kMaxStreams = 100;
// Submitted but not yet framed, per stream; then TryWrite says kWouldBlock.
inline constexpr size_t kStreamSendBytes = 128 * 1024;

http::Limits TunnelLimits();

// By the wall clock, as certificates tell it; the epoch: no end.
using Expiry = std::chrono::system_clock::time_point;
inline bool IsOver(Expiry expiry, Expiry now) { return expiry != Expiry{} && now >= expiry; }
// How long a connection may take new streams: until a certificate it was made with ends. What a
// Deadline takes: 0 for no end.
std::chrono::milliseconds UntilExpiry(Expiry expiry, Expiry now = std::chrono::system_clock::now());

struct MuxArgs {
  asio::any_io_executor executor;
  std::unique_ptr<net::Stream> transport;
  http::Role role = http::Role::kClient;
  std::span<uint8_t> scratch;  // read buffer, shared by all connections of the worker; used between
                               // two suspensions only
};

class Mux final {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Mux(MuxArgs args);
  ~Mux();
  Mux(const Mux&) = delete;
  Mux& operator=(const Mux&) = delete;

  // Server: called once per request, outside of the session's calls. The stream answers with
  // Respond().
  std::function<void(std::unique_ptr<TunnelStream>, http::RequestHead)> on_request;

  // Carries bytes until the connection is over; every stream has failed by then. NONE never;
  // CLOSED: in order.
  Task<Reason> Run();

  // Client. Null: none can be opened now.
  std::unique_ptr<TunnelStream> Open(const http::RequestHead& head);
  bool can_open() const;
  // The transport takes no more bytes at the moment.
  bool congested() const { return congested_; }
  bool draining() const { return draining_; }
  size_t streams() const { return streams_.size(); }
  Clock::time_point idle_since() const { return idle_since_; }

  // No new streams; the connection ends in order with its last stream.
  void StartDrain();
  // Ends it now.
  void Close(Reason reason);

 private:
  friend class TunnelStream;

  Task<void> ReadLoop();
  Task<void> WriteLoop();
  void HandleEvents();
  void HandleEvent(http::Event& event);
  void AdmitRequests();
  void Wake() { wake_.Notify(); }
  void Fail(Reason reason);
  // The stream goes away. `orderly`: what it accepted still leaves before it is reset.
  void Forget(TunnelStream& stream, bool orderly);
  void SweepLingering();

  asio::any_io_executor executor_;
  std::unique_ptr<net::Stream> transport_;
  std::unique_ptr<http::Session> session_;
  std::span<uint8_t> scratch_;
  Signal wake_;
  std::unordered_map<http::StreamId, TunnelStream*> streams_;
  // Owner gone, bytes still to be sent; true: the other side has not ended, so a reset follows.
  std::unordered_map<http::StreamId, bool> lingering_;
  struct Request {
    std::unique_ptr<TunnelStream> stream;
    http::RequestHead head;
  };
  std::vector<Request> requests_;  // seen during Feed(), handed over after it
  Clock::time_point idle_since_ = Clock::now();
  Reason reason_ = WEFT_R_NONE;  // of the end
  bool congested_ = false;
  bool draining_ = false;
};

}  // namespace weft::tunnel
