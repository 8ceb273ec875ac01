// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/http1_write.h"

#include <charconv>
#include <cstdint>
#include <cstring>

#include "proxy/http/fields.h"

namespace weft::http {
namespace {

std::string_view Phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 103:
      return "Early Hints";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 426:
      return "Upgrade Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

// CR, LF, NUL and their kin, but not the tab. Both parsers refuse them; a value from elsewhere
// shall not end a line either. Eight bytes at a time.
bool HasControl(std::string_view text) {
  constexpr uint64_t kOnes = 0x0101010101010101ull;
  constexpr uint64_t kHigh = kOnes * 0x80;
  const char* at = text.data();
  size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    // A byte below 0x20 borrows into its high bit; those that had it are none. Borrows from a
    // neighbour may only report too much, and then every byte is looked at.
    if (((word - kOnes * 0x20) & ~word & kHigh) != 0) break;
  }
  bool found = false;
  for (; left > 0; ++at, --left) {
    found |= (static_cast<unsigned char>(*at) < 0x20) & (*at != '\t');
  }
  return found;
}

void WriteCookies(const HeaderList& headers, SendBuffer* out) {
  out->Append("cookie: ");
  bool first = true;
  for (HeaderList::Field field : headers) {
    if (field.name != "cookie" || HasControl(field.value)) continue;
    if (!first) out->Append("; ");
    first = false;
    out->Append(field.value);
  }
  out->Append("\r\n");
}

}  // namespace

void WriteStatusLine(int status, SendBuffer* out) {
  if (status == 200) return out->Append("HTTP/1.1 200 OK\r\n");
  char digits[12];
  const char* end = std::to_chars(digits, digits + sizeof digits, status).ptr;
  out->Append("HTTP/1.1 ");
  out->Append(std::string_view(digits, static_cast<size_t>(end - digits)));
  out->Append(" ");
  out->Append(Phrase(status));
  out->Append("\r\n");
}

void WriteField(std::string_view name, std::string_view value, SendBuffer* out) {
  char* at = out->Extend(name.size() + value.size() + 4);
  memcpy(at, name.data(), name.size());
  at += name.size();
  memcpy(at, ": ", 2);
  at += 2;
  if (!value.empty()) memcpy(at, value.data(), value.size());
  memcpy(at + value.size(), "\r\n", 2);
}

void WriteFields(const HeaderList& headers, WriteFieldsOptions options, SendBuffer* out) {
  bool cookies_written = false;
  for (HeaderList::Field field : headers) {
    if (IsConnectionField(field.name) || field.name == "te" || field.name.empty()) continue;
    if (field.name[0] == ':' || HasControl(field.value) || HasControl(field.name)) continue;
    if (!options.upgrade && field.name == "upgrade") continue;
    if (!options.content_length && field.name == "content-length") continue;
    if (field.name == "cookie") {
      if (!cookies_written) WriteCookies(headers, out);
      cookies_written = true;
      continue;
    }
    WriteField(field.name, field.value, out);
  }
}

void WriteChunk(std::string_view data, SendBuffer* out) {
  char digits[20];
  const char* end = std::to_chars(digits, digits + sizeof digits, data.size(), 16).ptr;
  out->Append(std::string_view(digits, static_cast<size_t>(end - digits)));
  out->Append("\r\n");
  out->Append(data);
  out->Append("\r\n");
}

}  // namespace weft::http
