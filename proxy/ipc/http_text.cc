// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/http_text.h"

#include <algorithm>
#include <charconv>

namespace weft::ipc {
namespace {

bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

bool IsPrintable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool EqualsIgnoringCase(std::string_view a, std::string_view lower) {
  return a.size() == lower.size() &&
         std::equal(a.begin(), a.end(), lower.begin(), [](char x, char y) {
           return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + 32) : x) == y;
         });
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Takes the text up to the next CRLF; false if there is none.
bool NextLine(std::string_view* rest, std::string_view* line) {
  const size_t end = rest->find("\r\n");
  if (end == std::string_view::npos) return false;
  *line = rest->substr(0, end);
  rest->remove_prefix(end + 2);
  return line->find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

std::optional<size_t> ParseSize(std::string_view text) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Fields {
  std::optional<size_t> content_length;
  bool transfer_encoding = false;
  bool expects_continue = false;
};

// The few header fields that matter here; false if the block is malformed.
bool ParseFields(std::string_view rest, Fields* out) {
  std::string_view line;
  while (NextLine(&rest, &line)) {
    if (line.empty()) return rest.empty();
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return false;
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = Trim(line.substr(colon + 1));
    if (EqualsIgnoringCase(name, "content-length")) {
      const auto length = ParseSize(value);
      if (!length || (out->content_length && *out->content_length != *length)) return false;
      out->content_length = length;
    } else if (EqualsIgnoringCase(name, "transfer-encoding")) {
      out->transfer_encoding = true;
    } else if (EqualsIgnoringCase(name, "expect")) {
      out->expects_continue = EqualsIgnoringCase(value, "100-continue");
    }
  }
  return false;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

}  // namespace

RequestHead ParseRequestHead(std::string_view head) {
  RequestHead out;
  out.error = 400;
  std::string_view line;
  if (!NextLine(&head, &line)) return out;
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return out;
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!IsToken(method) || !target.starts_with('/') || !IsPrintable(target)) return out;
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return out;
  Fields fields;
  if (!ParseFields(head, &fields)) return out;
  const size_t question = target.find('?');
  out.request.method = method;
  out.request.target = target;
  out.request.path = target.substr(0, question);
  if (question != std::string_view::npos) out.request.query = target.substr(question + 1);
  out.body_bytes = fields.content_length.value_or(0);
  out.expects_continue = fields.expects_continue;
  out.error = fields.transfer_encoding ? 411 : out.body_bytes > kMaxBodyBytes ? 413 : 0;
  return out;
}

std::optional<ResponseHead> ParseResponseHead(std::string_view head) {
  std::string_view line;
  if (!NextLine(&head, &line) || !line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ')
    return std::nullopt;
  const auto status = ParseSize(line.substr(9, 3));
  Fields fields;
  if (!status || *status < 100 || !ParseFields(head, &fields) || fields.transfer_encoding)
    return std::nullopt;
  return ResponseHead{.status = static_cast<int>(*status), .body_bytes = fields.content_length};
}

std::string FormatResponseHead(int status, std::string_view content_type,
                               std::optional<size_t> body_bytes) {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += ReasonPhrase(status);
  head += "\r\nContent-Type: ";
  head += content_type;
  head += "\r\nConnection: close\r\nCache-Control: no-store\r\n";
  if (body_bytes) head += "Content-Length: " + std::to_string(*body_bytes) + "\r\n";
  return head + "\r\n";
}

}  // namespace weft::ipc
