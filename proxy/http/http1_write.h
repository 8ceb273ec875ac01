// SPDX-License-Identifier: Apache-2.0
// Writes HTTP/1.1 heads. Internal to proxy/http; pure.
#pragma once
#include <string_view>

#include "proxy/http/message.h"
#include "proxy/http/send_buffer.h"

namespace weft::http {

// "HTTP/1.1 200 OK\r\n"
void WriteStatusLine(int status, SendBuffer* out);
void WriteField(std::string_view name, std::string_view value, SendBuffer* out);
// All but connection fields, and those that would forge a line; several Cookie fields become one
// (RFC 9113 8.2.3).
struct WriteFieldsOptions {
  bool upgrade = false;        // keep Upgrade
  bool content_length = true;  // keep Content-Length
};
void WriteFields(const HeaderList& headers, WriteFieldsOptions options, SendBuffer* out);
void WriteChunk(std::string_view data, SendBuffer* out);

}  // namespace weft::http
