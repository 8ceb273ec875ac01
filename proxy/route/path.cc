// SPDX-License-Identifier: Apache-2.0
#include "proxy/route/path.h"

#include <string_view>

namespace weft::route {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

// Nearly every path: nothing to decode, convert, merge or remove.
bool IsNormal(const PathOptions& options, std::string_view path) {
  char before = 0;
  for (char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '%' || c == '\\' || c == '#') return false;
    if (before == '/' && (c == '.' || (c == '/' && options.merge_slashes))) return false;
    before = c;
  }
  return true;
}

// Decodes what must be decoded; false: refused.
bool Decode(const PathOptions& options, std::string_view path, std::string* out) {
  for (size_t i = 0; i < path.size(); ++i) {
    const char c = path[i];
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f || c == '#') return false;
    if (c != '%') {
      out->push_back(c == '\\' ? '/' : c);
      continue;
    }
    if (i + 2 >= path.size()) return false;
    const int high = HexDigit(path[i + 1]);
    const int low = HexDigit(path[i + 2]);
    if (high < 0 || low < 0) return false;
    const char decoded = static_cast<char>(high * 16 + low);
    if (decoded == 0) return false;
    if ((decoded == '/' || decoded == '\\') && options.reject_escaped_slashes) return false;
    if (IsUnreserved(decoded)) {
      out->push_back(decoded);
    } else {
      out->append(path.substr(i, 3));
    }
    i += 2;
  }
  return true;
}

// Segment by segment: "." vanishes, ".." takes the one before with it. False: a dot segment with a
// parameter.
bool RemoveDots(const PathOptions& options, std::string_view path, std::string* out) {
  size_t at = 0;  // at a '/'
  while (at < path.size()) {
    const size_t next = path.find('/', at + 1);
    const size_t end = next == std::string_view::npos ? path.size() : next;
    const std::string_view segment = path.substr(at + 1, end - at - 1);
    const bool last = next == std::string_view::npos;
    at = end;
    if (segment.starts_with(".;") || segment.starts_with("..;")) return false;
    if (segment == ".") {
      if (last) out->push_back('/');
    } else if (segment == "..") {
      const size_t slash = out->rfind('/');
      out->resize(slash == std::string::npos ? 0 : slash);
      if (last) out->push_back('/');
    } else if (segment.empty() && !last && options.merge_slashes) {
      continue;
    } else {
      out->push_back('/');
      out->append(segment);
    }
  }
  if (out->empty()) out->push_back('/');
  return true;
}

}  // namespace

PathResult NormalizePath(const PathOptions& options, std::string* path) {
  if (*path == "*") return PathResult::kOk;
  const std::string_view whole = *path;
  if (whole.empty() || whole[0] != '/') return PathResult::kRejected;
  const size_t query_at = whole.find('?');
  const std::string_view bare = whole.substr(0, query_at);
  if (IsNormal(options, bare)) return PathResult::kOk;
  std::string decoded, result;
  if (!Decode(options, bare, &decoded)) return PathResult::kRejected;
  if (!RemoveDots(options, decoded, &result)) return PathResult::kRejected;
  if (query_at != std::string_view::npos) result += whole.substr(query_at);
  *path = std::move(result);
  return PathResult::kOk;
}

}  // namespace weft::route
