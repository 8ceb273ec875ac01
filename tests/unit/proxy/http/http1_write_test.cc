// SPDX-License-Identifier: Apache-2.0
// Heads as bytes: nothing in a field may end its line, wherever in the value it is.
#include "proxy/http/http1_write.h"

#include <gtest/gtest.h>

#include <string>

namespace weft::http {
namespace {

std::string Written(std::string_view name, std::string_view value) {
  HeaderList headers;
  headers.Add(name, value);
  SendBuffer out;
  WriteFields(headers, {}, &out);
  return std::string(out.data(), out.size());
}

TEST(WriteFields, LeavesOutValuesWithControlCharactersAtAnyPlace) {
  for (size_t size = 1; size <= 24; ++size) {
    for (size_t at = 0; at < size; ++at) {
      for (int c = 0; c < 256; ++c) {
        std::string value(size, 'v');
        value[at] = static_cast<char>(c);
        const bool refused = c < 0x20 && c != '\t';
        const std::string expected = refused ? "" : "x-a: " + value + "\r\n";
        ASSERT_EQ(Written("x-a", value), expected)
            << "size " << size << " at " << at << " is " << c;
      }
    }
  }
}

TEST(WriteFields, TabsAndBytesAboveAsciiMayBeNeighboursOfAnything) {
  EXPECT_EQ(Written("x-a", "\t \t \x80\xff\t    "), "x-a: \t \t \x80\xff\t    \r\n");
  EXPECT_EQ(Written("x-a", ""), "x-a: \r\n");
  EXPECT_EQ(Written("x\r\n-a", "v"), "");
}

TEST(SendBuffer, ExtendKeepsWhatIsThere) {
  SendBuffer buffer;
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    const std::string piece(static_cast<size_t>(i % 37), static_cast<char>('a' + i % 26));
    std::copy(piece.begin(), piece.end(), buffer.Extend(piece.size()));
    expected += piece;
    const size_t taken = static_cast<size_t>(i % 29);
    if (buffer.size() >= taken) {
      buffer.RemovePrefix(taken);
      expected.erase(0, taken);
    }
    ASSERT_EQ(std::string_view(buffer.data(), buffer.size()), expected);
  }
}

}  // namespace
}  // namespace weft::http
