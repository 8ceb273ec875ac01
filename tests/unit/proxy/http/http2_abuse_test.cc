// SPDX-License-Identifier: Apache-2.0
// What hostile peers do to an HTTP/2 session (facts/security.md A2 to A12): the connection ends
// with a reason, memory is bounded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "proxy/http/session.h"
#include "session_pair.h"

namespace weft::http {
namespace {

using ::testing::IsEmpty;

const std::string kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum Type : uint8_t {
  kData,
  kHeaders,
  kPriority,
  kRst,
  kSettings,
  kPush,
  kPing,
  kGoAway,
  kWindow,
  kContinuation
};
constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

std::string Frame(Type type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string out;
  const auto put = [&](uint32_t value, int bytes) {
    while (bytes-- > 0) out.push_back(static_cast<char>(value >> (8 * bytes)));
  };
  put(static_cast<uint32_t>(payload.size()), 3);
  put(type, 1);
  put(flags, 1);
  put(stream, 4);
  return out + std::string(payload);
}

std::string Word(uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
  return out;
}

// HPACK without dynamic table and Huffman; short strings only (< 127 bytes), longer ones by the
// two-byte form.
std::string Literal(std::string_view name, std::string_view value) {
  const auto text = [](std::string_view s) {
    std::string out;
    if (s.size() < 127) {
      out.push_back(static_cast<char>(s.size()));
    } else {
      out.push_back(0x7f);
      size_t rest = s.size() - 127;
      for (; rest >= 128; rest >>= 7) out.push_back(static_cast<char>(rest % 128 + 128));
      out.push_back(static_cast<char>(rest));
    }
    return out + std::string(s);
  };
  return std::string(1, '\0') + text(name) + text(value);
}

const std::string kGet = Literal(":method", "GET") + Literal(":scheme", "http") +
                         Literal(":path", "/") + Literal(":authority", "h");

std::string Start() { return kPreface + Frame(kSettings, 0, 0, ""); }

struct Attack {
  End end;
  explicit Attack(Role role = Role::kServer, Limits limits = {}) {
    end.session = MakeHttp2Session(role, limits);
    if (role == Role::kServer) Send(Start());
  }
  // `reads`: the peer reads what we write.
  Reason Send(std::string_view bytes, bool reads = true) {
    end.input += bytes;
    while (end.Feed(16384)) {
      if (reads) Drain();
    }
    return end.reason;
  }
  std::string Drain() {
    std::string all;
    for (;;) {
      const auto out = end.session->Output();
      if (out.empty()) return all;
      all += Text(out);
      end.session->OutputWritten(out.size());
    }
  }
  // The error code of the GOAWAY at the end of what is written; -1: none.
  int GoAwayCode() {
    const std::string all = Drain();
    int code = -1;
    for (size_t at = 0; at + 9 <= all.size();) {
      const auto byte = [&](size_t i) { return static_cast<uint8_t>(all[at + i]); };
      const size_t size = byte(0) * 65536u + byte(1) * 256u + byte(2);
      if (byte(3) == kGoAway) code = byte(9 + 7);
      at += 9 + size;
    }
    return code;
  }
};

TEST(Http2Abuse, BadPreface) {
  for (const std::string_view bytes :
       {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"}) {
    End end;
    end.session = MakeHttp2Session(Role::kServer, {});
    end.input = bytes;
    end.Feed(bytes.size());
    EXPECT_EQ(end.reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
    EXPECT_TRUE(end.session->finished());
  }
}

TEST(Http2Abuse, FramesThatBreakTheConnection) {
  const std::pair<const char*, std::string> cases[] = {
      {"data on stream 0", Frame(kData, 0, 0, "x")},
      {"data on idle stream", Frame(kData, 0, 1, "x")},
      {"oversize frame", Frame(kData, 0, 1, std::string(16385, 'x'))},
      {"settings size", Frame(kSettings, 0, 0, "x")},
      {"settings on stream", Frame(kSettings, 0, 1, "")},
      {"settings window", Frame(kSettings, 0, 0, std::string("\0\4\xff\xff\xff\xff", 6))},
      {"ping size", Frame(kPing, 0, 0, "x")},
      {"window overflow", Frame(kWindow, 0, 0, Word(0x7fffffff))},
      {"window zero", Frame(kWindow, 0, 0, Word(0))},
      {"rst idle", Frame(kRst, 0, 1, Word(8))},
      {"even stream", Frame(kHeaders, kEndStream | kEndHeaders, 2, kGet)},
      {"continuation alone", Frame(kContinuation, kEndHeaders, 1, kGet)},
      {"headers interrupted", Frame(kHeaders, 0, 1, kGet) + Frame(kPing, 0, 0, "12345678")},
      {"bad hpack", Frame(kHeaders, kEndHeaders, 1, "\xff\xff\xff\xff\xff")},
      {"push from client", Frame(kPush, kEndHeaders, 1, Word(2))},
      {"padding", Frame(kData, 8, 1, "\x05")},
  };
  for (const auto& [name, bytes] : cases) {
    Attack attack;
    EXPECT_EQ(attack.Send(bytes), WEFT_R_DOWNSTREAM_PROTOCOL_ERROR) << name;
    EXPECT_TRUE(attack.end.session->finished()) << name;
    EXPECT_THAT(attack.end.transcript.lines(), IsEmpty()) << name;
  }
}

TEST(Http2Abuse, HeadsThatAreRefused) {
  const std::string base =
      Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "/");
  const std::pair<const char*, std::string> cases[] = {
      {"no method", Literal(":scheme", "http") + Literal(":path", "/")},
      {"no path", Literal(":method", "GET") + Literal(":scheme", "http")},
      {"empty path", Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "")},
      {"no slash", Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "a") +
                       Literal(":authority", "h")},
      {"path with space",
       Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "/a b")},
      {"path with crlf",
       Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "/a\r\nx: y")},
      {"path with fragment",
       Literal(":method", "GET") + Literal(":scheme", "http") + Literal(":path", "/a#b")},
      {"method with space",
       Literal(":method", "GET /x") + Literal(":scheme", "http") + Literal(":path", "/")},
      {"authority with user", base + Literal(":authority", "u@h")},
      {"authority with path", base + Literal(":authority", "h/x")},
      {"host differs", base + Literal(":authority", "h") + Literal("host", "other")},
      {"upper case", base + Literal("Abc", "x")},
      {"lf in value", base + Literal("a", "x\ny: z")},
      {"nul in value", base + Literal("a", std::string_view("x\0y", 3))},
      {"colon in name", base + Literal("a:b", "x")},
      {"connection", base + Literal("connection", "close")},
      {"transfer-encoding", base + Literal("transfer-encoding", "chunked")},
      {"te", base + Literal("te", "gzip")},
      {"pseudo late", Literal(":method", "GET") + Literal("a", "b") + Literal(":scheme", "http") +
                          Literal(":path", "/")},
      {"pseudo twice", base + Literal(":path", "/b")},
      {"pseudo unknown", base + Literal(":x", "y")},
      {"status in request", base + Literal(":status", "200")},
      {"connect with path",
       Literal(":method", "CONNECT") + Literal(":authority", "h") + Literal(":path", "/")},
      {"connect alone", Literal(":method", "CONNECT")},
      {"protocol not enabled", Literal(":method", "CONNECT") + Literal(":protocol", "websocket") +
                                   Literal(":scheme", "http") + Literal(":path", "/") +
                                   Literal(":authority", "h")},
      {"length mismatch", base + Literal("content-length", "5")},
      {"length twice", base + Literal("content-length", "0") + Literal("content-length", "0")},
  };
  // nghttp2 ends the connection for a malformed message, as Envoy does by default; what only we
  // refuse costs the stream.
  const std::set<std::string_view> ours = {"host differs"};
  for (const auto& [name, block] : cases) {
    Attack attack;
    const Reason reason = attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 1, block));
    EXPECT_THAT(attack.end.transcript.lines(), IsEmpty()) << name;
    EXPECT_EQ(attack.end.session->open_streams(), 0u) << name;
    EXPECT_EQ(reason, ours.contains(name) ? WEFT_R_NONE : WEFT_R_DOWNSTREAM_PROTOCOL_ERROR) << name;
    if (reason != WEFT_R_NONE) continue;
    attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 3, kGet));
    EXPECT_EQ(attack.end.transcript.lines().size(), 1u) << name;
  }
}

TEST(Http2Abuse, BodyAgainstContentLengthAndTrailersWithoutEnd) {
  const std::string post = Literal(":method", "POST") + Literal(":scheme", "http") +
                           Literal(":path", "/") + Literal(":authority", "h") +
                           Literal("content-length", "3");
  for (const std::string& rest :
       {Frame(kData, kEndStream, 1, "toolong"), Frame(kData, kEndStream, 1, "x"),
        Frame(kHeaders, kEndHeaders, 1, Literal("t", "v"))}) {
    Attack attack;
    attack.Send(Frame(kHeaders, kEndHeaders, 1, post) + rest);
    ASSERT_FALSE(attack.end.transcript.lines().empty());
    EXPECT_EQ(attack.end.transcript.lines().back(), "reset 1 downstream_protocol_error 1");
    EXPECT_EQ(attack.end.session->open_streams(), 0u);
  }
}

TEST(Http2Abuse, RapidReset) {
  Attack attack;
  size_t started = 0;
  Reason reason = WEFT_R_NONE;
  for (uint32_t i = 0; i < 100'000 && reason == WEFT_R_NONE; ++i) {
    reason = attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 2 * i + 1, kGet) +
                         Frame(kRst, 0, 2 * i + 1, Word(8)));
    started = i;
  }
  EXPECT_EQ(reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
  EXPECT_LE(started, 1100u);
  EXPECT_EQ(attack.end.session->open_streams(), 0u);
}

TEST(Http2Abuse, RapidResetWhileDraining) {
  Attack attack;
  attack.end.session->StartDrain();
  Reason reason = WEFT_R_NONE;
  uint32_t i = 0;
  for (; i < 100'000 && reason == WEFT_R_NONE; ++i) {
    reason = attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 2 * i + 1, kGet) +
                         Frame(kRst, 0, 2 * i + 1, Word(8)));
  }
  EXPECT_EQ(reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
  EXPECT_LE(i, 1100u);
}

// The peer makes us reset: requests that are malformed, over and over (CVE-2025-8671).
TEST(Http2Abuse, MadeYouReset) {
  const std::string bad_host = kGet + Literal("host", "other");
  const std::string bad_name = kGet + Literal("X", "y");
  for (const std::string& block : {bad_host, bad_name}) {
    Attack attack;
    Reason reason = WEFT_R_NONE;
    uint32_t i = 0;
    for (; i < 100'000 && reason == WEFT_R_NONE; ++i) {
      reason = attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 2 * i + 1, block));
    }
    EXPECT_EQ(reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
    EXPECT_LE(i, 2100u);
  }
  // On streams that the caller knows: a window increment of 0.
  Attack attack;
  Reason reason = WEFT_R_NONE;
  uint32_t i = 0;
  for (; i < 100'000 && reason == WEFT_R_NONE; ++i) {
    reason = attack.Send(Frame(kHeaders, kEndHeaders, 2 * i + 1, kGet) +
                         Frame(kWindow, 0, 2 * i + 1, Word(0)));
  }
  EXPECT_EQ(reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
  EXPECT_LE(i, 2100u);
}

TEST(Http2Abuse, ContinuationFlood) {
  Attack attack;
  attack.Send(Frame(kHeaders, 0, 1, kGet));
  int frames = 0;
  while (frames < 1000 && attack.end.reason == WEFT_R_NONE) {
    attack.Send(Frame(kContinuation, 0, 1, Literal("a", "b")));
    ++frames;
  }
  EXPECT_LE(frames, 10);
  EXPECT_EQ(attack.end.reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR);
}

// One large field in the dynamic table, then referred to by one byte again and again.
TEST(Http2Abuse, HeaderBomb) {
  Attack attack;
  std::string stored = Literal("x", std::string(3900, 'v'));
  stored[0] = 0x40;  // with indexing
  EXPECT_EQ(attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 1, kGet + stored)), WEFT_R_NONE);
  EXPECT_EQ(attack.end.transcript.lines().size(), 1u);
  EXPECT_EQ(
      attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 3, kGet + std::string(15'000, '\xbe')),
                  false),
      WEFT_R_HEADERS_TOO_LARGE);
  EXPECT_EQ(attack.GoAwayCode(), 11);
  EXPECT_EQ(attack.end.transcript.lines().back(), "reset 1 headers_too_large 1")
      << "no bomb became a request";
}

// Just above the limit: a 431 each, but not for ever.
TEST(Http2Abuse, OversizeAgainAndAgain) {
  Limits limits;
  limits.max_header_list_bytes = 1000;
  Attack attack(Role::kServer, limits);
  uint32_t sent = 0;
  for (; sent < 1000 && attack.end.reason == WEFT_R_NONE; ++sent) {
    attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 1 + 2 * sent,
                      kGet + Literal("x", std::string(1000, 'v'))));
  }
  EXPECT_LE(sent, 101u);
  EXPECT_THAT(attack.end.transcript.lines(), IsEmpty());
}

TEST(Http2Abuse, MoreStreamsThanAllowed) {
  Limits limits;
  limits.max_concurrent_streams = 10;
  Attack attack(Role::kServer, limits);
  attack.Send(Frame(kSettings, 1, 0, ""));
  uint32_t sent = 0;
  for (; sent < 100'000 && attack.end.reason == WEFT_R_NONE; ++sent) {
    attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 1 + 2 * sent, kGet));
    ASSERT_LE(attack.end.session->open_streams(), 10u);
  }
  EXPECT_LE(sent, 2000u);
}

TEST(Http2Abuse, ControlFloodsWithoutReading) {
  const std::pair<const char*, std::string> cases[] = {
      {"ping", Frame(kPing, 0, 0, "12345678")},
      {"settings", Frame(kSettings, 0, 0, std::string("\0\4\0\0\xff\xff", 6))},
      {"priority", Frame(kPriority, 0, 1, std::string(5, '\0'))},
      {"window", Frame(kWindow, 0, 0, Word(1))},
  };
  for (const auto& [name, frame] : cases) {
    Attack attack;
    int sent = 0;
    while (sent < 200'000 && attack.end.reason == WEFT_R_NONE) {
      attack.Send(frame, false);
      ++sent;
    }
    EXPECT_EQ(attack.end.reason, WEFT_R_DOWNSTREAM_PROTOCOL_ERROR) << name;
    EXPECT_LE(sent, 1100) << name;
    EXPECT_LE(attack.end.session->Output().size(), 16u * 1024) << name;
  }
}

TEST(Http2Abuse, EmptyDataFlood) {
  Attack attack;
  attack.Send(Frame(kHeaders, kEndHeaders, 1, kGet));
  int sent = 0;
  while (sent < 100'000 && attack.end.reason == WEFT_R_NONE) {
    attack.Send(Frame(kData, 0, 1, ""));
    ++sent;
  }
  EXPECT_LE(sent, 1100);
  EXPECT_EQ(attack.end.transcript.lines().back(), "reset 1 downstream_protocol_error 1");
}

TEST(Http2Abuse, PeerSendsBeyondItsWindows) {
  Limits limits;
  limits.stream_window_bytes = 65535;
  limits.connection_window_bytes = 65535;
  Attack attack(Role::kServer, limits);
  attack.end.auto_consume = false;
  attack.Send(Frame(kSettings, 1, 0, "") + Frame(kHeaders, kEndHeaders, 1, kGet));
  for (int i = 0; i < 10 && attack.end.reason == WEFT_R_NONE; ++i)
    attack.Send(Frame(kData, 0, 1, std::string(16384, 'x')));
  EXPECT_LE(attack.end.bodies[1].size(), 65535u);
  const bool stopped = attack.end.reason != WEFT_R_NONE || attack.end.session->open_streams() == 0;
  EXPECT_TRUE(stopped);
}

// A peer that opens streams and never grants a window: what we hold is what was submitted, the rest
// of the connection lives.
TEST(Http2Abuse, ZeroWindows) {
  Attack attack;
  attack.Send(Frame(kSettings, 0, 0, std::string("\0\4\0\0\0\0", 6)));
  Session& server = *attack.end.session;
  ResponseHead ok;
  ok.status = 200;
  for (uint32_t id = 1; id < 200; id += 2)
    attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, id, kGet));
  EXPECT_EQ(server.open_streams(), 100u);
  const std::string body(64 * 1024, 'x');
  for (StreamId id = 1; id < 200; id += 2) {
    server.SubmitResponse(id, ok, false);
    server.SubmitData(id, Bytes(body), true);
  }
  EXPECT_LE(attack.Drain().size(), 100u * 50);
  EXPECT_EQ(server.buffered_bytes(1), body.size());
  // One more is refused, not queued.
  attack.Send(Frame(kHeaders, kEndStream | kEndHeaders, 201, kGet));
  EXPECT_EQ(server.open_streams(), 100u);
  attack.Send(Frame(kWindow, 0, 1, Word(70'000)));
  EXPECT_EQ(server.buffered_bytes(1), 65536u - 65535u)
      << "the connection's window is the limit now";
}

TEST(Http2Abuse, HostileUpstream) {
  const std::string ok = Literal(":status", "200");
  const std::pair<const char*, std::string> cases[] = {
      {"unasked stream", Frame(kSettings, 0, 0, "") + Frame(kHeaders, kEndHeaders, 7, ok)},
      {"data before headers", Frame(kSettings, 0, 0, "") + Frame(kData, 0, 1, "x")},
      {"no status",
       Frame(kSettings, 0, 0, "") + Frame(kHeaders, kEndHeaders, 1, Literal("a", "b"))},
      {"status 101",
       Frame(kSettings, 0, 0, "") + Frame(kHeaders, kEndHeaders, 1, Literal(":status", "101"))},
      {"status text",
       Frame(kSettings, 0, 0, "") + Frame(kHeaders, kEndHeaders, 1, Literal(":status", "2x0"))},
      {"bad settings", "HTTP/1.1 400 Bad Request\r\n\r\n"},
  };
  for (const auto& [name, bytes] : cases) {
    Attack attack(Role::kClient);
    RequestHead head;
    head.method = "GET";
    head.scheme = "http";
    head.authority = "h";
    head.path = "/";
    attack.end.session->SubmitRequest(head, true);
    attack.Drain();
    attack.Send(bytes);
    ASSERT_EQ(attack.end.transcript.lines().size(), 1u) << name;
    EXPECT_THAT(attack.end.transcript.lines()[0],
                ::testing::StartsWith("reset 1 upstream_protocol_error"))
        << name;
    EXPECT_EQ(attack.end.session->open_streams(), 0u) << name;
  }
}

}  // namespace
}  // namespace weft::http
