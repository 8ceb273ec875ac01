// SPDX-License-Identifier: Apache-2.0
// Which protocol a downstream speaks, from its first bytes. Pure; no thread.
#pragma once
#include <cstdint>
#include <span>

namespace weft::http {

enum class Protocol : uint8_t {
  kNeedMore,  // the bytes are a prefix of more than one; never with kDetectMaxBytes or more
  kHttp1,     // a known method, a space and the first byte of a request target
  kHttp2,     // the whole client preface
  kTls,       // a handshake record
  kOther,
};

// Enough for any answer.
inline constexpr size_t kDetectMaxBytes = 24;

Protocol DetectProtocol(std::span<const uint8_t> first_bytes);

}  // namespace weft::http
