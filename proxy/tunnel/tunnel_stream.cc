// SPDX-License-Identifier: Apache-2.0
#include "proxy/tunnel/tunnel_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "proxy/tunnel/mux.h"

namespace weft::tunnel {
namespace {

// A drained stream keeps a receive buffer of at most this size, so that an idle stream is small.
constexpr size_t kKeptBytes = 4096;

}  // namespace

TunnelStream::TunnelStream(asio::any_io_executor executor, Mux* mux, http::StreamId id)
    : mux_(mux), id_(id), readable_(executor), writable_(executor) {}

TunnelStream::~TunnelStream() {
  if (mux_ != nullptr) std::exchange(mux_, nullptr)->Forget(*this, /*orderly=*/false);
}

net::IoResult TunnelStream::TryRead(std::span<uint8_t> into) {
  size_t available = received_.size() - head_;
  if (available == 0) {
    if (reason_ != WEFT_R_NONE) return {.status = net::IoStatus::kError, .reason = reason_};
    return {.status = eof_ ? net::IoStatus::kEof : net::IoStatus::kWouldBlock};
  }
  size_t bytes = std::min(available, into.size());
  memcpy(into.data(), received_.data() + head_, bytes);
  head_ += bytes;
  if (head_ == received_.size()) {
    head_ = 0;
    received_.clear();
    if (received_.capacity() > kKeptBytes) std::vector<uint8_t>().swap(received_);
  }
  if (mux_ != nullptr) {
    mux_->session_->Consume(id_, bytes);
    mux_->Wake();
  }
  return {.bytes = bytes};
}

net::IoResult TunnelStream::TryWrite(std::span<const iovec> from) {
  if (reason_ != WEFT_R_NONE) return {.status = net::IoStatus::kError, .reason = reason_};
  if (mux_ == nullptr || shut_) return {.status = net::IoStatus::kError, .reason = WEFT_R_CLOSED};
  // While the transport is full, bytes wait in the sender, not here.
  if (mux_->congested_) return {.status = net::IoStatus::kWouldBlock};
  size_t buffered = mux_->session_->buffered_bytes(id_);
  size_t room = buffered < kStreamSendBytes ? kStreamSendBytes - buffered : 0;
  size_t taken = 0;
  for (const iovec& part : from) {
    size_t bytes = std::min(part.iov_len, room - taken);
    if (bytes == 0) continue;
    mux_->session_->SubmitData(id_, {static_cast<const uint8_t*>(part.iov_base), bytes}, false);
    taken += bytes;
  }
  if (taken == 0) return {.status = net::IoStatus::kWouldBlock};
  mux_->Wake();
  return {.bytes = taken};
}

Task<void> TunnelStream::Readable() {
  if (head_ < received_.size() || eof_ || reason_ != WEFT_R_NONE) co_return;
  co_await readable_.Wait();
}

Task<void> TunnelStream::Answered() {
  if (status_ != 0 || reason_ != WEFT_R_NONE) co_return;
  co_await readable_.Wait();
}

Task<void> TunnelStream::Writable() {
  bool room = mux_ == nullptr || shut_ || reason_ != WEFT_R_NONE ||
              (!mux_->congested_ && mux_->session_->buffered_bytes(id_) < kStreamSendBytes);
  if (room) co_return;
  co_await writable_.Wait();
}

void TunnelStream::ShutdownWrite() {
  if (mux_ == nullptr || shut_) return;
  shut_ = true;
  mux_->session_->SubmitData(id_, {}, true);
  mux_->Wake();
}

void TunnelStream::Close(Reason reason) {
  if (reason_ == WEFT_R_NONE) reason_ = reason;
  if (mux_ != nullptr) {
    if (reason == WEFT_R_CLOSED) ShutdownWrite();
    std::exchange(mux_, nullptr)->Forget(*this, /*orderly=*/reason == WEFT_R_CLOSED);
  }
  std::vector<uint8_t>().swap(received_);
  head_ = 0;
  readable_.Notify();
  writable_.Notify();
}

void TunnelStream::Respond(const http::ResponseHead& head, bool end_stream) {
  if (mux_ == nullptr) return;
  if (end_stream) shut_ = true;
  mux_->session_->SubmitResponse(id_, head, end_stream);
  mux_->Wake();
}

void TunnelStream::OnResponse(const http::ResponseHead& head) {
  status_ = head.status;
  policy_ = head.headers.Get("x-weft-policy").value_or("");
  refusal_ = head.headers.Get("x-weft-reason").value_or("");
  readable_.Notify();
}

void TunnelStream::OnData(std::span<const uint8_t> data) {
  if (head_ > received_.size() / 2) {
    received_.erase(received_.begin(), received_.begin() + static_cast<ptrdiff_t>(head_));
    head_ = 0;
  }
  received_.insert(received_.end(), data.begin(), data.end());
  readable_.Notify();
}

void TunnelStream::OnEof() {
  eof_ = true;
  readable_.Notify();
}

void TunnelStream::OnReset(Reason reason, http::ResetCode code) {
  retriable_ = code == http::ResetCode::kRefusedStream;
  if (reason == WEFT_R_NONE || reason == WEFT_R_CLOSED) reason = WEFT_R_PEER_RESET;
  OnGone(reason);
}

void TunnelStream::OnGone(Reason reason) {
  mux_ = nullptr;
  // Bytes that arrived before an orderly end stay readable; a reset discards them, as TCP's does.
  if (!eof_ || !shut_) {
    if (reason_ == WEFT_R_NONE) reason_ = reason;
    std::vector<uint8_t>().swap(received_);
    head_ = 0;
  }
  readable_.Notify();
  writable_.Notify();
}

}  // namespace weft::tunnel
