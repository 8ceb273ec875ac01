// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/timer_wheel.h"

#include <algorithm>
#include <limits>

namespace weft::worker {

void WheelTimer::Clear() {
  if (wheel_ != nullptr) wheel_->Unlink(*this);
}

TimerWheel::~TimerWheel() {
  for (WheelTimer* head : slots_) {
    while (head != nullptr) {
      WheelTimer* next = head->next_;
      head->wheel_ = nullptr;
      head = next;
    }
  }
}

void TimerWheel::Unlink(WheelTimer& timer) {
  if (cursor_ == &timer) cursor_ = timer.next_;
  if (timer.previous_ != nullptr) {
    timer.previous_->next_ = timer.next_;
  } else {
    slots_[timer.slot_] = timer.next_;
  }
  if (timer.next_ != nullptr) timer.next_->previous_ = timer.previous_;
  timer.next_ = timer.previous_ = nullptr;
  timer.wheel_ = nullptr;
  --size_;
}

bool TimerWheel::Set(WheelTimer& timer, TimePoint due) {
  timer.Clear();
  // Rounded up: it fires in the first tick that begins at or after `due`, and never in one that has
  // passed.
  const int64_t tick = std::max(TickOf(due + kTick - std::chrono::nanoseconds(1)), tick_ + 1);
  timer.due_ = due;
  timer.slot_ = static_cast<uint32_t>(tick % kSlots);
  timer.wheel_ = this;
  timer.previous_ = nullptr;
  timer.next_ = slots_[timer.slot_];
  if (timer.next_ != nullptr) timer.next_->previous_ = &timer;
  slots_[timer.slot_] = &timer;
  ++size_;
  return tick < promised_tick_;
}

void TimerWheel::Advance(TimePoint now) {
  const int64_t now_tick = TickOf(now);
  if (now_tick <= tick_) return;
  const int64_t first = tick_ + 1;
  const int64_t last = std::min(now_tick, tick_ + kSlots);  // one revolution sees every slot
  tick_ = now_tick;
  for (int64_t t = first; t <= last; ++t) {
    cursor_ = slots_[static_cast<size_t>(t % kSlots)];
    while (cursor_ != nullptr) {
      WheelTimer& timer = *cursor_;
      cursor_ = timer.next_;
      if (timer.due_ > now) continue;  // of a later revolution
      Unlink(timer);
      timer.callback_(timer.owner_);
    }
  }
}

std::optional<TimePoint> TimerWheel::NextWake() {
  promised_tick_ = std::numeric_limits<int64_t>::max();
  if (size_ == 0) return std::nullopt;
  int64_t tick = tick_ + 1;
  while (slots_[static_cast<size_t>(tick % kSlots)] == nullptr) ++tick;
  promised_tick_ = tick;
  return TimePoint(tick * kTick);
}

}  // namespace weft::worker
