// SPDX-License-Identifier: Apache-2.0
// gRPC framing: any cut gives the same messages; what was decoded encodes to the bytes it came
// from; memory stays bounded.
#include "proxy/http/grpc_frame.h"

#include <algorithm>
#include <vector>

#include "proxy/http/detect.h"
#include "tests/fuzz/fuzz.h"

namespace {

std::vector<std::string> Decode(std::span<const uint8_t> bytes, size_t cut, bool* failed) {
  weft::http::GrpcDecoder decoder(200);
  std::vector<std::string> messages;
  for (size_t at = 0; at < bytes.size() && !decoder.failed(); at += cut) {
    const auto piece = bytes.subspan(at, std::min(cut, bytes.size() - at));
    const std::vector<uint8_t> copy(piece.begin(), piece.end());
    (void)decoder.Feed(copy);
    while (auto message = decoder.Next()) messages.emplace_back(*message);
    FUZZ_CHECK(decoder.failed() || decoder.pending_bytes() <= 205);
  }
  *failed = decoder.failed();
  return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  weft::fuzz::Decisions decisions({data, size});
  const size_t cut = 1 + decisions.Byte() % 40;
  const auto wire = decisions.Rest();
  bool failed_pieces = false;
  const auto pieces = Decode(wire, cut, &failed_pieces);
  bool failed_bytes = false;
  const auto bytes = Decode(wire, 1, &failed_bytes);
  FUZZ_CHECK(failed_pieces == failed_bytes);
  FUZZ_CHECK(pieces.size() <= bytes.size());
  std::string again;
  for (const std::string& message : bytes) weft::http::EncodeGrpcMessage(message, &again);
  FUZZ_CHECK(weft::fuzz::Text(wire).starts_with(again));
  const auto said = weft::http::DetectProtocol(wire);
  if (wire.size() >= weft::http::kDetectMaxBytes) {
    FUZZ_CHECK(said != weft::http::Protocol::kNeedMore);
    FUZZ_CHECK(said == weft::http::DetectProtocol(wire.first(weft::http::kDetectMaxBytes)));
  }
  return 0;
}
