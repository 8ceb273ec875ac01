// SPDX-License-Identifier: Apache-2.0
// How often somebody may ask: a bucket of tokens that fills at a steady rate. The caller brings the
// time, on any clock that does not go back. Thread: one.
#pragma once
#include <algorithm>
#include <cstdint>

namespace weft::ipc {

class TokenBucket final {
 public:
  // Full at first.
  TokenBucket(int64_t per_second, int64_t burst)
      : ns_per_token_(1'000'000'000 / per_second), full_ns_(burst * ns_per_token_) {}

  // False: too often; nothing is taken.
  bool Take(int64_t now_ns) {
    // The state is the moment at which the bucket was, or would have been, empty.
    empty_at_ns_ = started_ ? std::max(empty_at_ns_, now_ns - full_ns_) : now_ns - full_ns_;
    started_ = true;
    if (now_ns - empty_at_ns_ < ns_per_token_) return false;
    empty_at_ns_ += ns_per_token_;
    return true;
  }

 private:
  int64_t ns_per_token_, full_ns_;
  int64_t empty_at_ns_ = 0;
  bool started_ = false;
};

}  // namespace weft::ipc
