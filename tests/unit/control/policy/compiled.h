// SPDX-License-Identifier: Apache-2.0
// Compiled policy asked as the kernel asks it: bpf/policy.h over the maps of a PolicyState.
#pragma once
#include "bpf/policy.h"
#include "control/policy/classes.h"
#include "control/policy/compile.h"

namespace weft::rules {

inline int FindSaysIn(void* maps, const weft_policy_key* key, __u64 epoch, weft_says* out) {
  const auto& entries = static_cast<const bpf::PolicyState*>(maps)->entries;
  auto found = entries.find(
      {key->subject, key->class_number, key->port, key->length, key->protocol, key->layer});
  if (found == entries.end()) return weft_says_at(nullptr, epoch, out);
  weft_policy entry{};
  entry.from[1] = WEFT_NEVER;
  entry.v[0] = {found->second.says, found->second.rule, found->second.audit};
  return weft_says_at(&entry, epoch, out);
}

inline const weft_subject* FindSubjectIn(void* maps, __u32 id) {
  static thread_local weft_subject out;
  const auto& subjects = static_cast<const bpf::PolicyState*>(maps)->subjects;
  auto found = subjects.find(id);
  if (found == subjects.end()) return nullptr;
  out = {};
  out.from[1] = WEFT_NEVER;
  for (size_t i = 0; i < WEFT_LAYERS; ++i) {
    out.v[0][i] = {found->second[i].says, found->second[i].rule, found->second[i].lengths};
  }
  return &out;
}

// As the kernel's trie compares: 128 bits, whatever the family.
inline bool InTrie(const bpf::PolicyBlock& block, const IpAddress& ip) {
  for (uint32_t bit = 0; bit < block.length; ++bit) {
    const uint8_t mask = static_cast<uint8_t>(0x80u >> bit % 8);
    if (((ip.bytes[bit / 8] ^ block.address.bytes[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

inline uint32_t ClassIn(const bpf::PolicyState& state, const IpAddress& ip) {
  if (auto found = state.classes.find(ip); found != state.classes.end()) return found->second;
  uint32_t number = WEFT_CLASS_WORLD, longest = 0;
  for (const auto& [block, value] : state.blocks) {
    if (block.length < longest || !InTrie(block, ip)) continue;
    longest = block.length;
    number = value;
  }
  return number;
}

struct Ask {
  uint32_t source_subject = 0, destination_subject = 0;
  IpAddress source, destination;
  uint16_t port = 0;
  uint8_t protocol = WEFT_PROTOCOL_TCP;
  uint32_t layers = 7;
};

inline weft_answer AskCompiled(const bpf::PolicyState& state, const Ask& ask) {
  weft_question q{};
  q.source_subject = ask.source_subject;
  q.destination_subject = ask.destination_subject;
  q.source_class = ClassIn(state, ask.source);
  q.destination_class = ClassIn(state, ask.destination);
  q.layers = ask.layers;
  q.port = ask.port;
  q.protocol = ask.protocol;
  weft_answer answer{};
  weft_judge(&q, const_cast<bpf::PolicyState*>(&state), FindSaysIn, FindSubjectIn, &answer);
  return answer;
}

}  // namespace weft::rules
