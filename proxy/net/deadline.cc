// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/deadline.h"

#include <boost/asio/steady_timer.hpp>

namespace weft::net {

struct Deadline::State {
  State(const boost::asio::any_io_executor& executor, std::function<void()> callback)
      : timer(executor), on_expiry(std::move(callback)) {}
  boost::asio::steady_timer timer;
  std::function<void()> on_expiry;  // empty once the Deadline has ended
  bool expired = false;
};

Deadline::Deadline(boost::asio::any_io_executor executor, std::chrono::milliseconds after,
                   std::function<void()> on_expiry) {
  if (after.count() <= 0) return;
  state_ = std::make_shared<State>(executor, std::move(on_expiry));
  state_->timer.expires_after(after);
  state_->timer.async_wait([state = state_](boost::system::error_code error) {
    if (error || !state->on_expiry) return;
    state->expired = true;
    auto callback = std::move(state->on_expiry);
    state->on_expiry = nullptr;
    callback();
  });
}

Deadline::~Deadline() {
  if (!state_) return;
  state_->on_expiry = nullptr;
  state_->timer.cancel();
}

bool Deadline::expired() const { return state_ && state_->expired; }

}  // namespace weft::net
