// SPDX-License-Identifier: Apache-2.0
// Bytes that wait to leave: appended at the end, taken from the front, in one contiguous block that
// is reused. Internal to proxy/http; no thread.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace weft::http {

class SendBuffer final {
 public:
  size_t size() const { return text_.size() - begin_; }
  bool empty() const { return size() == 0; }
  const char* data() const { return text_.data() + begin_; }
  std::span<const uint8_t> bytes() const {
    return {reinterpret_cast<const uint8_t*>(data()), size()};
  }

  void Append(std::string_view bytes) {
    Compact();
    text_.append(bytes);
  }
  void Append(const uint8_t* bytes, size_t size) {
    Append(std::string_view(reinterpret_cast<const char*>(bytes), size));
  }
  void Append(char c) { text_.push_back(c); }
  // Makes room for `size` more bytes, which the caller writes at once.
  char* Extend(size_t size) {
    Compact();
    const size_t at = text_.size();
    if (text_.capacity() - at < size) text_.reserve(2 * (at + size));
    text_.resize(at + size);
    return text_.data() + at;
  }
  void RemovePrefix(size_t size) {
    begin_ += size;
    if (begin_ == text_.size()) Clear();
  }
  void Clear() {
    text_.clear();
    begin_ = 0;
  }
  // Returns memory above `keep_bytes` if nothing is held.
  void Shrink(size_t keep_bytes) {
    if (empty() && text_.capacity() > keep_bytes) std::string().swap(text_);
  }

 private:
  // Moves only when as much has left as is held, so a byte moves once on average.
  void Compact() {
    if (begin_ >= 4096 && begin_ >= size()) {
      text_.erase(0, begin_);
      begin_ = 0;
    }
  }

  std::string text_;
  size_t begin_ = 0;
};

}  // namespace weft::http
