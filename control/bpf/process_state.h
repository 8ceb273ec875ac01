// SPDX-License-Identifier: Apache-2.0
// What processes may do, compiled: the values that control/policy makes and control/bpf writes, and
// what the kernel knows of processes. Plain data.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bpf/abi.h"

namespace weft::bpf {

struct ProcessRuleKey {
  uint32_t subject = 0;
  uint32_t program = 0;       // class; WEFT_PROGRAM_*
  uint32_t class_number = 0;  // of the destination, or a service's id
  uint16_t port = 0;
  uint8_t length = 0;
  uint8_t asks = 0;  // weft_asks
  auto operator<=>(const ProcessRuleKey&) const = default;
};
struct ProcessChoice {
  uint64_t arguments = 0;  // bits of ProcessState::arguments
  uint32_t action = 0;     // weft_process_action
  uint32_t rule = 0;
  bool operator==(const ProcessChoice&) const = default;
};
using ProcessChoices = std::vector<ProcessChoice>;  // strongest first, at most WEFT_CHOICES

struct ProcessWatch {
  uint32_t flags = 0;  // WEFT_WATCH_*
  uint32_t lengths = 0;
  bool operator==(const ProcessWatch&) const = default;
};

struct ProcessState {
  // First bytes of a path -> class of programs. An exact path ends with its zero.
  std::map<std::string, uint32_t> programs;
  std::map<uint32_t, ProcessWatch> watches;  // by workload id
  std::map<ProcessRuleKey, ProcessChoices> rules;
  std::vector<std::string> arguments;  // by bit; those of before stay where they are
  uint32_t full_rule = 0;              // number of the rule that denies where a map was full
  bool operator==(const ProcessState&) const = default;
};

// A program as events number it.
struct Binary {
  std::string path;
  uint64_t inode = 0;
  uint32_t device = 0;
};

// What a workload made of events since it was enrolled.
struct Activity {
  uint32_t workload = 0;
  uint64_t events = 0;
  uint64_t suppressed = 0;  // beyond its rate
  uint64_t lost = 0;        // a buffer was full
};

}  // namespace weft::bpf
