// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/stream_pair.h"

#include <algorithm>
#include <deque>

#include "proxy/base/signal.h"

namespace weft::net {
namespace {

// One direction.
struct Pipe {
  explicit Pipe(const asio::any_io_executor& executor) : readable(executor), writable(executor) {}
  std::deque<uint8_t> bytes;
  Signal readable, writable;
  bool finished = false;        // the writer sent FIN
  Reason broken = WEFT_R_NONE;  // for the reader, after what is left
  Reason unread = WEFT_R_NONE;  // for the writer: the reader is gone
};

struct Shared {
  Shared(const asio::any_io_executor& executor, StreamPairOptions pair_options)
      : options(pair_options), pipes{Pipe(executor), Pipe(executor)} {}
  StreamPairOptions options;
  Pipe pipes[2];
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(std::shared_ptr<Shared> shared, int side)
      : shared_(std::move(shared)), in_(shared_->pipes[side]), out_(shared_->pipes[1 - side]) {}
  ~MemoryStream() override { Close(WEFT_R_CLOSED); }

  IoResult TryRead(std::span<uint8_t> into) override {
    if (closed_ != WEFT_R_NONE) return {.status = IoStatus::kError, .reason = closed_};
    const size_t n = std::min({into.size(), in_.bytes.size(), shared_->options.max_read_bytes});
    if (n == 0) {
      if (in_.finished) return {.status = IoStatus::kEof};
      if (in_.broken != WEFT_R_NONE) return {.status = IoStatus::kError, .reason = in_.broken};
      return {.status = IoStatus::kWouldBlock};
    }
    std::copy_n(in_.bytes.begin(), n, into.begin());
    in_.bytes.erase(in_.bytes.begin(), in_.bytes.begin() + static_cast<ptrdiff_t>(n));
    in_.writable.Notify();
    return {.bytes = n};
  }

  IoResult TryWrite(std::span<const iovec> from) override {
    if (closed_ != WEFT_R_NONE) return {.status = IoStatus::kError, .reason = closed_};
    if (out_.unread != WEFT_R_NONE) return {.status = IoStatus::kError, .reason = out_.unread};
    if (out_.finished) return {.status = IoStatus::kError, .reason = WEFT_R_IO_ERROR};
    size_t room = shared_->options.capacity_bytes -
                  std::min(shared_->options.capacity_bytes, out_.bytes.size());
    room = std::min(room, shared_->options.max_write_bytes);
    size_t written = 0;
    for (const iovec& part : from) {
      const size_t n = std::min(part.iov_len, room - written);
      const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
      out_.bytes.insert(out_.bytes.end(), bytes, bytes + n);
      written += n;
    }
    if (written == 0) return {.status = IoStatus::kWouldBlock};
    out_.readable.Notify();
    return {.bytes = written};
  }

  Task<void> Readable() override { return WaitReadable(shared_); }
  Task<void> Writable() override { return WaitWritable(shared_); }

  void ShutdownWrite() override {
    out_.finished = true;
    out_.readable.Notify();
  }

  void Close(Reason reason) override {
    if (closed_ != WEFT_R_NONE) return;
    closed_ = reason;
    if (reason == WEFT_R_CLOSED) {
      out_.finished = true;
    } else if (!out_.finished) {
      out_.bytes.clear();  // a reset overtakes data
      out_.broken = WEFT_R_PEER_RESET;
    }
    in_.unread = WEFT_R_PEER_RESET;
    for (Signal* signal : {&out_.readable, &out_.writable, &in_.readable, &in_.writable})
      signal->Notify();
  }

  int native_handle() const override { return -1; }

 private:
  bool Readiness() const {
    return closed_ != WEFT_R_NONE || !in_.bytes.empty() || in_.finished ||
           in_.broken != WEFT_R_NONE;
  }
  bool Writability() const {
    return closed_ != WEFT_R_NONE || out_.unread != WEFT_R_NONE ||
           out_.bytes.size() < shared_->options.capacity_bytes;
  }
  // The shared state outlives the wait even if this end does not.
  Task<void> WaitReadable(std::shared_ptr<Shared> keep) {
    if (Readiness()) co_return;
    Pipe& pipe = in_;
    co_await pipe.readable.Wait();
    (void)keep;
  }
  Task<void> WaitWritable(std::shared_ptr<Shared> keep) {
    if (Writability()) co_return;
    Pipe& pipe = out_;
    co_await pipe.writable.Wait();
    (void)keep;
  }

  std::shared_ptr<Shared> shared_;
  Pipe& in_;
  Pipe& out_;
  Reason closed_ = WEFT_R_NONE;
};

}  // namespace

StreamPair MakeStreamPair(asio::any_io_executor executor, StreamPairOptions options) {
  auto shared = std::make_shared<Shared>(executor, options);
  return {std::make_unique<MemoryStream>(shared, 0), std::make_unique<MemoryStream>(shared, 1)};
}

}  // namespace weft::net
