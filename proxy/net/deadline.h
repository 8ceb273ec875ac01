// SPDX-License-Identifier: Apache-2.0
// Calls back once if it still lives after a while: `net::Deadline limit(executor, 5s, [&] {
// stream.Close(...); });` Thread: the executor's. Unlike a bare timer, its callback never runs
// after its end, even if the expiry was already queued.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <functional>
#include <memory>

namespace weft::net {

class Deadline final {
 public:
  // `after` <= 0: never.
  Deadline(boost::asio::any_io_executor executor, std::chrono::milliseconds after,
           std::function<void()> on_expiry);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  bool expired() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::net
