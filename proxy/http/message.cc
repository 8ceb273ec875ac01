// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/message.h"

#include <cstring>

namespace weft::http {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

}  // namespace

// Written so that `name` and `value` may point into this list: when the text must move, the old one
// lives until the copy is done.
void HeaderList::Add(std::string_view name, std::string_view value) {
  const size_t needed = text_.size() + name.size() + value.size();
  std::string old;
  if (needed > text_.capacity()) {
    std::string grown;
    grown.reserve(needed < 256 ? 512 : needed * 2);
    grown = text_;
    old.swap(text_);
    text_.swap(grown);
  }
  const auto begin = static_cast<uint32_t>(text_.size());
  text_.append(name);
  for (size_t i = begin; i < text_.size(); ++i) text_[i] = Lower(text_[i]);
  const auto value_begin = static_cast<uint32_t>(text_.size());
  text_.append(value);
  spans_.push_back({begin, static_cast<uint32_t>(name.size()), value_begin,
                    static_cast<uint32_t>(value.size())});
  bytes_ += name.size() + value.size();
}

bool HeaderList::NameIs(const Span& span, std::string_view name) const {
  if (span.name_size != name.size()) return false;
  const char* mine = text_.data() + span.name_begin;
  if (memcmp(mine, name.data(), name.size()) == 0) return true;
  for (size_t i = 0; i < name.size(); ++i) {
    if (mine[i] != Lower(name[i])) return false;
  }
  return true;
}

void HeaderList::Set(std::string_view name, std::string_view value) {
  const std::string own_name(name), own_value(value);
  size_t kept = 0;
  bool placed = false;
  for (size_t i = 0; i < spans_.size(); ++i) {
    Span span = spans_[i];
    if (NameIs(span, own_name)) {
      bytes_ -= span.name_size + span.value_size;
      if (placed) continue;
      placed = true;
      span.value_begin = static_cast<uint32_t>(text_.size());
      span.value_size = static_cast<uint32_t>(own_value.size());
      text_.append(own_value);
      bytes_ += span.name_size + span.value_size;
    }
    spans_[kept++] = span;
  }
  spans_.resize(kept);
  if (!placed) Add(own_name, own_value);
}

void HeaderList::Remove(std::string_view name) {
  size_t kept = 0;
  for (size_t i = 0; i < spans_.size(); ++i) {
    if (NameIs(spans_[i], name)) {
      bytes_ -= spans_[i].name_size + spans_[i].value_size;
      continue;
    }
    spans_[kept++] = spans_[i];
  }
  spans_.resize(kept);
}

void HeaderList::Clear() {
  text_.clear();
  spans_.clear();
  bytes_ = 0;
}

std::optional<std::string_view> HeaderList::Get(std::string_view name) const {
  for (const Span& span : spans_) {
    if (NameIs(span, name))
      return std::string_view(text_).substr(span.value_begin, span.value_size);
  }
  return std::nullopt;
}

size_t HeaderList::Count(std::string_view name) const {
  size_t count = 0;
  for (const Span& span : spans_) count += NameIs(span, name) ? 1 : 0;
  return count;
}

HeaderList::Field HeaderList::operator[](size_t i) const {
  const Span& span = spans_[i];
  const std::string_view text(text_);
  return {text.substr(span.name_begin, span.name_size),
          text.substr(span.value_begin, span.value_size)};
}

void RequestHead::Clear() {
  method.clear();
  scheme.clear();
  authority.clear();
  path.clear();
  protocol.clear();
  headers.Clear();
}

void ResponseHead::Clear() {
  status = 0;
  headers.Clear();
}

}  // namespace weft::http
