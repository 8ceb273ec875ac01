// SPDX-License-Identifier: Apache-2.0
// How often the iterator walks a netns, with a clock of the test's.
#include "control/bpf/walk_schedule.h"

#include <gtest/gtest.h>

#include "control/bpf/loader.h"

namespace weft::bpf {
namespace {

using std::chrono::milliseconds;

constexpr LateInsertion kNothing{0, 0}, kWaits{0, 1}, kInserted{1, 0};

class WalkScheduleTest : public testing::Test {
 protected:
  // Milliseconds from now to the next walk; -1: none.
  int64_t Next() const {
    if (!schedule_.next()) return -1;
    return std::chrono::duration_cast<milliseconds>(*schedule_.next() - now_).count();
  }
  void Walk(std::optional<LateInsertion> result) {
    ASSERT_TRUE(schedule_.next());
    now_ = std::max(now_, *schedule_.next());
    schedule_.Walked(now_, result);
    ++walks_;
  }

  WalkSchedule schedule_;
  WalkSchedule::Clock::time_point now_{std::chrono::hours(1)};
  int walks_ = 0;
};

TEST_F(WalkScheduleTest, NothingIsDueUntilSomebodyAsks) {
  EXPECT_EQ(Next(), -1);
  schedule_.Ask(now_);
  EXPECT_EQ(Next(), 0);
  Walk(kInserted);
  EXPECT_EQ(Next(), -1);
}

TEST_F(WalkScheduleTest, AClientIsSeenTwiceAfterTwentyMilliseconds) {
  schedule_.Ask(now_);
  Walk(kWaits);
  EXPECT_EQ(Next(), 20);
  Walk(kInserted);
  EXPECT_EQ(Next(), -1);
  schedule_.Ask(now_);
  EXPECT_EQ(Next(), 20);
}

TEST_F(WalkScheduleTest, AsksAreCoalesced) {
  schedule_.Ask(now_);
  Walk(kWaits);
  for (int i = 0; i < 100; ++i) schedule_.Ask(now_);
  EXPECT_EQ(Next(), 20);
  now_ += milliseconds(30);
  schedule_.Ask(now_);
  EXPECT_EQ(Next(), -10);  // overdue stays overdue
}

TEST_F(WalkScheduleTest, PairsThatComeToNothingPauseTwiceAsLong) {
  std::vector<int64_t> pauses;
  for (int i = 0; i < 16; ++i) {
    schedule_.Ask(now_);
    Walk(kWaits);
    pauses.push_back(Next());
  }
  EXPECT_EQ(pauses, (std::vector<int64_t>{20, 40, 20, 80, 20, 160, 20, 320, 20, 640, 20, 1000, 20,
                                          1000, 20, 1000}));
  Walk(kInserted);
  schedule_.Ask(now_);
  EXPECT_EQ(Next(), 20);
}

// A MIXED process that connects every millisecond, and closes before it is seen twice.
TEST_F(WalkScheduleTest, ShortConnectionsWithoutEndCostTwoWalksASecond) {
  const auto end = now_ + std::chrono::seconds(60);
  for (; now_ < end; now_ += milliseconds(1)) {
    schedule_.Ask(now_);
    if (*schedule_.next() <= now_) Walk(walks_ % 3 == 0 ? kNothing : kWaits);
  }
  EXPECT_LE(walks_, 2 * 60 + 12);
  EXPECT_GE(walks_, 60);
}

TEST_F(WalkScheduleTest, ASecondWithoutWalksForgetsThePause) {
  for (int i = 0; i < 10; ++i) {
    schedule_.Ask(now_);
    Walk(kNothing);
  }
  schedule_.Ask(now_ + milliseconds(1));
  EXPECT_EQ(Next(), 1000);
  Walk(kNothing);
  now_ += milliseconds(1000);
  schedule_.Ask(now_);
  EXPECT_EQ(Next(), 0);
  Walk(kWaits);
  EXPECT_EQ(Next(), 20);
}

TEST_F(WalkScheduleTest, WhatIsNeverAcceptedIsGivenUpAfterSomeSeconds) {
  const auto start = now_;
  schedule_.Ask(now_);
  while (schedule_.next()) Walk(kWaits);
  EXPECT_EQ(walks_, WalkSchedule::kMaxWalks);
  EXPECT_GT(now_ - start, std::chrono::seconds(3));
  EXPECT_LT(now_ - start, std::chrono::seconds(6));
}

TEST_F(WalkScheduleTest, AFailedWalkIsTriedAgainAndGivenUp) {
  schedule_.Ask(now_);
  Walk(std::nullopt);
  EXPECT_EQ(Next(), 20);
  while (schedule_.next()) Walk(std::nullopt);
  EXPECT_EQ(walks_, WalkSchedule::kMaxWalks);
}

}  // namespace
}  // namespace weft::bpf
