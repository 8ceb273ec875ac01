// SPDX-License-Identifier: Apache-2.0
// HTTP messages independent of the version: head fields and a header list. Pure values; no thread.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::http {

// An ordered list of header fields in one growing buffer: no allocation per field, and none at all
// once the buffer has grown and the list is reused by Clear(). Names are stored in lower case (RFC
// 9113 8.2); lookups ignore case. Views are valid until the next non-const call.
class HeaderList final {
 public:
  struct Field {
    std::string_view name;
    std::string_view value;
  };

  void Add(std::string_view name, std::string_view value);
  // Replaces all fields of that name by one.
  void Set(std::string_view name, std::string_view value);
  void Remove(std::string_view name);
  void Clear();

  // The first field of that name.
  std::optional<std::string_view> Get(std::string_view name) const;
  size_t Count(std::string_view name) const;
  size_t size() const { return spans_.size(); }
  bool empty() const { return spans_.empty(); }
  Field operator[](size_t i) const;
  // Names and values without overhead, in bytes.
  size_t bytes() const { return bytes_; }

  auto begin() const { return Iterator{this, 0}; }
  auto end() const { return Iterator{this, spans_.size()}; }

 private:
  struct Span {
    uint32_t name_begin, name_size, value_begin, value_size;
  };
  struct Iterator {
    const HeaderList* list;
    size_t i;
    Field operator*() const { return (*list)[i]; }
    Iterator& operator++() {
      ++i;
      return *this;
    }
    bool operator==(const Iterator&) const = default;
  };
  bool NameIs(const Span& span, std::string_view name) const;

  std::string text_;  // removed and replaced fields stay in it until Clear()
  std::vector<Span> spans_;
  size_t bytes_ = 0;
};

struct RequestHead {
  std::string method;
  std::string scheme;     // "http" or "https"
  std::string authority;  // Host of HTTP/1, :authority of HTTP/2
  std::string path;       // with the query; empty for CONNECT
  std::string protocol;   // :protocol of an extended CONNECT (RFC 8441); empty otherwise
  HeaderList headers;     // without Host, Connection and the other hop-by-hop fields

  void Clear();
};

struct ResponseHead {
  int status = 0;
  HeaderList headers;  // without Connection and the other hop-by-hop fields

  void Clear();
};

}  // namespace weft::http
