// SPDX-License-Identifier: Apache-2.0
// Deadlines of a worker at 10 ms resolution: setting and clearing one is a list operation, no heap
// and no system call. A timer never fires early, and at most one tick late. Thread: one. Who drives
// it calls Advance() and asks NextWake().
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>

namespace weft::worker {

using TimePoint = std::chrono::steady_clock::time_point;

class TimerWheel;

// Embedded in the object it belongs to; clears itself when destroyed.
class WheelTimer final {
 public:
  using Callback = void (*)(void* owner);
  WheelTimer(Callback callback, void* owner) : callback_(callback), owner_(owner) {}
  ~WheelTimer() { Clear(); }
  WheelTimer(const WheelTimer&) = delete;
  WheelTimer& operator=(const WheelTimer&) = delete;

  bool is_set() const { return wheel_ != nullptr; }
  TimePoint due() const { return due_; }
  void Clear();

 private:
  friend class TimerWheel;
  Callback callback_;
  void* owner_;
  TimerWheel* wheel_ = nullptr;
  WheelTimer* next_ = nullptr;
  WheelTimer* previous_ = nullptr;
  uint32_t slot_ = 0;
  TimePoint due_{};
};

class TimerWheel final {
 public:
  static constexpr std::chrono::milliseconds kTick{10};
  static constexpr uint32_t kSlots = 512;

  explicit TimerWheel(TimePoint now) : tick_(TickOf(now)) {}
  ~TimerWheel();
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  // (Re)sets the timer. True if it is earlier than what NextWake() said last.
  bool Set(WheelTimer& timer, TimePoint due);
  // Fires what is due. Callbacks may set and clear any timer, this one included, and destroy their
  // owner.
  void Advance(TimePoint now);
  // When Advance() should be called next, at the latest after one revolution (5 s); nullopt if no
  // timer is set. Ask again after each Advance() and when Set() said so.
  std::optional<TimePoint> NextWake();
  size_t size() const { return size_; }

 private:
  friend class WheelTimer;
  static int64_t TickOf(TimePoint t) { return t.time_since_epoch() / kTick; }
  void Unlink(WheelTimer& timer);

  std::array<WheelTimer*, kSlots> slots_{};
  int64_t tick_;                  // everything due before it has fired
  WheelTimer* cursor_ = nullptr;  // the next one Advance() looks at, kept right by Unlink()
  size_t size_ = 0;
  int64_t promised_tick_ = std::numeric_limits<int64_t>::max();  // what NextWake() said last
};

}  // namespace weft::worker
