// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/walk_schedule.h"

#include <algorithm>

#include "control/bpf/loader.h"

namespace weft::bpf {

void WalkSchedule::Ask(Clock::time_point now) {
  walks_left_ = kMaxWalks;
  if (next_) return;
  if (!last_ || now - *last_ >= kLongestPause) {  // whatever was in vain is over
    pause_ = kApart;
    next_ = now;
    return;
  }
  next_ = std::max(now, *last_ + pause_);
}

void WalkSchedule::Walked(Clock::time_point now, std::optional<LateInsertion> result) {
  const bool waits = !result || result->waiting != 0;
  last_ = now;
  --walks_left_;
  if (result && result->inserted != 0) {
    pause_ = kApart;
    second_ = false;
  } else if (waits && !second_) {
    second_ = true;
  } else {
    pause_ = std::min<Clock::duration>(2 * pause_, kLongestPause);
    second_ = false;
  }
  if (!waits || walks_left_ <= 0) {
    next_.reset();
    second_ = false;
  } else {
    next_ = now + (second_ ? kApart : pause_);
  }
}

}  // namespace weft::bpf
