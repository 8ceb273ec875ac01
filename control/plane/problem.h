// SPDX-License-Identifier: Apache-2.0
// Where something stands in a manifest, and what is wrong with it. Plain values.
#pragma once
#include <string>
#include <vector>

namespace weft::plane {

struct Origin {
  std::string file;  // as given to the parser: a path, or a name relative to the manifests' folder
  int line = 0;      // from 1; 0: the whole file
  int column = 0;    // from 1

  // "file:line", or "file" where no line is known.
  std::string ToString() const;
};

struct Problem {
  Origin at;
  std::string text;
  std::string object;  // "Kind namespace/name" where that much could be read

  // "file:line: text".
  std::string ToString() const;
};
using Problems = std::vector<Problem>;

}  // namespace weft::plane
