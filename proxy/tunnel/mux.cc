// SPDX-License-Identifier: Apache-2.0
#include "proxy/tunnel/mux.h"

#include <algorithm>
#include <utility>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>

#include "proxy/tunnel/tunnel_stream.h"

namespace weft::tunnel {
namespace {

// Reads in a row before other connections of the worker get their turn.
constexpr int kReadsPerTurn = 8;

}  // namespace

http::Limits TunnelLimits() {
  return {.max_concurrent_streams = kMaxStreams,
          .stream_window_bytes = kStreamWindowBytes,
          .connection_window_bytes = kMaxStreams * kStreamWindowBytes,
          .max_header_list_bytes = 16 * 1024};
}

std::chrono::milliseconds UntilExpiry(Expiry expiry, Expiry now) {
  using std::chrono::milliseconds;
  if (expiry == Expiry{}) return milliseconds(0);
  constexpr milliseconds kLongest = std::chrono::hours(24 * 30);
  auto left = std::chrono::ceil<milliseconds>(expiry - now);
  return std::clamp(left, milliseconds(1), kLongest);
}

Mux::Mux(MuxArgs args)
    : executor_(args.executor),
      transport_(std::move(args.transport)),
      session_(http::MakeHttp2Session(args.role, TunnelLimits())),
      scratch_(args.scratch),
      wake_(args.executor) {}

Mux::~Mux() { Fail(WEFT_R_CLOSED); }

Task<Reason> Mux::Run() {
  using namespace asio::experimental::awaitable_operators;  // NOLINT: the operator below
  // Each loop fails the connection when it leaves, so the other one leaves too.
  Task<void> loops = ReadLoop() && WriteLoop();
  co_await std::move(loops);
  co_return reason_;
}

Task<void> Mux::ReadLoop() {
  int reads = 0;
  while (reason_ == WEFT_R_NONE) {
    net::IoResult in = transport_->TryRead(scratch_);
    if (in.status == net::IoStatus::kWouldBlock) {
      reads = 0;
      co_await transport_->Readable();
      continue;
    }
    if (in.status == net::IoStatus::kEof || in.status == net::IoStatus::kError) {
      bool idle = streams_.empty() && in.status == net::IoStatus::kEof;
      Fail(in.status == net::IoStatus::kError ? in.reason
           : idle                             ? WEFT_R_CLOSED
                                              : WEFT_R_PEER_RESET);
      co_return;
    }
    size_t consumed = 0;
    Reason reason = session_->Feed(scratch_.first(in.bytes), &consumed);
    HandleEvents();
    if (reason != WEFT_R_NONE) {
      std::span<const uint8_t> last_words = session_->Output();
      iovec part{const_cast<uint8_t*>(last_words.data()), last_words.size()};
      if (!last_words.empty()) transport_->TryWrite({&part, 1});
      Fail(reason);
      co_return;
    }
    AdmitRequests();
    Wake();
    if (in.bytes < scratch_.size()) {  // drained: another read would only say so
      reads = 0;
      co_await transport_->Readable();
    } else if (++reads == kReadsPerTurn) {
      reads = 0;
      co_await asio::post(executor_, asio::use_awaitable);
    }
  }
}

Task<void> Mux::WriteLoop() {
  while (reason_ == WEFT_R_NONE) {
    std::span<const uint8_t> out = session_->Output();
    if (out.empty()) {
      SweepLingering();
      out = session_->Output();
    }
    if (!session_->events().empty()) {  // writing made room
      HandleEvents();
      out = session_->Output();
    }
    if (out.empty()) {
      if (session_->finished() || (draining_ && streams_.empty() && lingering_.empty())) {
        Fail(WEFT_R_CLOSED);
        co_return;
      }
      co_await wake_.Wait();
      continue;
    }
    iovec part{const_cast<uint8_t*>(out.data()), out.size()};
    net::IoResult written = transport_->TryWrite({&part, 1});
    if (written.status == net::IoStatus::kOk) {
      session_->OutputWritten(written.bytes);
    } else if (written.status == net::IoStatus::kWouldBlock) {
      congested_ = true;
      co_await transport_->Writable();
      congested_ = false;
      for (auto& [id, stream] : streams_) stream->OnWritable();
    } else {
      Fail(written.reason);
    }
  }
}

void Mux::HandleEvents() {
  for (http::Event& event : session_->events()) HandleEvent(event);
  session_->ClearEvents();
}

void Mux::HandleEvent(http::Event& event) {
  using Kind = http::Event::Kind;
  if (event.kind == Kind::kGoAway) {
    draining_ = true;
    return;
  }
  if (event.kind == Kind::kRequest) {
    // Data may follow in the same Feed(): the stream must be findable now; AdmitRequests() hands it
    // over.
    auto stream = std::make_unique<TunnelStream>(executor_, this, event.stream);
    stream->eof_ = event.end_stream;
    streams_.emplace(event.stream, stream.get());
    requests_.push_back({std::move(stream), std::move(*event.request)});
    return;
  }
  if (auto lingering = lingering_.find(event.stream); lingering != lingering_.end()) {
    if (event.kind == Kind::kReset) {
      lingering_.erase(lingering);
    } else if (event.end_stream || event.kind == Kind::kEnd || event.kind == Kind::kTrailers) {
      lingering->second = false;
    }
  }
  auto found = streams_.find(event.stream);
  if (found == streams_.end()) {
    // Its reader has gone; the sender gets its window back so that the connection's stays whole.
    if (event.kind == Kind::kData) session_->Consume(event.stream, event.data.size());
    return;
  }
  TunnelStream& stream = *found->second;
  switch (event.kind) {
    case Kind::kResponse:
      stream.OnResponse(*event.response);
      if (event.end_stream) stream.OnEof();
      break;
    case Kind::kData:
      stream.OnData(event.data);
      if (event.end_stream) stream.OnEof();
      break;
    case Kind::kTrailers:
    case Kind::kEnd:
      stream.OnEof();
      break;
    case Kind::kReset:
      streams_.erase(found);
      if (streams_.empty()) idle_since_ = Clock::now();
      stream.OnReset(event.reason, event.reset_code);
      break;
    case Kind::kWritable:
      stream.OnWritable();
      break;
    default:
      break;
  }
}

void Mux::AdmitRequests() {
  if (requests_.empty()) return;
  std::vector<Request> requests = std::move(requests_);
  requests_.clear();
  for (Request& request : requests) {
    if (on_request) on_request(std::move(request.stream), std::move(request.head));
  }
}

std::unique_ptr<TunnelStream> Mux::Open(const http::RequestHead& head) {
  if (!can_open()) return nullptr;
  http::StreamId id = session_->SubmitRequest(head, false);
  if (id <= 0) return nullptr;
  auto stream = std::make_unique<TunnelStream>(executor_, this, id);
  streams_.emplace(id, stream.get());
  Wake();
  return stream;
}

bool Mux::can_open() const {
  return reason_ == WEFT_R_NONE && !draining_ && streams_.size() < kMaxStreams &&
         session_->can_open_stream();
}

void Mux::StartDrain() {
  if (draining_ || reason_ != WEFT_R_NONE) return;
  draining_ = true;
  session_->StartDrain();
  Wake();
}

void Mux::Close(Reason reason) { Fail(reason); }

void Mux::Fail(Reason reason) {
  if (reason_ == WEFT_R_NONE) {
    reason_ = reason;
    transport_->Close(reason);
    wake_.Notify();
  }
  lingering_.clear();
  auto streams = std::move(streams_);
  streams_.clear();
  for (auto& [id, stream] : streams)
    stream->OnGone(reason_ == WEFT_R_CLOSED ? WEFT_R_PEER_RESET : reason_);
  requests_.clear();  // nobody has taken these
}

void Mux::Forget(TunnelStream& stream, bool orderly) {
  streams_.erase(stream.id_);
  if (streams_.empty()) idle_since_ = Clock::now();
  size_t unread = stream.received_.size() - stream.head_;
  if (unread > 0) session_->Consume(stream.id_, unread);
  bool to_send = stream.shut_ && session_->buffered_bytes(stream.id_) > 0;
  if (orderly || to_send) {
    lingering_.emplace(stream.id_, !stream.eof_);
  } else if (!stream.eof_ || !stream.shut_) {
    session_->Reset(stream.id_, http::ResetCode::kCancel);
  }
  Wake();
}

void Mux::SweepLingering() {
  for (auto it = lingering_.begin(); it != lingering_.end();) {
    if (session_->buffered_bytes(it->first) > 0) {
      ++it;  // waits for the other side's window
    } else {
      if (it->second) session_->Reset(it->first, http::ResetCode::kNoError);
      it = lingering_.erase(it);
    }
  }
}

}  // namespace weft::tunnel
