// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/buffer_slab.h"

#include <vector>

namespace weft::net {
namespace {

// What a thread keeps for its next bursts; enough for 16 large transfers at once.
constexpr size_t kKeepBytes = 4 << 20;

struct FreeLists {
  std::vector<uint8_t*> list[kBufferSizes];
  size_t kept_bytes = 0;
  bool alive = true;

  ~FreeLists() {
    alive = false;
    for (auto& buffers : list) {
      for (uint8_t* buffer : buffers) ::operator delete(buffer);
      buffers.clear();
    }
  }
};

FreeLists& Lists() {
  static thread_local FreeLists lists;
  return lists;
}

}  // namespace

SlabBuffer::SlabBuffer(int size_class) : size_class_(size_class) {
  FreeLists& lists = Lists();
  auto& free = lists.list[size_class];
  if (free.empty()) {
    data_ = static_cast<uint8_t*>(::operator new(kBufferBytes[size_class]));
    return;
  }
  data_ = free.back();
  free.pop_back();
  lists.kept_bytes -= kBufferBytes[size_class];
}

void SlabBuffer::Release() {
  if (data_ == nullptr) return;
  FreeLists& lists = Lists();
  if (lists.alive && lists.kept_bytes + kBufferBytes[size_class_] <= kKeepBytes) {
    lists.list[size_class_].push_back(data_);
    lists.kept_bytes += kBufferBytes[size_class_];
  } else {
    ::operator delete(data_);
  }
  data_ = nullptr;
}

}  // namespace weft::net
