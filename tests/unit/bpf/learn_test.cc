// SPDX-License-Identifier: Apache-2.0
// What takes a binary out of `splice: auto`, and what lets it in: bpf/learn.h compiled for the
// host.
#include "bpf/learn.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <string>

namespace weft {
namespace {

static_assert(WEFT_MSG_OOB == MSG_OOB && WEFT_MSG_PEEK == MSG_PEEK && WEFT_MSG_TRUNC == MSG_TRUNC);
static_assert(WEFT_MSG_DONTWAIT == MSG_DONTWAIT && WEFT_MSG_WAITALL == MSG_WAITALL);
static_assert(WEFT_MSG_ZEROCOPY == MSG_ZEROCOPY && WEFT_FIONREAD == FIONREAD);
static_assert(WEFT_TCP_INFO == TCP_INFO && WEFT_SOL_TCP == IPPROTO_TCP);
static_assert(WEFT_TCP_ZEROCOPY_RECEIVE == TCP_ZEROCOPY_RECEIVE);

struct ReceiveCase {
  const char* name;
  weft_receive receive;
  uint32_t breaker;
};

class Receive : public testing::TestWithParam<ReceiveCase> {};

TEST_P(Receive, IsJudged) {
  EXPECT_EQ(weft_receive_breaks(&GetParam().receive), GetParam().breaker);
}

constexpr uint32_t kNow = MSG_DONTWAIT;
INSTANTIATE_TEST_SUITE_P(
    Calls, Receive,
    testing::Values(
        ReceiveCase{"Plain", {.flags = kNow, .size = 4096, .low_water = 1}, WEFT_BREAKER_NONE},
        ReceiveCase{"Blocking", {.size = 4096, .low_water = 1}, WEFT_BREAKER_BLOCKING_RECEIVE},
        ReceiveCase{"WaitAll", {.flags = MSG_WAITALL, .size = 200}, WEFT_BREAKER_WAITALL},
        ReceiveCase{"WaitAllThatDoesNotWait",
                    {.flags = kNow | MSG_WAITALL, .size = 200},
                    WEFT_BREAKER_NONE},
        ReceiveCase{"Urgent", {.flags = kNow | MSG_OOB, .size = 1}, WEFT_BREAKER_URGENT},
        ReceiveCase{"Discard", {.flags = kNow | MSG_TRUNC, .size = 100}, WEFT_BREAKER_DISCARD},
        ReceiveCase{"PeekForLife", {.flags = kNow | MSG_PEEK, .size = 1}, WEFT_BREAKER_NONE},
        ReceiveCase{"Peek", {.flags = kNow | MSG_PEEK, .size = 2}, WEFT_BREAKER_PEEK},
        ReceiveCase{"LowWater", {.flags = kNow, .size = 9, .low_water = 2}, WEFT_BREAKER_LOW_WATER},
        ReceiveCase{"IoUring", {.flags = kNow, .size = 9, .io_uring = 1}, WEFT_BREAKER_IO_URING}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(Learn, SendsIoctlsAndOptions) {
  EXPECT_EQ(weft_setsockopt_breaks(SOL_SOCKET, SO_RCVLOWAT, 1), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_setsockopt_breaks(SOL_SOCKET, SO_RCVLOWAT, 2), WEFT_BREAKER_LOW_WATER);
  EXPECT_EQ(weft_setsockopt_breaks(SOL_SOCKET, SO_KEEPALIVE, 2), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_setsockopt_breaks(IPPROTO_TCP, TCP_INQ, 1), WEFT_BREAKER_PENDING_COUNT);
  EXPECT_EQ(weft_setsockopt_breaks(IPPROTO_TCP, TCP_ULP, 0), WEFT_BREAKER_ULP);
  EXPECT_EQ(weft_setsockopt_breaks(IPPROTO_TCP, TCP_NODELAY, 1), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_send_breaks(MSG_NOSIGNAL | MSG_MORE | MSG_DONTWAIT), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_send_breaks(MSG_OOB), WEFT_BREAKER_URGENT);
  EXPECT_EQ(weft_send_breaks(MSG_ZEROCOPY), WEFT_BREAKER_ZEROCOPY_SEND);
  EXPECT_EQ(weft_ioctl_breaks(FIONREAD), WEFT_BREAKER_PENDING_COUNT);
  EXPECT_EQ(weft_ioctl_breaks(SIOCATMARK), WEFT_BREAKER_URGENT);
  EXPECT_EQ(weft_ioctl_breaks(FIONBIO), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_getsockopt_breaks(IPPROTO_TCP, TCP_INFO), WEFT_BREAKER_TCP_INFO);
  EXPECT_EQ(weft_getsockopt_breaks(IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE),
            WEFT_BREAKER_ZEROCOPY_RECEIVE);
  EXPECT_EQ(weft_getsockopt_breaks(IPPROTO_TCP, TCP_NODELAY), WEFT_BREAKER_NONE);
  EXPECT_EQ(weft_getsockopt_breaks(SOL_SOCKET, TCP_INFO), WEFT_BREAKER_NONE);
}

TEST(Learn, AVerdictIsBySideUntilABreaker) {
  EXPECT_EQ(weft_binary_judge(nullptr, WEFT_SIDE_CONNECTING), WEFT_BINARY_LEARNING);
  weft_learned binary{};
  binary.seen[WEFT_SIDE_ACCEPTING] = WEFT_LEARN_CONNECTIONS - 1;
  EXPECT_EQ(weft_binary_judge(&binary, WEFT_SIDE_ACCEPTING), WEFT_BINARY_LEARNING);
  binary.seen[WEFT_SIDE_ACCEPTING] = WEFT_LEARN_CONNECTIONS;
  EXPECT_EQ(weft_binary_judge(&binary, WEFT_SIDE_ACCEPTING), WEFT_BINARY_ELIGIBLE);
  EXPECT_EQ(weft_binary_judge(&binary, WEFT_SIDE_CONNECTING), WEFT_BINARY_LEARNING);
  EXPECT_EQ(weft_binary_judge(&binary, WEFT_SIDES), WEFT_BINARY_LEARNING);
  binary.breaker = WEFT_BREAKER_PEEK;
  for (uint32_t side = 0; side < WEFT_SIDES; ++side) {
    EXPECT_EQ(weft_binary_judge(&binary, side), WEFT_BINARY_INELIGIBLE);
  }
}

TEST(Learn, AConnectionCountsOnceAndOnlyIfReceivedOn) {
  weft_learner unused{};
  EXPECT_FALSE(weft_learner_closed(&unused));
  weft_learner brief{};
  EXPECT_FALSE(weft_learner_received(&brief));
  EXPECT_TRUE(weft_learner_closed(&brief));
  EXPECT_FALSE(weft_learner_closed(&brief));
  weft_learner lasting{};
  int counted = 0;
  for (int i = 0; i < 3 * WEFT_LEARN_RECEIVES; ++i) counted += weft_learner_received(&lasting);
  EXPECT_EQ(counted, 1);
  EXPECT_FALSE(weft_learner_closed(&lasting));
}

}  // namespace
}  // namespace weft
