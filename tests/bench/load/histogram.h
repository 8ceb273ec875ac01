// SPDX-License-Identifier: Apache-2.0
// A log-linear histogram of nanoseconds: 64 steps per power of two, so a quantile is right to 1.6
// %. Fixed size, no allocation after construction. One thread.
#pragma once
#include <bit>
#include <cstdint>
#include <vector>

namespace weft::bench {

class Histogram final {
 public:
  void Add(uint64_t nanoseconds) {
    ++counts_[Index(nanoseconds)];
    ++total_;
    sum_ += nanoseconds;
    if (nanoseconds > max_) max_ = nanoseconds;
  }
  uint64_t total() const { return total_; }
  uint64_t max() const { return max_; }
  double mean() const {
    return total_ ? static_cast<double>(sum_) / static_cast<double>(total_) : 0;
  }

  // The value below which the fraction `q` (0..1) of the samples lies, in nanoseconds; 0 without
  // samples.
  uint64_t Quantile(double q) const {
    const auto wanted = static_cast<uint64_t>(q * static_cast<double>(total_));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted) return Value(i);
    }
    return max_;
  }

 private:
  static constexpr unsigned kSteps = 64;  // per power of two
  static size_t Index(uint64_t v) {
    if (v < kSteps) return v;
    const unsigned shift = std::bit_width(v) - 7;  // v >> shift is in [64, 128)
    return static_cast<size_t>(shift) * kSteps + (v >> shift);
  }
  static uint64_t Value(size_t index) {
    if (index < 2 * kSteps) return index;
    const size_t shift = index / kSteps - 1;
    return (index - shift * kSteps) << shift;
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>(60 * kSteps);
  uint64_t total_ = 0, sum_ = 0, max_ = 0;
};

}  // namespace weft::bench
