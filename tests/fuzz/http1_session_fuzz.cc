// SPDX-License-Identifier: Apache-2.0
// An HTTP/1 session fed with anything: first byte the role, second how the input is cut, the rest
// the wire. Properties: any cut says the same; a request that was accepted, written again by our
// client side, is read as the same request and nothing else (no desynchronisation).
#include "proxy/http/session.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/proxy/http/session_pair.h"

namespace weft {
namespace {

using http::Event;

constexpr http::Limits kLimits{.max_header_list_bytes = 4000, .max_header_count = 20};

void CheckRoundTrip(const http::RequestHead& head, bool end_stream) {
  auto client = http::MakeHttp1Session(http::Role::kClient, {});
  if (client->SubmitRequest(head, end_stream) == 0) {
    FUZZ_CHECK(head.authority.empty() && head.method == "CONNECT");
    return;
  }
  auto server = http::MakeHttp1Session(http::Role::kServer, {});
  size_t consumed = 0;
  const std::vector<uint8_t> wire(client->Output().begin(), client->Output().end());
  FUZZ_CHECK(server->Feed(wire, &consumed) == WEFT_R_NONE);
  FUZZ_CHECK(consumed == wire.size());
  FUZZ_CHECK(!server->events().empty() && server->events()[0].kind == Event::Kind::kRequest);
  const http::RequestHead& again = *server->events()[0].request;
  FUZZ_CHECK(again.method == head.method && again.authority == head.authority &&
             again.path == head.path);
  if (head.headers.Count("cookie") > 1) return;  // become one
  http::HeaderList expected = head.headers;
  http::HeaderList got = again.headers;
  if (head.headers.Count("content-length") == 0) got.Remove("content-length");
  if (head.method == "CONNECT")
    expected.Remove("content-length"), expected.Remove("upgrade"), got.Remove("upgrade");
  FUZZ_CHECK(http::Show(expected) == http::Show(got));
}

std::string Run(http::Role role, uint8_t cut, std::span<const uint8_t> wire) {
  http::End end;
  end.session = http::MakeHttp1Session(role, kLimits);
  if (role == http::Role::kClient) {
    http::RequestHead head;
    head.method = wire.size() % 3 == 0 ? "GET" : wire.size() % 3 == 1 ? "HEAD" : "CONNECT";
    head.authority = "h";
    head.path = "/";
    if (wire.size() % 6 == 0) head.headers.Add("upgrade", "x");
    FUZZ_CHECK(end.session->SubmitRequest(head, head.method != "CONNECT") == 1);
  }
  end.input = fuzz::Text(wire);
  http::StreamId last = 0;
  for (;;) {
    const size_t size = cut == 0 ? end.input.size() : std::min<size_t>(cut, end.input.size());
    const size_t before = end.transcript.lines().size();
    const std::vector<uint8_t> chunk(end.input.begin(),
                                     end.input.begin() + static_cast<long>(size));
    if (chunk.empty()) break;
    size_t consumed = 0;
    end.reason = end.session->Feed(chunk, &consumed);
    FUZZ_CHECK(consumed <= chunk.size());
    http::StreamId complete = 0;
    for (const Event& event : end.session->events()) {
      FUZZ_CHECK(event.stream > 0 && event.stream % 2 == 1 && event.stream >= last);
      last = event.stream;
      if (event.kind == Event::Kind::kRequest) {
        CheckRoundTrip(*event.request, event.end_stream);
        if (event.end_stream || event.request->method == "CONNECT") complete = event.stream;
      }
      if (event.kind == Event::Kind::kEnd || event.kind == Event::Kind::kTrailers)
        complete = event.stream;
    }
    end.Look();
    if (complete != 0 && role == http::Role::kServer) {
      http::ResponseHead response;
      response.status = 200;
      end.session->SubmitResponse(complete, response, false);
      end.session->SubmitData(complete, {}, true);
    }
    FUZZ_CHECK(end.session->Output().size() < 1'000'000);
    end.session->OutputWritten(end.session->Output().size());
    end.input.erase(0, consumed);
    if (end.reason != WEFT_R_NONE || (consumed == 0 && end.transcript.lines().size() == before))
      break;
  }
  if (end.reason != WEFT_R_NONE) {
    end.transcript.Add(std::string(ReasonName(end.reason)));
    FUZZ_CHECK(end.session->finished() && end.session->open_streams() == 0);
  } else {
    end.session->FeedEof();
    end.Look();
  }
  return end.transcript.Joined();
}

}  // namespace
}  // namespace weft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  weft::fuzz::Decisions decisions({data, size});
  const auto role =
      decisions.Byte() % 2 == 0 ? weft::http::Role::kServer : weft::http::Role::kClient;
  const uint8_t cut = static_cast<uint8_t>(1 + decisions.Byte() % 50);
  const std::string whole = weft::Run(role, 0, decisions.Rest());
  FUZZ_CHECK(whole == weft::Run(role, cut, decisions.Rest()));
  return 0;
}
