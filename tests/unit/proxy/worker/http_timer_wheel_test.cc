// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "proxy/worker/timer_wheel.h"

namespace weft::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Alarm {
  int fired = 0;
  WheelTimer timer{[](void* self) { ++static_cast<Alarm*>(self)->fired; }, this};
};

TEST(TimerWheel, FiresOnceWithinATickAfterItsTime) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Alarm a;
  wheel.Set(a.timer, now + milliseconds(25));
  wheel.Advance(now + milliseconds(24));
  EXPECT_EQ(a.fired, 0);
  wheel.Advance(now + milliseconds(35));
  EXPECT_EQ(a.fired, 1);
  wheel.Advance(now + seconds(20));
  EXPECT_EQ(a.fired, 1);
  EXPECT_EQ(wheel.size(), 0u);
}

TEST(TimerWheel, AgreesWithASortedListWhateverTheSteps) {
  std::mt19937 random(5);
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  std::vector<Alarm> alarms(300);
  std::vector<TimePoint> due(alarms.size(), TimePoint::max());
  std::vector<int> expected(alarms.size(), 0);
  for (int step = 0; step < 3000; ++step) {
    const size_t i = random() % alarms.size();
    if (random() % 4 == 0) {
      alarms[i].timer.Clear();
      due[i] = TimePoint::max();
    } else {
      due[i] = now + milliseconds(1 + random() % 20000);
      wheel.Set(alarms[i].timer, due[i]);
    }
    now += milliseconds(random() % 40 == 0 ? 7000 : random() % 30);
    wheel.Advance(now);
    for (size_t k = 0; k < alarms.size(); ++k) {
      ASSERT_FALSE(alarms[k].fired > expected[k] && due[k] > now) << "fired early";
      if (due[k] <= now - TimerWheel::kTick) {
        ++expected[k];
        due[k] = TimePoint::max();
        ASSERT_EQ(alarms[k].fired, expected[k]) << "late or lost";
      } else if (alarms[k].fired > expected[k]) {
        ++expected[k];
        due[k] = TimePoint::max();
      }
    }
  }
}

TEST(TimerWheel, CallbacksMayClearAndSetOthers) {
  struct Chain {
    TimerWheel* wheel;
    Alarm* victim;
    TimePoint again;
    int fired = 0;
    WheelTimer timer{[](void* self) {
                       auto& chain = *static_cast<Chain*>(self);
                       ++chain.fired;
                       chain.victim->timer.Clear();
                       if (chain.fired == 1) chain.wheel->Set(chain.timer, chain.again);
                     },
                     this};
  };
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Alarm victim;
  Chain chain{&wheel, &victim, now + milliseconds(500)};
  wheel.Set(victim.timer, now + milliseconds(10));
  wheel.Set(chain.timer, now + milliseconds(10));  // the newest of a slot goes first
  wheel.Advance(now + milliseconds(100));
  EXPECT_EQ(chain.fired, 1);
  EXPECT_EQ(victim.fired, 0);
  wheel.Advance(now + milliseconds(510));
  EXPECT_EQ(chain.fired, 2);
}

TEST(TimerWheel, SaysWhenToWake) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Alarm a, b;
  EXPECT_EQ(wheel.NextWake(), std::nullopt);
  EXPECT_TRUE(wheel.Set(a.timer, now + milliseconds(300)));
  EXPECT_EQ(wheel.NextWake(), now + milliseconds(300));
  EXPECT_FALSE(wheel.Set(b.timer, now + milliseconds(400)));
  EXPECT_TRUE(wheel.Set(b.timer, now + milliseconds(200)));
  EXPECT_EQ(wheel.NextWake(), now + milliseconds(200));
}

}  // namespace
}  // namespace weft::worker
