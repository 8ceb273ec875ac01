// SPDX-License-Identifier: Apache-2.0
// Runs a coroutine of a test to its end on a fresh io_context, with a limit so that a hang is a
// failure and not a time-out of CTest. Every other coroutine that was spawned there has ended too
// when it returns, unless the test keeps work on purpose.
#pragma once
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <chrono>
#include <exception>
#include <string>

#include "proxy/base/task.h"

namespace weft::test {

class TaskRunner {
 public:
  asio::io_context& io() { return io_; }
  asio::any_io_executor executor() { return io_.get_executor(); }

  // Starts a coroutine beside the main one.
  void Spawn(Task<void> task) {
    ++running_;
    asio::co_spawn(io_, std::move(task), [this](std::exception_ptr failure) {
      --running_;
      EXPECT_FALSE(failure) << "a coroutine threw: " << What(failure);
      if (running_ == 0) io_.stop();
    });
  }
  // Runs until everything spawned has ended.
  void Run(std::chrono::seconds limit = std::chrono::seconds(30)) {
    io_.restart();
    io_.run_for(limit);
    ASSERT_EQ(running_, 0) << "a coroutine of the test hangs";
  }
  void Run(Task<void> task) {
    Spawn(std::move(task));
    Run();
  }

 private:
  static std::string What(const std::exception_ptr& failure) {
    if (!failure) return "";
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      return e.what();
    }
  }
  asio::io_context io_{1};
  int running_ = 0;
};

}  // namespace weft::test
