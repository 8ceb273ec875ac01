// SPDX-License-Identifier: Apache-2.0
// Dense numbers for names: the kernel knows identities, services, policies and classes by them. No
// thread of its own.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace weft::rules {

// Never 0, never reused while the agent lives.
class Numbers final {
 public:
  uint32_t Of(std::string_view name) {
    auto [entry, added] =
        numbers_.try_emplace(std::string(name), static_cast<uint32_t>(names_.size() + 1));
    if (added) names_.emplace_back(name);
    return entry->second;
  }
  // Empty for a number that was never given.
  std::string_view NameOf(uint32_t number) const {
    return number == 0 || number > names_.size() ? std::string_view() : names_[number - 1];
  }
  uint32_t size() const { return static_cast<uint32_t>(names_.size()); }

 private:
  std::unordered_map<std::string, uint32_t> numbers_;
  std::vector<std::string> names_;
};

}  // namespace weft::rules
