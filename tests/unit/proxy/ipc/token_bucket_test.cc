// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/token_bucket.h"

#include <gtest/gtest.h>

namespace weft::ipc {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

int TakenAt(TokenBucket& bucket, int64_t now_ns, int tries) {
  int taken = 0;
  for (int i = 0; i < tries; ++i) taken += bucket.Take(now_ns) ? 1 : 0;
  return taken;
}

TEST(TokenBucket, GivesTheBurstAndThenTheRate) {
  TokenBucket bucket(100, 50);
  EXPECT_EQ(TakenAt(bucket, 7 * kSecond, 1000), 50);
  EXPECT_EQ(TakenAt(bucket, 7 * kSecond + kSecond / 10, 1000), 10);
  EXPECT_EQ(TakenAt(bucket, 7 * kSecond + kSecond / 10 + 9'999'999, 1000), 0);
  EXPECT_EQ(TakenAt(bucket, 7 * kSecond + kSecond / 10 + 10'000'000, 1000), 1);
}

TEST(TokenBucket, NeverHoldsMoreThanTheBurst) {
  TokenBucket bucket(100, 50);
  EXPECT_EQ(TakenAt(bucket, 0, 1), 1);
  EXPECT_EQ(TakenAt(bucket, 3600 * kSecond, 1000), 50);
}

}  // namespace
}  // namespace weft::ipc
