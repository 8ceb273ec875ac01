// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/pump.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <memory>

#include "proxy/base/signal.h"
#include "proxy/net/buffer_slab.h"

namespace weft::net {
namespace {

using Clock = std::chrono::steady_clock;

// A direction that is always ready yields after this much, so that one bulk transfer does not
// starve the thread.
constexpr size_t kBytesPerTurn = 1 << 20;

struct PumpState {
  PumpState(const asio::any_io_executor& executor, Stream& down, Stream& up, PumpResult* result)
      : downstream(down), upstream(up), moved(*result), other_ended(executor) {}

  void Fail(Reason reason) {
    if (moved.reason == WEFT_R_CLOSED) moved.reason = reason;
    downstream.Close(reason);
    upstream.Close(reason);
  }

  Stream& downstream;
  Stream& upstream;
  PumpResult& moved;
  Signal other_ended;
  Clock::time_point last_activity = Clock::now();
};

// Picks the next buffer from how the last turn went: grows when a read filled it, shrinks when it
// used less than a quarter.
int NextSizeClass(int size_class, size_t last_read_bytes) {
  if (last_read_bytes == kBufferBytes[size_class] && size_class + 1 < kBufferSizes)
    return size_class + 1;
  if (last_read_bytes < kBufferBytes[size_class] / 4 && size_class > 0) return size_class - 1;
  return size_class;
}

Task<void> CopyOneWay(PumpState& state, Stream& from, Stream& to, uint64_t& counter) {
  int size_class = 0;
  for (;;) {
    co_await from.Readable();  // no buffer is held here
    SlabBuffer buffer(size_class);
    size_t turn_bytes = 0;
    size_t last_read_bytes = 0;
    for (;;) {
      const IoResult in = from.TryRead(buffer.span());
      if (in.status == IoStatus::kWouldBlock) break;
      if (in.status == IoStatus::kEof) {
        to.ShutdownWrite();
        co_return;
      }
      if (in.status == IoStatus::kError) {
        state.Fail(in.reason);
        co_return;
      }
      last_read_bytes = in.bytes;
      size_t written = 0;
      while (written < in.bytes) {
        const iovec part{buffer.data() + written, in.bytes - written};
        const IoResult out = to.TryWrite({&part, 1});
        if (out.status == IoStatus::kOk) {
          written += out.bytes;
          counter += out.bytes;
        } else if (out.status == IoStatus::kWouldBlock) {
          co_await to.Writable();  // a slow reader holds us here
        } else {
          state.Fail(out.reason);
          co_return;
        }
      }
      state.last_activity = Clock::now();
      turn_bytes += in.bytes;
      if (in.bytes < buffer.size() || turn_bytes >= kBytesPerTurn) break;
      size_class = NextSizeClass(size_class, last_read_bytes);
      if (size_class != buffer.size_class()) buffer = SlabBuffer(size_class);
    }
    size_class = NextSizeClass(size_class, last_read_bytes);
  }
}

// Ends a pump on which nothing moved. Checks when the earliest expiry is due, so an active pump
// costs one timer event a timeout.
class IdleWatch final {
 public:
  IdleWatch(const asio::any_io_executor& executor, PumpState& state,
            std::chrono::milliseconds timeout) {
    if (timeout.count() <= 0) return;
    watch_ = std::make_shared<Watch>(executor, &state, timeout);
    Arm(watch_, state.last_activity + timeout);
  }
  ~IdleWatch() {
    if (!watch_) return;
    watch_->state = nullptr;
    watch_->timer.cancel();
  }
  IdleWatch(const IdleWatch&) = delete;
  IdleWatch& operator=(const IdleWatch&) = delete;

 private:
  struct Watch {
    Watch(const asio::any_io_executor& executor, PumpState* watched,
          std::chrono::milliseconds limit)
        : timer(executor), state(watched), timeout(limit) {}
    asio::steady_timer timer;
    PumpState* state;  // null once the pump has ended
    std::chrono::milliseconds timeout;
  };

  static void Arm(const std::shared_ptr<Watch>& watch, Clock::time_point when) {
    watch->timer.expires_at(when);
    watch->timer.async_wait([watch](boost::system::error_code error) {
      if (error || watch->state == nullptr) return;
      const auto due = watch->state->last_activity + watch->timeout;
      if (due <= Clock::now()) {
        watch->state->Fail(WEFT_R_IDLE_TIMEOUT);
      } else {
        Arm(watch, due);
      }
    });
  }

  std::shared_ptr<Watch> watch_;
};

}  // namespace

Task<PumpResult> Pump(Stream& downstream, Stream& upstream, PumpOptions options,
                      PumpResult* moved) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  PumpResult own;
  if (moved == nullptr) moved = &own;
  *moved = {};
  PumpState state(executor, downstream, upstream, moved);
  {
    const IdleWatch idle(executor, state, options.idle_timeout);
    asio::co_spawn(executor, CopyOneWay(state, upstream, downstream, moved->to_downstream_bytes),
                   [&state](std::exception_ptr failure) {
                     if (failure) state.Fail(WEFT_R_INTERNAL_ERROR);
                     state.other_ended.Notify();
                   });
    co_await CopyOneWay(state, downstream, upstream, moved->to_upstream_bytes);
    co_await state.other_ended.Wait();
  }
  downstream.Close(moved->reason);
  upstream.Close(moved->reason);
  co_return *moved;
}

}  // namespace weft::net
