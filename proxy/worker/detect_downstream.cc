// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/detect_downstream.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <boost/asio/experimental/awaitable_operators.hpp>

#include "proxy/net/buffer_slab.h"
#include "proxy/net/deadline.h"
#include "proxy/net/io.h"

namespace weft::worker {
namespace {

bool IsHttp(http::Protocol protocol) {
  return protocol == http::Protocol::kHttp1 || protocol == http::Protocol::kHttp2;
}

// The two directions of a race, in RaceTcp's frame.
struct Race {
  explicit Race(const asio::any_io_executor& executor) : upstream_opened(executor) {}
  enum class State : uint8_t { kOpen, kTcp, kHttp } state = State::kOpen;
  FirstBytes first;
  TcpUpstream upstream;
  Signal upstream_opened;
  bool opened = false;
  net::PumpResult moved;
  std::chrono::milliseconds idle_timeout{0};  // 0: none
  std::chrono::steady_clock::time_point last_activity = std::chrono::steady_clock::now();
  std::unique_ptr<net::Deadline> idle;

  void Fail(net::Stream& downstream, Reason reason) {
    if (moved.reason == WEFT_R_CLOSED) moved.reason = reason;
    downstream.Close(reason);
    if (upstream.stream != nullptr) upstream.stream->Close(reason);
  }
  // Looks when the earliest expiry is due: an active connection costs one timer a timeout.
  void WatchIdle(const asio::any_io_executor& executor, net::Stream& downstream) {
    if (idle_timeout.count() <= 0) return;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(last_activity + idle_timeout -
                                                             std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      if (state != State::kHttp) Fail(downstream, WEFT_R_IDLE_TIMEOUT);
      return;
    }
    idle = std::make_unique<net::Deadline>(
        executor, left, [this, executor, &downstream] { WatchIdle(executor, downstream); });
  }
};

// One direction, until it ends. NONE: in order.
Task<Reason> CopyOneWay(Race& race, net::Stream& from, net::Stream& to, uint64_t& moved) {
  for (;;) {
    co_await from.Readable();  // before a buffer is taken: an idle direction holds none
    net::SlabBuffer buffer(1);
    net::IoResult in = from.TryRead(buffer.span());
    if (in.status == net::IoStatus::kWouldBlock) continue;
    if (in.status == net::IoStatus::kError) co_return in.reason;
    if (in.status == net::IoStatus::kEof) {
      to.ShutdownWrite();
      co_return WEFT_R_NONE;
    }
    net::IoResult out =
        co_await net::WriteAll(to, std::span<const uint8_t>(buffer.data(), in.bytes));
    if (out.status != net::IoStatus::kOk) co_return out.reason;
    moved += in.bytes;
    race.last_activity = std::chrono::steady_clock::now();
  }
}

Task<void> DownstreamHalf(Race& race, net::Stream& downstream) {
  while (race.first.protocol == http::Protocol::kNeedMore && race.state == Race::State::kOpen) {
    co_await downstream.Readable();
    if (race.state != Race::State::kOpen)
      break;  // the server spoke first: the bytes are just bytes now
    uint8_t chunk[http::kDetectMaxBytes];
    net::IoResult in = downstream.TryRead({chunk, http::kDetectMaxBytes - race.first.bytes.size()});
    if (in.status == net::IoStatus::kWouldBlock) continue;
    if (in.status == net::IoStatus::kError) {
      race.state = Race::State::kTcp;
      race.Fail(downstream, in.reason);
      race.upstream_opened.Notify();
      co_return;
    }
    if (in.status == net::IoStatus::kEof) break;  // it only listens, or said all it had
    race.last_activity = std::chrono::steady_clock::now();
    race.first.bytes.insert(race.first.bytes.end(), chunk, chunk + in.bytes);
    race.first.protocol = http::DetectProtocol(race.first.bytes);
  }
  if (race.state == Race::State::kOpen && IsHttp(race.first.protocol)) {
    race.state = Race::State::kHttp;
    if (race.upstream.stream != nullptr) race.upstream.stream->Close(WEFT_R_CLOSED);
    co_return;
  }
  race.state = Race::State::kTcp;
  while (!race.opened) co_await race.upstream_opened.Wait();
  if (race.upstream.stream == nullptr) co_return;
  net::IoResult out =
      co_await net::WriteAll(*race.upstream.stream, std::span<const uint8_t>(race.first.bytes));
  if (!race.first.bytes.empty() && out.status != net::IoStatus::kOk) {
    race.Fail(downstream, out.reason);
    co_return;
  }
  race.moved.to_upstream_bytes += race.first.bytes.size();
  Reason reason =
      co_await CopyOneWay(race, downstream, *race.upstream.stream, race.moved.to_upstream_bytes);
  if (reason != WEFT_R_NONE) race.Fail(downstream, reason);
}

Task<void> UpstreamHalf(Race& race, WorkerState& state, net::Stream& downstream,
                        TcpDownstreamArgs args) {
  race.upstream = co_await OpenTcpUpstream(state, std::move(args));
  race.opened = true;
  race.upstream_opened.Notify();
  if (race.state == Race::State::kHttp) {
    if (race.upstream.stream != nullptr) race.upstream.stream->Close(WEFT_R_CLOSED);
    co_return;
  }
  if (race.upstream.stream == nullptr) {
    // Not the end yet if the downstream may still turn out to speak HTTP, which has its own
    // upstreams.
    if (race.state == Race::State::kTcp) race.Fail(downstream, race.upstream.reason);
    co_return;
  }
  net::Stream& upstream = *race.upstream.stream;
  co_await upstream.Readable();
  if (race.state == Race::State::kHttp) co_return;
  race.state = Race::State::kTcp;
  Reason reason = co_await CopyOneWay(race, upstream, downstream, race.moved.to_downstream_bytes);
  if (reason != WEFT_R_NONE) race.Fail(downstream, reason);
}

}  // namespace

Task<FirstBytes> DetectDownstream(asio::any_io_executor executor, net::Stream& downstream,
                                  std::chrono::milliseconds limit) {
  FirstBytes first;
  auto give_up = [&downstream] { downstream.Close(WEFT_R_IDLE_TIMEOUT); };
  net::Deadline deadline(executor, limit, give_up);
  std::optional<net::Deadline> head;  // it has begun to say something
  while (first.protocol == http::Protocol::kNeedMore) {
    uint8_t chunk[http::kDetectMaxBytes];
    net::IoResult in =
        co_await net::ReadSome(downstream, {chunk, http::kDetectMaxBytes - first.bytes.size()});
    if (in.status != net::IoStatus::kOk) {
      first.reason = in.status == net::IoStatus::kEof ? WEFT_R_CLOSED : in.reason;
      co_return first;
    }
    first.bytes.insert(first.bytes.end(), chunk, chunk + in.bytes);
    first.protocol = http::DetectProtocol(first.bytes);
    if (!head) head.emplace(executor, std::min(limit, kRequestHeadLimit), give_up);
  }
  co_return first;
}

Task<RaceResult> RaceTcp(WorkerState& state, net::Stream& downstream, TcpDownstreamArgs args) {
  using namespace asio::experimental::awaitable_operators;  // NOLINT: the operator below
  Race race(state.executor);
  race.idle_timeout = TcpIdleTimeout(args);
  race.WatchIdle(state.executor, downstream);
  Task<void> both =
      DownstreamHalf(race, downstream) && UpstreamHalf(race, state, downstream, std::move(args));
  co_await std::move(both);
  race.idle.reset();
  RaceResult result{.http = race.state == Race::State::kHttp,
                    .first = std::move(race.first),
                    .moved = race.moved,
                    .upstream = std::move(race.upstream)};
  if (!result.http) {
    if (result.upstream.stream == nullptr) {
      downstream.Close(result.upstream.reason);
      result.moved.reason = result.upstream.reason;
    } else {
      downstream.Close(WEFT_R_CLOSED);
    }
  }
  co_return result;
}

}  // namespace weft::worker
