// SPDX-License-Identifier: Apache-2.0
// What downstream and upstream HTTP connections have in common: a stream, a session, and moving
// bytes between the two with back-pressure. Thread: the worker's. The coroutine that awaits Run()
// owns the object.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/http/session.h"
#include "proxy/net/stream.h"
#include "proxy/worker/http_state.h"

namespace weft::worker {

// Bytes on their way from one connection to the other (received, not yet written) beyond which an
// HTTP/1 connection is not read. HTTP/2 is bounded by the windows, which are given back only when
// bytes have left.
inline constexpr size_t kHighMarkBytes = 64 * 1024;

class HttpConnection {
 public:
  HttpConnection(HttpServicesState& services, std::unique_ptr<net::Stream> stream,
                 std::unique_ptr<http::Session> session);
  virtual ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  http::Session& session() { return *session_; }
  bool closed() const { return closed_; }
  Reason close_reason() const { return close_reason_; }

  // There is output, or input that can go on: handled by the next FlushDirty().
  void MarkDirty() { services_.MarkDirty(*this); }
  // Ends the connection now; output not yet written is lost. Run() returns soon.
  void Close(Reason reason);
  // Received body bytes are held by an exchange / have left it. GiveBack() lets the peer send more.
  void Hold(size_t bytes) { held_bytes_ += bytes; }
  void GiveBack(http::StreamId stream, size_t bytes);
  // The same without telling the session, for a stream that is gone.
  void Unhold(size_t bytes) { held_bytes_ -= bytes; }
  // Submitted for `stream` and not yet accepted by the operating system.
  size_t Unwritten(http::StreamId stream);
  // Bytes read by someone else before this connection existed.
  void Prepend(std::vector<uint8_t> bytes) { input_ = std::move(bytes); }

 protected:
  friend class HttpServicesState;
  // Reads until the connection is over; then the stream is closed and no other task uses this
  // object.
  Task<void> Run();

  virtual void OnEvent(http::Event& event) = 0;
  // After events were handled or output was written, also when only a part of it could be.
  virtual void AfterBatch() = 0;
  // True: nothing new may begin for now, because what was said already is not being read.
  virtual bool HoldsInput() { return false; }
  // The peer's FIN, after the session's events for it. Usually Close().
  virtual void OnEof() = 0;

  HttpServicesState& services_;
  std::unique_ptr<net::Stream> stream_;
  std::unique_ptr<http::Session> session_;

 private:
  void TakeWaitingInput();
  void Flush();
  void ReadSome();
  void Feed(std::span<const uint8_t> bytes, size_t* used);
  void DispatchEvents();
  void AfterOutput();
  bool ReadPaused();
  Task<void> WaitAndWrite();

  std::vector<uint8_t> input_;  // what the session would not take yet
  size_t input_begin_ = 0;
  size_t held_bytes_ = 0;
  Signal resume_;
  Signal writer_ended_;
  WheelTimer linger_timer_;
  Reason close_reason_ = WEFT_R_NONE;
  bool dirty_ = false;
  bool closed_ = false;
  bool waiting_to_resume_ = false;
  bool writer_running_ = false;  // the stream did not take all: WaitAndWrite() goes on
  bool broken_ = false;          // the session failed: write what it has, then close
  bool output_shut_ = false;
  bool lingering_ = false;  // all is said: read and discard until the peer's FIN, or a RST would
                            // overtake the answer
  bool eof_seen_ = false;
};

}  // namespace weft::worker
