// SPDX-License-Identifier: Apache-2.0
// --name value pairs, for the benchmark programs only.
#pragma once
#include <map>
#include <string>

#include "tests/bench/load/sockets.h"

namespace weft::bench {

class Arguments final {
 public:
  Arguments(int count, char** values) {
    for (int i = 1; i + 1 < count; i += 2) values_[values[i]] = values[i + 1];
  }
  std::string Text(const std::string& name, const std::string& otherwise) const {
    const auto found = values_.find("--" + name);
    return found == values_.end() ? otherwise : found->second;
  }
  double Number(const std::string& name, double otherwise) const {
    const auto found = values_.find("--" + name);
    return found == values_.end() ? otherwise : std::stod(found->second);
  }

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace weft::bench
