// SPDX-License-Identifier: Apache-2.0
// One CONNECT stream of an HBONE connection as a byte stream. Receive window goes back to the
// sender only when the reader took the bytes; END_STREAM is a half close, RST_STREAM a reset.
// Thread: the worker's.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/http/session.h"
#include "proxy/net/stream.h"

namespace weft::tunnel {

class Mux;

class TunnelStream final : public net::Stream {
 public:
  TunnelStream(asio::any_io_executor executor, Mux* mux, http::StreamId id);
  ~TunnelStream() override;

  net::IoResult TryRead(std::span<uint8_t> into) override;
  net::IoResult TryWrite(std::span<const iovec> from) override;
  Task<void> Readable() override;
  Task<void> Writable() override;
  void ShutdownWrite() override;
  void Close(Reason reason) override;
  int native_handle() const override { return -1; }

  // Client: resumes when the response came or the stream is dead (or spuriously). Before any
  // Readable().
  Task<void> Answered();
  // Client: 0 until the response came. `policy` and `refusal`: what the server said about a
  // refusal.
  int status() const { return status_; }
  const std::string& policy() const { return policy_; }
  const std::string& refusal() const { return refusal_; }
  // Not NONE: dead. `retriable`: the server did not process the request.
  Reason reason() const { return reason_; }
  bool retriable() const { return retriable_; }

  // Server: answers the request, once. Without a body the stream is over.
  void Respond(const http::ResponseHead& head, bool end_stream);

 private:
  friend class Mux;

  void OnResponse(const http::ResponseHead& head);
  void OnData(std::span<const uint8_t> data);
  void OnEof();
  void OnReset(Reason reason, http::ResetCode code);
  void OnWritable() { writable_.Notify(); }
  // The connection ended.
  void OnGone(Reason reason);

  Mux* mux_;  // null once either end is gone
  http::StreamId id_;
  Signal readable_;
  Signal writable_;
  std::vector<uint8_t> received_;  // [head_, size): unread, at most kStreamWindowBytes
  size_t head_ = 0;
  int status_ = 0;
  Reason reason_ = WEFT_R_NONE;
  bool eof_ = false;   // the other side ended
  bool shut_ = false;  // we ended
  bool retriable_ = false;
  std::string policy_, refusal_;
};

}  // namespace weft::tunnel
