// SPDX-License-Identifier: Apache-2.0
// bpf/process.h on the host: the search against a walk over all entries, in generated cases, and
// the bucket of events. What compiled policies answer is tests/unit/control/policy's.
#include "bpf/process.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>

namespace weft {
namespace {

using Key = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t, int, int, int>;

struct Maps {
  std::map<Key, weft_rules> rules;
  int lookups = 0;
};

Key KeyOf(const weft_rule_key& k) {
  return {k.generation, k.subject, k.program, k.class_number, k.asks, k.length, k.port};
}

int Find(void* maps, const weft_rule_key* key, __u64 arguments, weft_process_answer* out) {
  auto* all = static_cast<Maps*>(maps);
  ++all->lookups;
  auto found = all->rules.find(KeyOf(*key));
  if (found == all->rules.end()) return 0;
  weft_choose(&found->second, arguments, out);
  return 1;
}

// The plain reference: the longest entry that covers the port, of the class, else of everybody; in
// it the first choice whose arguments are there.
weft_process_answer Walk(const Maps& maps, const weft_watch& watch,
                         const weft_process_question& q) {
  const uint32_t wanted = q.asks == WEFT_ASKS_EXEC ? WEFT_WATCH_EXEC : WEFT_WATCH_CONNECT;
  if ((watch.flags & WEFT_WATCH_CLOSED) != 0 && q.asks != WEFT_ASKS_EXEC) {
    return {WEFT_PROCESS_DENY, watch.rule};
  }
  if ((watch.flags & wanted) == 0) return {};
  for (const uint32_t class_number : {q.class_number, uint32_t{WEFT_CLASS_ANY}}) {
    if (q.asks != WEFT_ASKS_CONNECT && class_number != q.class_number) continue;
    const weft_rules* best = nullptr;
    int longest = -1;
    for (const auto& [key, rules] : maps.rules) {
      const auto& [generation, subject, program, number, asks, length, port] = key;
      if (generation != q.generation || subject != q.subject || program != q.program ||
          number != class_number || asks != q.asks || length <= longest) {
        continue;
      }
      if (length > 0 && q.asks != WEFT_ASKS_CONNECT) continue;
      if (length > 0 && (q.port ^ port) >> (16 - length) != 0) continue;
      longest = length;
      best = &rules;
    }
    if (best == nullptr) continue;
    for (const weft_choice& choice : best->v) {
      if ((choice.arguments & ~q.arguments) == 0) return {choice.action, choice.rule};
    }
    return {};
  }
  return {};
}

class Cases {
 public:
  explicit Cases(uint32_t seed) : random_(seed) {}
  uint32_t Below(uint32_t end) {
    return std::uniform_int_distribution<uint32_t>(0, end - 1)(random_);
  }
  uint16_t Port() { return static_cast<uint16_t>(8000 + Below(40)); }
  uint32_t Class() { return Below(4) == 0 ? WEFT_CLASS_ANY : Below(3); }

  void Fill(Maps* maps, weft_watch* watch) {
    *watch = {.flags = Below(4), .lengths = 1, .rule = 5};
    if (Below(10) == 0) watch->flags |= WEFT_WATCH_CLOSED;
    for (uint32_t n = Below(30); n > 0; --n) {
      weft_rule_key key{.generation = 1 + Below(2), .subject = 1 + Below(2), .program = Below(3)};
      key.asks = static_cast<uint8_t>(1 + Below(3));
      key.class_number = key.asks == WEFT_ASKS_CONNECT ? Class() : Below(3);
      Put(maps, key);  // a class that has any has the shortest
      if (key.asks != WEFT_ASKS_CONNECT) continue;
      key.length = static_cast<uint8_t>(Below(17));
      if (key.length > 0) key.port = static_cast<uint16_t>(Port() & 0xffffu << (16 - key.length));
      watch->lengths |= 1u << key.length;
      Put(maps, key);
    }
  }

 private:
  void Put(Maps* maps, const weft_rule_key& key) {
    weft_rules rules{};
    const uint32_t count = Below(WEFT_CHOICES + 1);
    for (uint32_t i = 0; i < count; ++i) {
      rules.v[i] = {.arguments = uint64_t{Below(8)} << (Below(2) * 61),
                    .action = 1 + Below(3),
                    .rule = 10 + Below(50)};
    }
    maps->rules[KeyOf(key)] = rules;
  }
  std::mt19937 random_;
};

TEST(JudgeProcess, AnswersAsAWalkOverAllEntriesDoes) {
  int asked = 0, said = 0, most = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Cases cases(seed);
    Maps maps;
    weft_watch watch{};
    cases.Fill(&maps, &watch);
    for (int i = 0; i < 60; ++i) {
      weft_process_question q{.arguments = uint64_t{cases.Below(8)} << (cases.Below(2) * 61),
                              .generation = 1 + cases.Below(2),
                              .subject = 1 + cases.Below(2),
                              .program = cases.Below(3),
                              .class_number = cases.Below(3),
                              .port = cases.Port(),
                              .asks = static_cast<uint8_t>(1 + cases.Below(3))};
      weft_process_answer got{};
      maps.lookups = 0;
      weft_judge_process(&q, &watch, &maps, Find, &got);
      const weft_process_answer want = Walk(maps, watch, q);
      ASSERT_EQ(got.action, want.action) << "seed " << seed << " question " << i;
      ASSERT_EQ(got.rule, want.rule) << "seed " << seed << " question " << i;
      most = std::max(most, maps.lookups);
      said += got.action != WEFT_PROCESS_PASS;
      ++asked;
    }
  }
  printf("%d questions, %d with an answer, at most %d lookups\n", asked, said, most);
  EXPECT_GT(said, 2000);
  EXPECT_LE(most, 34);
}

TEST(Bucket, LetsABurstThroughAndThenTheRate) {
  constexpr uint64_t kInterval = 10, kBurst = 100;
  uint64_t due = 0, now = 1000;
  int passed = 0;
  const auto take = [&] {
    const uint64_t next = weft_bucket_take(due, now, kInterval, kBurst);
    if (next == 0) return false;
    due = next;
    return true;
  };
  while (take()) ++passed;
  EXPECT_EQ(passed, 11);  // the burst, and the one that is due
  now += 9;
  EXPECT_FALSE(take());
  now += 1;
  EXPECT_TRUE(take());
  EXPECT_FALSE(take());
  passed = 0;
  for (int i = 0; i < 1000; ++i) {  // ten a tick asked for over 1000 ticks
    now += 1;
    for (int j = 0; j < 10; ++j) passed += take();
  }
  EXPECT_EQ(passed, 100);
  now += 1'000'000;
  EXPECT_TRUE(take());
  EXPECT_EQ(due, now + kInterval);  // what was not used is not saved up
}

}  // namespace
}  // namespace weft
