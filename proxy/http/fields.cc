// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/fields.h"

namespace weft::http {

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const char x = a[i] >= 'A' && a[i] <= 'Z' ? static_cast<char>(a[i] | 0x20) : a[i];
    const char y = b[i] >= 'A' && b[i] <= 'Z' ? static_cast<char>(b[i] | 0x20) : b[i];
    if (x != y) return false;
  }
  return true;
}

bool IsValidAuthority(std::string_view authority) {
  for (char c : authority) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7f) return false;
    switch (c) {
      case '/':
      case '\\':
      case '@':
      case '?':
      case '#':
      case '"':
      case '<':
      case '>':
      case '`':
      case '^':
      case '{':
      case '}':
      case '|':
      case ',':
        return false;
      default:
        break;
    }
  }
  return true;
}

bool IsValidTarget(std::string_view target) {
  for (char c : target) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '#') return false;
  }
  return true;
}

}  // namespace weft::http
