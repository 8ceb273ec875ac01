// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/http_connection.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

namespace weft::worker {
namespace {

// Reads per wake-up before others get their turn.
constexpr int kReadsPerWake = 4;
// How long to wait for the peer's FIN after our last byte.
constexpr std::chrono::seconds kLinger{1};

}  // namespace

HttpConnection::HttpConnection(HttpServicesState& services, std::unique_ptr<net::Stream> stream,
                               std::unique_ptr<http::Session> session)
    : services_(services),
      stream_(std::move(stream)),
      session_(std::move(session)),
      resume_(services.executor),
      writer_ended_(services.executor),
      linger_timer_([](void* self) { static_cast<HttpConnection*>(self)->Close(WEFT_R_CLOSED); },
                    this) {}

HttpConnection::~HttpConnection() { services_.Forget(*this); }

void HttpConnection::Close(Reason reason) {
  if (closed_) return;
  closed_ = true;
  close_reason_ = reason;
  stream_->Close(reason);
  resume_.Notify();
}

void HttpConnection::GiveBack(http::StreamId stream, size_t bytes) {
  held_bytes_ -= bytes;
  if (closed_) return;
  session_->Consume(stream, bytes);
  // HTTP/2: the window update should leave. HTTP/1: waiting input may go on.
  if (session_->is_http2() || !input_.empty()) MarkDirty();
  if (waiting_to_resume_ && !ReadPaused()) resume_.Notify();
}

size_t HttpConnection::Unwritten(http::StreamId stream) {
  const size_t output = session_->Output().size();
  // HTTP/1 counts its output as the stream's.
  return session_->is_http2() ? session_->buffered_bytes(stream) + output
                              : std::max(session_->buffered_bytes(stream), output);
}

bool HttpConnection::ReadPaused() {
  if (lingering_) return false;
  if (HoldsInput()) return true;
  return !input_.empty() || (held_bytes_ > kHighMarkBytes && !session_->is_http2());
}

Task<void> HttpConnection::Run() {
  MarkDirty();
  services_.FlushDirty();
  while (!closed_) {
    if (ReadPaused()) {
      waiting_to_resume_ = true;
      co_await resume_.Wait();
      waiting_to_resume_ = false;
      continue;
    }
    co_await stream_->Readable();
    if (closed_) break;
    ReadSome();
    services_.FlushDirty();
  }
  while (writer_running_) {
    co_await writer_ended_.Wait();
  }
  linger_timer_.Clear();
}

void HttpConnection::ReadSome() {
  services_.UpdateNow();
  for (int i = 0; i < kReadsPerWake && !closed_ && !ReadPaused(); ++i) {
    const std::span<uint8_t> buffer(services_.read_buffer);
    const net::IoResult in = stream_->TryRead(buffer);
    switch (in.status) {
      case net::IoStatus::kOk:
        break;
      case net::IoStatus::kWouldBlock:
        return;
      case net::IoStatus::kEof:
        if (lingering_ || broken_) return Close(WEFT_R_CLOSED);
        eof_seen_ = true;
        session_->FeedEof();
        DispatchEvents();
        if (!closed_) OnEof();
        return;
      case net::IoStatus::kError:
        return Close(in.reason);
    }
    if (lingering_ || broken_) continue;
    size_t used = 0;
    Feed(buffer.first(in.bytes), &used);
    if (used < in.bytes && !broken_ && !closed_) {
      const auto rest = buffer.subspan(used, in.bytes - used);
      input_.assign(rest.begin(), rest.end());
      input_begin_ = 0;
    }
    if (in.bytes < buffer.size()) return;  // drained
  }
}

void HttpConnection::Feed(std::span<const uint8_t> bytes, size_t* used) {
  *used = bytes.size();
  const Reason reason = session_->Feed(bytes, used);
  DispatchEvents();
  MarkDirty();
  if (reason != WEFT_R_NONE && !closed_) {
    broken_ = true;
    close_reason_ = reason;
    Count(services_.counters.protocol_errors);
  }
}

void HttpConnection::DispatchEvents() {
  for (size_t i = 0; i < session_->events().size() && !closed_; ++i) OnEvent(session_->events()[i]);
  session_->ClearEvents();
  if (!closed_) AfterBatch();
}

void HttpConnection::TakeWaitingInput() {
  while (!input_.empty() && !closed_ && !broken_ && !HoldsInput() && session_->wants_input()) {
    size_t used = 0;
    Feed(std::span<const uint8_t>(input_).subspan(input_begin_), &used);
    if (used == 0) break;
    input_begin_ += used;
    if (input_begin_ >= input_.size()) {
      input_.clear();
      input_begin_ = 0;
    }
  }
  if (broken_) input_.clear();
  if (waiting_to_resume_ && !ReadPaused()) resume_.Notify();
}

void HttpConnection::Flush() {
  while (!closed_ && !writer_running_) {
    const std::span<const uint8_t> output = session_->Output();
    if (output.empty()) break;
    const iovec piece{const_cast<uint8_t*>(output.data()), output.size()};
    const net::IoResult out = stream_->TryWrite({&piece, 1});
    if (out.status == net::IoStatus::kError) return Close(out.reason);
    const bool all = out.status == net::IoStatus::kOk && out.bytes == output.size();
    if (out.bytes > 0) session_->OutputWritten(out.bytes);
    if (!all) {
      writer_running_ = true;
      asio::co_spawn(services_.executor, WaitAndWrite(), asio::detached);
    }
  }
  if (closed_) return;
  if (!session_->events().empty()) {
    DispatchEvents();
  } else {
    AfterBatch();
  }
  if (!closed_ && !writer_running_) AfterOutput();
  if (waiting_to_resume_ && !ReadPaused()) resume_.Notify();
}

void HttpConnection::AfterOutput() {
  if (!session_->Output().empty()) return MarkDirty();  // handling the events made more
  if (output_shut_) {
    if (session_->finished() && !lingering_) Close(WEFT_R_CLOSED);
    return;
  }
  if (broken_ || session_->finished()) {
    if (eof_seen_) return Close(broken_ ? close_reason_ : WEFT_R_CLOSED);
    output_shut_ = lingering_ = true;
    input_.clear();
    stream_->ShutdownWrite();
    services_.SetTimer(linger_timer_, services_.now + kLinger);
    if (waiting_to_resume_) resume_.Notify();
  } else if (session_->output_ended()) {
    output_shut_ = true;
    stream_->ShutdownWrite();
  }
}

Task<void> HttpConnection::WaitAndWrite() {
  while (!closed_) {
    co_await stream_->Writable();
    if (closed_) break;
    services_.UpdateNow();
    const std::span<const uint8_t> output = session_->Output();
    const iovec piece{const_cast<uint8_t*>(output.data()), output.size()};
    if (!output.empty()) {
      const net::IoResult out = stream_->TryWrite({&piece, 1});
      if (out.status == net::IoStatus::kError) {
        Close(out.reason);
        break;
      }
      if (out.bytes > 0) session_->OutputWritten(out.bytes);
    }
    if (session_->Output().empty()) break;
    AfterBatch();  // a part has left: windows may be given back
    services_.FlushDirty();
  }
  writer_running_ = false;
  if (!closed_) {
    MarkDirty();
    services_.FlushDirty();
  }
  writer_ended_.Notify();
}

}  // namespace weft::worker
