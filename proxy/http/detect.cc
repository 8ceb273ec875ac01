// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/detect.h"

#include <algorithm>
#include <string_view>

namespace weft::http {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static_assert(kPreface.size() == kDetectMaxBytes);

// What llhttp takes as methods of HTTP; anything else would be answered 400, and as TCP it still
// works.
constexpr std::string_view kMethods[] = {
    "GET",         "POST",       "PUT",      "HEAD",      "DELETE",   "OPTIONS",    "PATCH",
    "CONNECT",     "TRACE",      "PROPFIND", "PROPPATCH", "MKCOL",    "COPY",       "MOVE",
    "LOCK",        "UNLOCK",     "SEARCH",   "REPORT",    "PURGE",    "QUERY",      "LINK",
    "UNLINK",      "MKACTIVITY", "CHECKOUT", "MERGE",     "M-SEARCH", "NOTIFY",     "SUBSCRIBE",
    "UNSUBSCRIBE", "BIND",       "REBIND",   "UNBIND",    "ACL",      "MKCALENDAR", "SOURCE"};

bool IsAlphaNumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// The target must look like one: line protocols (redis, SMTP) also begin with a word and a space.
Protocol CheckTarget(std::string_view method, std::string_view target) {
  if (target.empty()) return Protocol::kNeedMore;
  if (target[0] == '/' || target[0] == '*') return Protocol::kHttp1;
  if (method == "CONNECT") {
    return IsAlphaNumeric(target[0]) || target[0] == '[' ? Protocol::kHttp1 : Protocol::kOther;
  }
  constexpr std::string_view kScheme = "http";
  const size_t shared = std::min(kScheme.size(), target.size());
  if (target.substr(0, shared) != kScheme.substr(0, shared)) return Protocol::kOther;
  return shared == kScheme.size() ? Protocol::kHttp1 : Protocol::kNeedMore;
}

Protocol CheckHttp1(std::string_view text) {
  bool may_become = false;
  for (std::string_view method : kMethods) {
    const size_t shared = std::min(method.size(), text.size());
    if (text.substr(0, shared) != method.substr(0, shared)) continue;
    if (text.size() <= method.size()) {
      may_become = true;
    } else if (text[method.size()] == ' ') {
      return CheckTarget(method, text.substr(method.size() + 1));
    }
  }
  return may_become ? Protocol::kNeedMore : Protocol::kOther;
}

Protocol CheckTls(std::span<const uint8_t> bytes) {
  // Handshake record, version 3.x; the length's sanity is the TLS library's business.
  if (bytes.size() < 3) {
    return bytes.size() == 2 && bytes[1] != 3 ? Protocol::kOther : Protocol::kNeedMore;
  }
  return bytes[1] == 3 && bytes[2] <= 4 ? Protocol::kTls : Protocol::kOther;
}

}  // namespace

Protocol DetectProtocol(std::span<const uint8_t> first_bytes) {
  if (first_bytes.empty()) return Protocol::kNeedMore;
  if (first_bytes[0] == 0x16) return CheckTls(first_bytes);
  const std::string_view text(reinterpret_cast<const char*>(first_bytes.data()),
                              std::min(first_bytes.size(), kDetectMaxBytes));
  const bool preface_so_far = kPreface.substr(0, text.size()) == text;
  if (preface_so_far && text.size() == kPreface.size()) return Protocol::kHttp2;
  const Protocol http1 = CheckHttp1(text);
  return preface_so_far && http1 == Protocol::kOther ? Protocol::kNeedMore : http1;
}

}  // namespace weft::http
