// SPDX-License-Identifier: Apache-2.0
// Lets one coroutine sleep until another piece of code on the same thread wakes it. Thread: one;
// owns a timer that never fires.
#pragma once
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>

#include "proxy/base/task.h"

namespace weft {

// At most one waiter. A Notify() with no waiter is remembered, so it is never lost; several count
// as one. Destroying a Signal while a coroutine waits on it is an error of the owner: the frame
// that waits must end first.
class Signal final {
 public:
  explicit Signal(const asio::any_io_executor& executor)
      : timer_(executor, asio::steady_timer::time_point::max()) {}

  void Notify() {
    if (set_) return;
    set_ = true;
    timer_.cancel();
  }

  Task<void> Wait() {
    if (!set_) {
      boost::system::error_code cancelled;
      co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    }
    set_ = false;
  }

 private:
  asio::steady_timer timer_;
  bool set_ = false;
};

}  // namespace weft
