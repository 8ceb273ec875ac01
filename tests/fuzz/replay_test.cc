// SPDX-License-Identifier: Apache-2.0
// Runs one fuzz target over its committed corpus (WEFT_CORPUS), so that what fuzzing found stays
// found.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

TEST(Corpus, Replays) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_CORPUS)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(in)),
                                  std::istreambuf_iterator<char>());
    SCOPED_TRACE(entry.path().filename());
    // Every prefix of short inputs too: they are the interesting states.
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    for (size_t size = bytes.size() > 300 ? bytes.size() : 0; size <= bytes.size(); ++size) {
      LLVMFuzzerTestOneInput(data, size);
    }
    ++files;
  }
  EXPECT_GT(files, 0u);
}
