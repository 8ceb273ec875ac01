// SPDX-License-Identifier: Apache-2.0
// Byte buffers of three sizes from a free list of the calling thread, so that a connection holds
// one only while it has bytes. Thread: take and give back on the same thread. A list keeps at most
// kKeepBytes; the rest goes back to the allocator.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace weft::net {

// Room for 1, 4 and 16 full TLS records with their overhead.
inline constexpr size_t kBufferBytes[3] = {17 * 1024, 66 * 1024, 264 * 1024};
inline constexpr int kBufferSizes = 3;

class SlabBuffer final {
 public:
  SlabBuffer() = default;
  explicit SlabBuffer(int size_class);  // 0..2
  SlabBuffer(SlabBuffer&& other) noexcept { swap(other); }
  SlabBuffer& operator=(SlabBuffer&& other) noexcept {
    SlabBuffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~SlabBuffer() { Release(); }

  explicit operator bool() const { return data_ != nullptr; }
  uint8_t* data() const { return data_; }
  size_t size() const { return data_ ? kBufferBytes[size_class_] : 0; }
  int size_class() const { return size_class_; }
  std::span<uint8_t> span() const { return {data_, size()}; }
  void Release();

 private:
  void swap(SlabBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_class_, other.size_class_);
  }
  uint8_t* data_ = nullptr;
  int size_class_ = 0;
};

}  // namespace weft::net
