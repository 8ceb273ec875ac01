// SPDX-License-Identifier: Apache-2.0
// Counts the coroutines a worker has started, so that shutdown can wait for the last one. Thread:
// the worker's.
#pragma once
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <utility>

#include "proxy/base/log.h"
#include "proxy/base/signal.h"

namespace weft::worker {

class Gate final {
 public:
  explicit Gate(const asio::any_io_executor& executor) : executor_(executor), changed_(executor) {}

  // Starts a coroutine that ends by itself. A stray exception ends it alone and is counted as a
  // bug.
  void Spawn(Task<void> task) {
    ++in_flight_;
    asio::co_spawn(executor_, std::move(task), [this](std::exception_ptr error) {
      --in_flight_;
      if (error) WEFT_BUG("exception in a coroutine of the worker");
      if (in_flight_ == 0) changed_.Notify();
    });
  }
  // At most one waiter.
  Task<void> Empty() {
    while (in_flight_ > 0) co_await changed_.Wait();
  }
  size_t in_flight() const { return in_flight_; }

 private:
  asio::any_io_executor executor_;
  Signal changed_;
  size_t in_flight_ = 0;
};

}  // namespace weft::worker
