// SPDX-License-Identifier: Apache-2.0
// When the late-insertion iterator runs in one network namespace. Pure: the caller tells the time.
// What asks is a connection whose program is not known, so programs with many short connections ask
// all the time and nothing comes of it. Hence walks come in pairs, 20 ms apart (a connecting end
// must be seen twice), and the pause between pairs doubles, up to a second, while they insert
// nothing. Thread: the agent's.
#pragma once
#include <chrono>
#include <optional>

namespace weft::bpf {

struct LateInsertion;

class WalkSchedule final {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kApart{20};
  static constexpr std::chrono::milliseconds kLongestPause{1000};
  // Walks after the last ask while connections wait (to be accepted, to be seen again): 5 s or so.
  static constexpr int kMaxWalks = 16;

  // Some connection wants to be looked at.
  void Ask(Clock::time_point now);
  // When the next walk is due; nullopt: nobody waits for one.
  std::optional<Clock::time_point> next() const { return next_; }
  // A walk ended now. nullopt: it failed.
  void Walked(Clock::time_point now, std::optional<LateInsertion> result);

 private:
  std::optional<Clock::time_point> next_, last_;
  Clock::duration pause_ = kApart;  // after the current pair
  bool second_ = false;             // the next walk is the second one of its pair
  int walks_left_ = 0;
};

}  // namespace weft::bpf
