// SPDX-License-Identifier: Apache-2.0
// Two sessions wired to each other in memory, and a transcript of what one session says,
// independent of how its input was cut.
#pragma once
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "proxy/http/session.h"

namespace weft::http {

inline std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view Text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string Show(const HeaderList& headers) {
  std::string out;
  for (HeaderList::Field field : headers) {
    out += " " + std::string(field.name) + "=" + std::string(field.value);
  }
  return out;
}

inline std::string Show(const Event& event) {
  const std::string id = std::to_string(event.stream);
  const std::string end = event.end_stream ? " END" : "";
  switch (event.kind) {
    case Event::Kind::kRequest: {
      const RequestHead& r = *event.request;
      std::string out =
          "request " + id + " " + r.method + " " + r.scheme + " " + r.authority + " " + r.path;
      if (!r.protocol.empty()) out += " protocol=" + r.protocol;
      return out + Show(r.headers) + end;
    }
    case Event::Kind::kResponse:
    case Event::Kind::kInformational:
      return (event.kind == Event::Kind::kResponse ? "response " : "informational ") + id + " " +
             std::to_string(event.response->status) + Show(event.response->headers) + end;
    case Event::Kind::kData:
      return "data " + id + " " + std::string(Text(event.data));
    case Event::Kind::kTrailers:
      return "trailers " + id + Show(*event.trailers);
    case Event::Kind::kEnd:
      return "end " + id;
    case Event::Kind::kReset:
      return "reset " + id + " " + std::string(ReasonName(event.reason)) + " " +
             std::to_string(static_cast<uint32_t>(event.reset_code));
    case Event::Kind::kWritable:
      return "writable " + id;
    case Event::Kind::kGoAway:
      return "goaway " + std::to_string(event.last_stream) + " " +
             std::to_string(static_cast<uint32_t>(event.reset_code));
    case Event::Kind::kUpgraded:
      return "upgraded " + id;
  }
  return "?";
}

// One line an event; data of a stream in one line as long as nothing else happened in between.
class Transcript final {
 public:
  void Add(const Event& event) {
    if (event.kind == Event::Kind::kData && last_data_ == event.stream) {
      lines_.back() += Text(event.data);
      return;
    }
    last_data_ = event.kind == Event::Kind::kData ? event.stream : 0;
    lines_.push_back(Show(event));
  }
  void Add(std::string line) {
    last_data_ = 0;
    lines_.push_back(std::move(line));
  }
  std::vector<std::string>& lines() { return lines_; }
  std::string Joined() const {
    std::string out;
    for (const std::string& line : lines_) out += line + "\n";
    return out;
  }
  void Clear() {
    lines_.clear();
    last_data_ = 0;
  }

 private:
  std::vector<std::string> lines_;
  StreamId last_data_ = 0;
};

// One end: a session, the bytes that wait for it, its transcript. `on_event` may act on the
// session.
struct End {
  std::unique_ptr<Session> session;
  std::string input;  // arrived, not taken yet
  Transcript transcript;
  Reason reason = WEFT_R_NONE;
  bool auto_consume = true;
  std::map<StreamId, std::string> bodies;

  void Look() {
    for (Event& event : session->events()) {
      transcript.Add(event);
      if (event.kind == Event::Kind::kData) {
        bodies[event.stream] += Text(event.data);
        if (auto_consume) session->Consume(event.stream, event.data.size());
      }
    }
    session->ClearEvents();
  }
  // Feeds up to `size` of the waiting bytes; false if nothing moved.
  bool Feed(size_t size) {
    size = std::min(size, input.size());
    if (size == 0 || reason != WEFT_R_NONE) return false;
    size_t consumed = 0;
    // A copy of its own size, so that a sanitizer sees reads past the end.
    const std::vector<uint8_t> chunk(input.begin(), input.begin() + static_cast<long>(size));
    reason = session->Feed(chunk, &consumed);
    Look();
    input.erase(0, consumed);
    return consumed > 0;
  }
};

class Pair final {
 public:
  Pair(std::unique_ptr<Session> client, std::unique_ptr<Session> server, unsigned seed = 0)
      : random_(seed), chunked_(seed != 0) {
    client_.session = std::move(client);
    server_.session = std::move(server);
  }
  End& client() { return client_; }
  End& server() { return server_; }

  // Moves bytes both ways until nothing moves.
  void Run() {
    bool moved = true;
    while (moved) {
      moved = Carry(client_, server_);
      moved = Carry(server_, client_) || moved;
    }
  }

 private:
  bool Carry(End& from, End& to) {
    bool moved = false;
    for (;;) {
      const std::span<const uint8_t> out = from.session->Output();
      if (out.empty()) break;
      const size_t n = Cut(out.size());
      to.input.append(Text(out.first(n)));
      from.session->OutputWritten(n);
      from.Look();
      moved = true;
    }
    from.Look();
    while (!to.input.empty() && to.Feed(Cut(to.input.size()))) moved = true;
    return moved;
  }
  size_t Cut(size_t size) {
    if (!chunked_) return size;
    const size_t most = random_() % 4 == 0 ? size : std::min<size_t>(size, 40);
    return 1 + random_() % most;
  }

  std::mt19937 random_;
  bool chunked_;
  End client_, server_;
};

}  // namespace weft::http
