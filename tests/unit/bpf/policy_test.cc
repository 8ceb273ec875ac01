// SPDX-License-Identifier: Apache-2.0
// The evaluator, branch by branch: bpf/policy.h compiled for the host over a map of entries. What
// compiled policies answer is tests/unit/control/policy's.
#include "bpf/policy.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

namespace weft {
namespace {

constexpr uint64_t kEpoch = 10;
constexpr uint32_t kClient = 7;  // a class
constexpr uint32_t kAll = (1u << WEFT_LAYERS) - 1;

using Key = std::tuple<uint32_t, uint32_t, uint32_t, int, int, int>;

struct Maps {
  std::map<Key, weft_policy> entries;
  std::map<uint32_t, weft_subject> subjects;
  int lookups = 0;
};

int Find(void* maps, const weft_policy_key* key, __u64 epoch, weft_says* out) {
  auto* all = static_cast<Maps*>(maps);
  ++all->lookups;
  auto found = all->entries.find(
      {key->subject, key->layer, key->class_number, key->protocol, key->length, key->port});
  return weft_says_at(found == all->entries.end() ? nullptr : &found->second, epoch, out);
}

const weft_subject* FindSubject(void* maps, __u32 id) {
  auto* all = static_cast<Maps*>(maps);
  auto found = all->subjects.find(id);
  return found == all->subjects.end() ? nullptr : &found->second;
}

class Judge : public testing::Test {
 protected:
  // The source is workload 1, the destination workload 2; nothing is active.
  Judge() {
    for (const uint32_t id : {1u, 2u}) maps_.subjects[id] = {.from = {1, WEFT_NEVER}};
    question_ = {.epoch = kEpoch,
                 .source_subject = 1,
                 .source_class = kClient,
                 .destination_subject = 2,
                 .destination_class = kClient,
                 .layers = kAll,
                 .port = 8080,
                 .protocol = WEFT_PROTOCOL_TCP};
  }
  void Activate(uint32_t subject, uint32_t layer, uint32_t says, uint32_t lengths) {
    maps_.subjects[subject].v[0][layer] = {says, 99, lengths};
  }
  void Put(uint32_t layer, uint32_t class_number, int protocol, int length, int port,
           weft_says says) {
    weft_policy& entry = maps_.entries[{layer == WEFT_LAYER_EGRESS ? 1u : 2u, layer, class_number,
                                        protocol, length, port}];
    entry = {.from = {1, WEFT_NEVER}};
    entry.v[0] = says;
  }
  weft_answer Ask() {
    weft_answer answer{};
    weft_judge(&question_, &maps_, Find, FindSubject, &answer);
    return answer;
  }

  Maps maps_;
  weft_question question_{};
};

constexpr uint32_t kIn = WEFT_LAYER_INGRESS;
constexpr uint32_t kAllow = WEFT_SAYS_ALLOW, kDeny = WEFT_SAYS_DENY, kAudit = WEFT_SAYS_AUDIT;

TEST(InForce, TheHighestThatIsNotBeyondTheEpoch) {
  struct Case {
    uint64_t a, b;
    int version;
  };
  for (const Case& c : {Case{1, WEFT_NEVER, 0}, Case{WEFT_NEVER, 1, 1}, Case{1, 2, 1},
                        Case{2, 1, 0}, Case{10, 11, 0}, Case{11, 10, 1}, Case{11, 12, -1},
                        Case{WEFT_NEVER, WEFT_NEVER, -1}, Case{0, 10, 1}}) {
    const __u64 from[2] = {c.a, c.b};
    EXPECT_EQ(weft_in_force(from, kEpoch), c.version) << c.a << " " << c.b;
  }
}

TEST(SaysAt, AbsentAndNotYetAreNothing) {
  weft_says out{};
  EXPECT_EQ(weft_says_at(nullptr, kEpoch, &out), 0);
  weft_policy entry{.from = {11, WEFT_NEVER}};
  entry.v[0] = {kAllow, 1, 0};
  EXPECT_EQ(weft_says_at(&entry, kEpoch, &out), 0);
  EXPECT_EQ(out.says, 0u);
  EXPECT_EQ(weft_says_at(&entry, 11, &out), 1);
  EXPECT_EQ(out.says, kAllow);
  entry.from[1] = 12;
  entry.v[1] = {WEFT_SAYS_ABSENT, 0, 0};
  EXPECT_EQ(weft_says_at(&entry, 11, &out), 1);
  EXPECT_EQ(weft_says_at(&entry, 12, &out), 0);
  EXPECT_EQ(out.says, 0u);
}

TEST(ClassAt, TheWorldIfThereIsNone) {
  EXPECT_EQ(weft_class_at(nullptr, kEpoch), WEFT_CLASS_WORLD);
  const weft_class entry{.from = {0, 11}, .number = {3, 4}};
  EXPECT_EQ(weft_class_at(&entry, 10), 3u);
  EXPECT_EQ(weft_class_at(&entry, 11), 4u);
  const weft_class later{.from = {12, WEFT_NEVER}, .number = {3, 4}};
  EXPECT_EQ(weft_class_at(&later, 11), WEFT_CLASS_WORLD);
}

TEST_F(Judge, WithoutActiveLayersAllIsAllowedByNobody) {
  const weft_answer answer = Ask();
  EXPECT_TRUE(answer.allowed);
  EXPECT_TRUE(answer.by_default);
  EXPECT_EQ(answer.rule, 0u);
  EXPECT_EQ(maps_.lookups, 0);
}

TEST_F(Judge, ASubjectWithoutAnEntryMayDoNothing) {
  maps_.subjects.erase(2);
  EXPECT_FALSE(Ask().allowed);
  EXPECT_EQ(Ask().layer, kIn);
  maps_.subjects[2] = {.from = {11, WEFT_NEVER}};  // not yet in force
  EXPECT_FALSE(Ask().allowed);
  question_.destination_subject = 0;  // somewhere else: not ours to say
  EXPECT_TRUE(Ask().allowed);
  question_.source_subject = 3;
  EXPECT_FALSE(Ask().allowed);
  EXPECT_EQ(Ask().layer, uint32_t{WEFT_LAYER_EGRESS});
}

TEST_F(Judge, OnlyLayersThatAreAskedFor) {
  for (const uint32_t layer : {0u, 1u, 2u}) Activate(layer == 0 ? 1 : 2, layer, kDeny, 0);
  for (const uint32_t layer : {0u, 1u, 2u}) {
    question_.layers = 1u << layer;
    const weft_answer answer = Ask();
    EXPECT_FALSE(answer.allowed);
    EXPECT_EQ(answer.layer, layer);
    EXPECT_EQ(answer.rule, 99u);
    EXPECT_TRUE(answer.by_default);
  }
  question_.layers = 0;
  EXPECT_TRUE(Ask().allowed);
  question_.layers = 1u << WEFT_LAYER_AUTHORIZATION;  // of TCP only
  question_.protocol = WEFT_PROTOCOL_UDP;
  EXPECT_TRUE(Ask().allowed);
}

TEST_F(Judge, TheLongestPrefixSaysAll) {
  Activate(2, kIn, kDeny, 1u << 16 | 1u << 8 | 1u << 0 | 1u << WEFT_LENGTH_ANY);
  Put(kIn, kClient, WEFT_PROTOCOL_ANY, 0, 0, {kAllow, 1, 0});
  EXPECT_EQ(Ask().rule, 1u);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kDeny, 2, 0});
  EXPECT_EQ(Ask().rule, 2u);
  EXPECT_FALSE(Ask().allowed);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 8, 8080 & 0xff00, {kAllow, 3, 0});
  EXPECT_EQ(Ask().rule, 3u);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 16, 8080, {0, 0, 0});  // says nothing: the default
  EXPECT_FALSE(Ask().allowed);
  EXPECT_TRUE(Ask().by_default);
  question_.protocol = WEFT_PROTOCOL_UDP;
  EXPECT_EQ(Ask().rule, 1u);
  question_.protocol = WEFT_PROTOCOL_OTHER;
  question_.port = 0;
  EXPECT_EQ(Ask().rule, 1u);
}

TEST_F(Judge, LengthsThatDoNotOccurAreNotLookedUp) {
  Activate(2, kIn, kAllow, 1u << 16);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kDeny, 2, 0});
  EXPECT_TRUE(Ask().allowed);
  EXPECT_EQ(maps_.lookups, 2);
}

struct Both {
  uint32_t mine, others;
  bool allowed;
  uint32_t rule;
};

TEST_F(Judge, DenyOfEitherThenAllowOfEitherThenTheDefault) {
  Activate(2, kIn, kDeny, 1u << 0);
  for (const Both& c :
       {Both{kDeny, 0, false, 1}, Both{kDeny, kAllow, false, 1}, Both{kAllow, kDeny, false, 2},
        Both{0, kDeny, false, 2}, Both{kAllow, 0, true, 1}, Both{0, kAllow, true, 2},
        Both{kAllow, kAllow, true, 1}, Both{0, 0, false, 99}}) {
    Put(kIn, kClient, WEFT_PROTOCOL_TCP, 0, 0, {c.mine, 1, 0});
    Put(kIn, WEFT_CLASS_ANY, WEFT_PROTOCOL_TCP, 0, 0, {c.others, 2, 0});
    EXPECT_EQ(Ask().rule, c.rule) << c.mine << " " << c.others;
  }
}

TEST_F(Judge, AnAuditIsReportedWhateverIsDecided) {
  Activate(2, kIn, kAllow, 1u << 0);
  Put(kIn, WEFT_CLASS_ANY, WEFT_PROTOCOL_TCP, 0, 0, {kAudit, 0, 6});
  EXPECT_EQ(Ask().audit, 6u);
  EXPECT_TRUE(Ask().allowed);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kDeny | kAudit, 1, 5});
  EXPECT_EQ(Ask().audit, 5u);
  EXPECT_FALSE(Ask().allowed);
}

TEST_F(Judge, AllLayersMustAllow) {
  Activate(1, WEFT_LAYER_EGRESS, kDeny, 1u << 0);
  Put(WEFT_LAYER_EGRESS, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kAllow, 4, 0});
  Activate(2, WEFT_LAYER_AUTHORIZATION, kAllow, 1u << 0);
  EXPECT_TRUE(Ask().allowed);
  Put(WEFT_LAYER_AUTHORIZATION, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kDeny, 5, 0});
  EXPECT_FALSE(Ask().allowed);
  EXPECT_EQ(Ask().rule, 5u);
}

// A change in three entries: every decision sees all of it or none, whichever moment it reads at.
TEST_F(Judge, AnEpochIsOneChange) {
  Activate(2, kIn, kDeny, 1u << 0);
  Put(kIn, kClient, WEFT_PROTOCOL_TCP, 0, 0, {kAllow, 1, 0});
  weft_policy& entry = maps_.entries.begin()->second;
  entry.from[1] = kEpoch + 1;
  entry.v[1] = {WEFT_SAYS_ABSENT, 0, 0};
  weft_subject& subject = maps_.subjects[2];
  subject.from[1] = kEpoch + 1;
  subject.v[1][kIn] = {kAllow, 98, 1u << 0};
  EXPECT_EQ(Ask().rule, 1u);
  question_.epoch = kEpoch + 1;
  EXPECT_EQ(Ask().rule, 98u);
}

}  // namespace
}  // namespace weft
