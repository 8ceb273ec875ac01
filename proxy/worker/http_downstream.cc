// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/http_downstream.h"

#include <algorithm>

#include "proxy/worker/exchange.h"
#include "proxy/worker/http_downstream_connection.h"

namespace weft::worker {
namespace {

std::unique_ptr<http::Session> MakeSession(const HttpServicesState& services,
                                           const HttpDownstreamArgs& args) {
  http::Limits limits = services.options.limits;
  if (args.listener && args.listener->http) {
    limits.max_header_list_bytes = args.listener->http->max_request_headers_kb * 1024;
  }
  return args.http2 ? http::MakeHttp2Session(http::Role::kServer, limits)
                    : http::MakeHttp1Session(http::Role::kServer, limits);
}

}  // namespace

DownstreamConnection::DownstreamConnection(HttpServicesState& services, HttpDownstreamArgs args)
    : HttpConnection(services, std::move(args.stream), MakeSession(services, args)),
      args_(std::move(args)),
      idle_timer_(
          [](void* self) {
            // In order: what the peer sends meanwhile is refused by the drained session.
            auto& connection = *static_cast<DownstreamConnection*>(self);
            connection.StartDrain();
          },
          this),
      head_timer_(
          [](void* self) {
            auto& connection = *static_cast<DownstreamConnection*>(self);
            Count(connection.services_.counters.timeouts);
            connection.Close(WEFT_R_IDLE_TIMEOUT);
          },
          this) {
  Prepend(std::move(args_.first_bytes));
  services_.downstreams.push_back(this);
  Count(services_.counters.downstream_connections);
  Count(services_.counters.downstream_active);
}

DownstreamConnection::~DownstreamConnection() {
  std::erase(services_.downstreams, this);
  Count(services_.counters.downstream_active, -1);
}

Task<void> DownstreamConnection::Serve() {
  services_.UpdateNow();
  if (services_.draining) StartDrain();
  services_.SetTimer(idle_timer_, services_.now + services_.options.downstream_idle_timeout);
  co_await Run();
  head_timer_.Clear();
  idle_timer_.Clear();
  services_.UpdateNow();
  while (!exchanges_.empty()) {
    Exchange* exchange = exchanges_.back().exchange;
    exchanges_.pop_back();
    exchange->OnDownstreamGone(close_reason());
  }
  services_.FlushDirty();
}

void DownstreamConnection::StartDrain() {
  session_->StartDrain();
  MarkDirty();
}

void DownstreamConnection::Ended(http::StreamId stream) {
  std::erase_if(exchanges_, [stream](const Entry& e) { return e.id == stream; });
  if (exchanges_.empty()) {
    services_.SetTimer(idle_timer_, services_.now + services_.options.downstream_idle_timeout);
  }
  MarkDirty();
}

Exchange* DownstreamConnection::Find(http::StreamId id) {
  auto it = std::lower_bound(exchanges_.begin(), exchanges_.end(), id,
                             [](const Entry& e, http::StreamId wanted) { return e.id < wanted; });
  return it != exchanges_.end() && it->id == id ? it->exchange : nullptr;
}

void DownstreamConnection::OnRequest(http::Event& event) {
  idle_timer_.Clear();
  head_timer_.Clear();  // if another one has begun already, AfterBatch() gives it its own time
  Exchange* exchange = services_.NewExchange();
  exchanges_.push_back({event.stream, exchange});
  exchange->Start(*this, event);
}

void DownstreamConnection::OnEvent(http::Event& event) {
  using Kind = http::Event::Kind;
  if (event.kind == Kind::kRequest) return OnRequest(event);
  Exchange* exchange = Find(event.stream);
  if (exchange == nullptr) {  // answered before its body was complete: the rest is read and dropped
    if (event.kind == Kind::kData) session_->Consume(event.stream, event.data.size());
    return;
  }
  switch (event.kind) {
    case Kind::kData:
      return exchange->OnRequestData(event.data, event.end_stream);
    case Kind::kTrailers:
      return exchange->OnRequestTrailers(*event.trailers);
    case Kind::kEnd:
      return exchange->OnRequestEnd();
    case Kind::kReset:
      Count(services_.counters.downstream_resets);
      Ended(event.stream);
      return exchange->OnDownstreamGone(event.reason);
    case Kind::kRequest:
    case Kind::kResponse:
    case Kind::kInformational:
    case Kind::kWritable:  // AfterBatch() looks
    case Kind::kGoAway:
    case Kind::kUpgraded:
      return;
  }
}

void DownstreamConnection::AfterBatch() {
  if (!session_->receiving_head()) {
    head_timer_.Clear();
  } else if (!head_timer_.is_set()) {
    services_.SetTimer(head_timer_, services_.now + kRequestHeadLimit);
  }
  for (size_t i = exchanges_.size(); i-- > 0;) {
    if (i < exchanges_.size()) exchanges_[i].exchange->OnDownstreamProgress();
  }
}

// Whoever pipelines requests without reading the answers gets no more of them. HTTP/2 is bounded by
// its streams.
bool DownstreamConnection::HoldsInput() {
  return exchanges_.empty() && !session_->is_http2() && session_->Output().size() > kHighMarkBytes;
}

// As Envoy does: a downstream that ends its side before it has its answers does not want them. In
// raw mode (after 101) the session's kEnd has been passed on, and the other direction may go on.
void DownstreamConnection::OnEof() {
  if (exchanges_.size() == 1 && exchanges_[0].exchange->upgraded()) return;
  if (exchanges_.empty() && !session_->Output().empty())
    return;  // the last answer is still leaving
  Close(WEFT_R_CLOSED);
}

Task<void> ServeHttp(HttpServices& services, HttpDownstreamArgs args) {
  HttpServicesState::Alive alive(services.state());
  DownstreamConnection connection(services.state(), std::move(args));
  co_await connection.Serve();
}

}  // namespace weft::worker
