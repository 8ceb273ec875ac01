// SPDX-License-Identifier: Apache-2.0
// One spelling for a request's path before anybody matches, authorizes or forwards it. Pure; no
// thread.
#pragma once
#include <string>

namespace weft::route {

struct PathOptions {
  bool merge_slashes = false;          // "//" counts as "/"
  bool reject_escaped_slashes = true;  // %2F and %5C: upstreams disagree on what they mean
};

enum class PathResult : uint8_t {
  kOk,        // `path` may have changed
  kRejected,  // answer 400; `path` is unchanged
};

// Dot segments are removed (RFC 3986 5.2.4, %2E is a dot), unreserved characters are decoded, '\'
// becomes '/'; the query stays as it is. Rejected: what is no absolute path (but "*"), %00 and
// other malformed escapes, control characters, '#', dot segments with a parameter ("/..;/"). The
// result is what is to be matched and forwarded, byte for byte. Idempotent.
PathResult NormalizePath(const PathOptions& options, std::string* path);

}  // namespace weft::route
