// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/exchange.h"

#include <algorithm>

#include "proxy/worker/http_downstream_connection.h"
#include "proxy/worker/http_headers.h"
#include "proxy/worker/http_pool.h"

namespace weft::worker {

using upstream::Limit;

Exchange::Exchange(HttpServicesState& services)
    : services_(services),
      timer_([](void* self) { static_cast<Exchange*>(self)->OnTimer(); }, this) {}

const model::LocalWorkload* Exchange::source() const { return down_->args().source.get(); }

void Exchange::Start(DownstreamConnection& downstream, http::Event& event) {
  down_ = &downstream;
  down_stream_ = event.stream;
  std::swap(request_, *event.request);
  request_complete_ = event.end_stream;
  started_ = last_activity_ = services_.now;
  Count(services_.counters.requests);
  Count(services_.counters.requests_active);
  is_grpc_ = IsGrpc(request_.headers);
  if (const auto& listener = down_->args().listener; listener && listener->http) {
    idle_timeout_ = listener->http->stream_idle_timeout;
    const std::chrono::milliseconds limit = listener->http->request_timeout;
    if (!request_complete_ && limit.count() > 0) request_deadline_ = started_ + limit;
  }
  Route();
  if (state_ != State::kEnded) ArmTimer();
}

void Exchange::StartAttempt() {
  if (!host_) {
    const uint32_t tries =
        tried_.empty() ? 0 : std::max(forward_->retry->host_selection_attempts, 1u);
    host_ = cluster_->Pick(services_.random, tried_, tries, &down_->args().original_destination);
  }
  if (!host_) return Reply({.reason = WEFT_R_NO_HEALTHY_UPSTREAM, .body = "no healthy upstream"});
  ++attempts_;
  host_->Begin();
  host_begun_ = true;
  reported_ = false;
  upstream_address_ = host_->address();
  HttpPoolKey key{.cluster = cluster_.get(), .host = host_.get()};
  if (const model::LocalWorkload* workload = source(); workload != nullptr) {
    key.workload = workload->id;
    key.generation = workload->generation;
    key.client = down_->args().client.ip;
  }
  const model::HttpVersion version = cluster_->config().http;
  key.http2 = version == model::HttpVersion::kHttp2 ||
              (version == model::HttpVersion::kSameAsDownstream && down_->args().http2);
  if (forward_->retry && forward_->retry->per_try_timeout.count() > 0) {
    try_deadline_ = services_.now + forward_->retry->per_try_timeout;
  }
  state_ = State::kPending;
  pool_ = &services_.PoolFor(key, *this);
  if (pool_->Acquire(*this, fresh_only_) == HttpPool::Acquired::kOverflow) {
    pool_ = nullptr;
    ReplyOverflow(WEFT_R_OVERFLOW_PENDING);
  }
}

void Exchange::OnConnection(UpstreamConnection& connection) {
  pool_ = nullptr;
  state_ = State::kIdle;
  if (!cluster_->TryAdmit(Limit::kRequests)) {
    connection.MarkDirty();  // it is free again
    return ReplyOverflow(WEFT_R_OVERFLOW_REQUESTS);
  }
  request_admitted_ = true;
  const bool end = request_complete_ && body_.empty() && !has_request_trailers_;
  const http::StreamId id = connection.Attach(*this, request_, end);
  if (id == 0) {
    connection.MarkDirty();
    return OnFailure(Failure::kRefused, WEFT_R_UPSTREAM_RESET);
  }
  up_ = &connection;
  up_stream_ = id;
  up_reused_ = connection.reused();
  upstream_identity_ = connection.peer_identity();
  state_ = State::kAttached;
  body_sent_ = 0;
  upstream_request_ended_ = end;
  if (!end) SendBody();
}

void Exchange::SendBody() {
  http::Session& session = up_->session();
  const bool ends_with_data = request_complete_ && !has_request_trailers_;
  if (body_sent_ < body_.size()) {
    session.SubmitData(up_stream_, std::span<const uint8_t>(body_).subspan(body_sent_),
                       ends_with_data);
    body_sent_ = body_.size();
    upstream_request_ended_ = ends_with_data;
  }
  if (request_complete_ && !upstream_request_ended_) {
    if (has_request_trailers_) {
      session.SubmitTrailers(up_stream_, request_trailers_);
    } else {
      session.SubmitData(up_stream_, {}, true);
    }
    upstream_request_ended_ = true;
  }
  if (!may_replay_) {
    body_.clear();
    body_sent_ = 0;
  }
  up_->MarkDirty();
}

void Exchange::KeepBody(std::span<const uint8_t> data) {
  body_.insert(body_.end(), data.begin(), data.end());
  if (!may_replay_) return;
  replay_counted_ += data.size();
  services_.replay_bytes += data.size();
  if (body_.size() > forward_->retry_buffer_bytes ||
      services_.replay_bytes > HttpServicesState::kMaxReplayBytes) {
    outgrew_replay_ = true;
    DropReplay();
  }
}

void Exchange::DropReplay() {
  may_replay_ = false;
  services_.replay_bytes -= replay_counted_;
  replay_counted_ = 0;
  if (body_sent_ == body_.size()) {
    body_.clear();
    body_sent_ = 0;
  }
}

void Exchange::OnRequestData(std::span<const uint8_t> data, bool end) {
  last_activity_ = services_.now;
  request_bytes_ += data.size();
  request_held_ += data.size();
  down_->Hold(data.size());
  if (upgraded_) {
    up_->session().SubmitData(up_stream_, data, end);
    return up_->MarkDirty();
  }
  if (end) OnRequestComplete();
  if (HasUpstream() && !may_replay_ && body_.empty() && !data.empty()) {
    upstream_request_ended_ = end;
    up_->session().SubmitData(up_stream_, data, end);
    return up_->MarkDirty();
  }
  KeepBody(data);
  if (HasUpstream()) SendBody();
}

void Exchange::OnRequestTrailers(http::HeaderList& trailers) {
  std::swap(request_trailers_, trailers);
  has_request_trailers_ = true;
  OnRequestEnd();
}

void Exchange::OnRequestEnd() {
  last_activity_ = services_.now;
  if (upgraded_) {
    up_->session().SubmitData(up_stream_, {}, true);
    return up_->MarkDirty();
  }
  OnRequestComplete();
  if (HasUpstream()) SendBody();
}

// Envoy's route timeout runs from here: a slow upload is bounded by the idle timeout.
void Exchange::OnRequestComplete() {
  request_complete_ = true;
  request_deadline_ = TimePoint::max();
  if (forward_ != nullptr && forward_->timeout.count() > 0) {
    route_deadline_ = services_.now + forward_->timeout;
    ArmTimer();
  }
}

void Exchange::OnUpstreamEvent(http::Event& event) {
  using Kind = http::Event::Kind;
  last_activity_ = services_.now;
  switch (event.kind) {
    case Kind::kInformational:
      if (response_started_) return;
      down_->session().SubmitResponse(down_stream_, *event.response, false);
      return down_->MarkDirty();
    case Kind::kResponse:
      return OnResponseHead(event);
    case Kind::kData:
      return OnResponseData(event.data, event.end_stream);
    case Kind::kTrailers:
      down_->session().SubmitTrailers(down_stream_, *event.trailers);
      return EndResponse();
    case Kind::kEnd:
      down_->session().SubmitData(down_stream_, {}, true);
      return EndResponse();
    case Kind::kReset:
      up_->Forget(up_stream_);
      return OnUpstreamGone(event.reason, event.reset_code);
    case Kind::kRequest:
    case Kind::kWritable:  // OnUpstreamProgress() follows
    case Kind::kGoAway:
    case Kind::kUpgraded:
      return;
  }
}

void Exchange::OnResponseHead(http::Event& event) {
  const int status = event.response->status;
  ReportOutcome(status >= 500 ? upstream::Outcome::kServerError : upstream::Outcome::kSuccess);
  if (TryRetry(Failure::kStatus, status, event.end_stream)) return;
  reason_ = retry_refused_;
  if (retries_ > 0 && status < 500) Count(services_.counters.retries_succeeded);
  first_byte_ = services_.now;
  status_ = status;
  response_started_ = true;
  DropReplay();
  try_deadline_ = TimePoint::max();
  if (status == 101) {
    upgraded_ = true;
    route_deadline_ = TimePoint::max();
  }
  ApplyResponseChanges(event.response->headers);
  const bool end = event.end_stream && !upgraded_;
  down_->session().SubmitResponse(down_stream_, *event.response, end);
  if (end) return EndResponse();
  down_->MarkDirty();
}

void Exchange::OnResponseData(std::span<const uint8_t> data, bool end) {
  response_bytes_ += data.size();
  response_held_ += data.size();
  up_->Hold(data.size());
  down_->session().SubmitData(down_stream_, data, end);
  if (end) return EndResponse();
  down_->MarkDirty();
}

// The last byte of the response is in the downstream's session.
void Exchange::EndResponse() {
  EndAttempt(true);
  Finish();
}

void Exchange::OnUpstreamProgress() {
  if (!HasUpstream() || request_held_ == 0) return;
  const size_t left = up_->Unwritten(up_stream_);
  if (left >= request_held_) return;
  const size_t gone = request_held_ - left;
  request_held_ = left;
  down_->GiveBack(down_stream_, gone);
}

void Exchange::OnDownstreamProgress() {
  if (!HasUpstream() || response_held_ == 0) return;
  const size_t left = down_->Unwritten(down_stream_);
  if (left >= response_held_) return;
  const size_t gone = response_held_ - left;
  response_held_ = left;
  up_->GiveBack(up_stream_, gone);
}

void Exchange::OnDownstreamGone(Reason reason) {
  reason_ = reason;
  down_gone_ = true;
  EndAttempt(false);
  Finish();
}

void Exchange::ReportOutcome(upstream::Outcome outcome) {
  if (reported_ || !host_) return;
  reported_ = true;
  cluster_->Report(*host_, outcome, services_.now, services_.random);
}

// Leaves the upstream, with everything admitted for the attempt. `complete`: the response has ended
// in order.
void Exchange::EndAttempt(bool complete) {
  if (pool_ != nullptr) pool_->Cancel(*this);
  pool_ = nullptr;
  if (up_ != nullptr) {
    UpstreamConnection& connection = *up_;
    up_ = nullptr;
    connection.Unhold(response_held_);
    connection.Detach(up_stream_, complete && upstream_request_ended_);
  }
  response_held_ = 0;
  if (request_admitted_) cluster_->Release(Limit::kRequests);
  if (retry_admitted_) cluster_->Release(Limit::kRetries);
  request_admitted_ = retry_admitted_ = false;
  if (host_begun_) host_->End();
  host_begun_ = false;
  try_deadline_ = backoff_until_ = TimePoint::max();
  if (state_ != State::kEnded) state_ = State::kIdle;
}

void Exchange::Finish() {
  if (state_ == State::kEnded) return;
  EndAttempt(false);
  state_ = State::kEnded;
  timer_.Clear();
  DropReplay();
  if (down_gone_) {
    down_->Unhold(request_held_);
  } else if (request_held_ > 0) {
    down_->GiveBack(down_stream_, request_held_);
  }
  request_held_ = 0;
  Count(services_.counters.requests_active, -1);
  const int status_class = status_ / 100;
  Count(services_.counters.responses[status_class >= 1 && status_class <= 5 ? status_class : 0]);
  if (services_.options.on_request) Record();
  if (!down_gone_) down_->Ended(down_stream_);
  services_.Recycle(this);
}

void Exchange::Record() {
  RequestRecord record;
  record.method = request_.method;
  record.path = request_.path;
  record.authority = request_.authority;
  record.request_id = request_.headers.Get("x-request-id").value_or("");
  record.status = status_;
  record.reason = reason_;
  record.policy = policy_;
  if (route_ != nullptr) record.route = route_->name;
  if (cluster_) record.cluster = cluster_->name();
  record.client = down_->args().client;
  record.upstream = upstream_address_;
  record.client_identity =
      source() != nullptr ? std::string_view(source()->identity) : down_->args().client_identity;
  record.upstream_identity = upstream_identity_;
  record.attempts = attempts_;
  record.duration = services_.now - started_;
  if (first_byte_ != TimePoint{}) record.to_first_byte = first_byte_ - started_;
  record.request_bytes = request_bytes_;
  record.response_bytes = response_bytes_;
  record.http2 = down_->args().http2;
  services_.options.on_request(record);
}

// Ready for the next request; buffers keep their memory, unless it became large.
void Exchange::Reset() {
  state_ = State::kIdle;
  down_ = nullptr;
  request_.Clear();
  request_trailers_.Clear();
  local_.Clear();
  if (body_.capacity() > kHighMarkBytes) body_ = {};
  body_.clear();
  config_.reset();
  router_.reset();
  virtual_host_ = nullptr;
  route_ = nullptr;
  forward_ = nullptr;
  weighted_ = nullptr;
  cluster_ = {};
  host_ = {};
  tried_.clear();
  policy_.clear();
  upstream_identity_.clear();
  upstream_address_ = {};
  body_sent_ = replay_counted_ = request_held_ = response_held_ = 0;
  attempts_ = retries_ = transparent_retries_ = 0;
  request_complete_ = has_request_trailers_ = may_replay_ = false;
  outgrew_replay_ = false;
  retry_refused_ = WEFT_R_NONE;
  fresh_only_ = reported_ = upstream_request_ended_ = up_reused_ = false;
  response_started_ = upgraded_ = is_grpc_ = down_gone_ = false;
  status_ = 0;
  reason_ = WEFT_R_NONE;
  first_byte_ = {};
  request_deadline_ = TimePoint::max();
  route_deadline_ = try_deadline_ = backoff_until_ = TimePoint::max();
  idle_timeout_ = {};
  request_bytes_ = response_bytes_ = 0;
}

}  // namespace weft::worker
