// SPDX-License-Identifier: Apache-2.0
// Exchange, when things go wrong: failures, retries, timeouts.
#include <algorithm>

#include "proxy/worker/exchange.h"
#include "proxy/worker/http_downstream_connection.h"
#include "proxy/worker/http_headers.h"
#include "proxy/worker/http_pool.h"

namespace weft::worker {

using std::chrono::milliseconds;
using upstream::Limit;
using upstream::Outcome;

namespace {

// Fresh connections an exchange may try beyond its retry policy, for requests that were not
// processed or not even read.
constexpr uint32_t kMaxTransparentRetries = 2;

bool IsPolicyVerdict(Reason reason) {
  return reason == WEFT_R_POLICY_DENIED || reason == WEFT_R_POLICY_DEFAULT_DENIED;
}

}  // namespace

void Exchange::OnConnectFailed(Reason reason, const std::string& policy) {
  pool_ = nullptr;
  if (IsPolicyVerdict(reason)) {
    policy_ = policy;
    return Reply(
        {.status = 403, .reason = reason, .body = "RBAC: access denied", .policy = policy_});
  }
  OnFailure(reason == WEFT_R_CONNECT_TIMEOUT ? Failure::kConnectTimeout : Failure::kConnect,
            reason);
}

void Exchange::OnUpstreamGone(Reason reason, http::ResetCode code) {
  up_->Unhold(response_held_);
  response_held_ = 0;
  up_ = nullptr;
  Count(services_.counters.upstream_resets);
  if (response_started_) {
    // Too late for an answer: the downstream must see that the response is not whole.
    reason_ = WEFT_R_UPSTREAM_RESET;
    down_->session().Reset(down_stream_, http::ResetCode::kInternalError);
    return Finish();
  }
  if (code == http::ResetCode::kRefusedStream)
    return OnFailure(Failure::kRefused, WEFT_R_UPSTREAM_RESET);
  const bool protocol =
      reason == WEFT_R_UPSTREAM_PROTOCOL_ERROR || reason == WEFT_R_HEADERS_TOO_LARGE;
  OnFailure(protocol ? Failure::kProtocol : Failure::kReset,
            protocol ? WEFT_R_UPSTREAM_PROTOCOL_ERROR : WEFT_R_UPSTREAM_RESET);
}

void Exchange::OnFailure(Failure failure, Reason reason) {
  if (TryTransparentRetry(failure)) return;
  switch (failure) {
    case Failure::kConnect:
    case Failure::kConnectTimeout:
      ReportOutcome(Outcome::kConnectFailure);
      break;
    case Failure::kPerTryTimeout:
      ReportOutcome(Outcome::kTimeout);
      break;
    case Failure::kReset:
    case Failure::kRefused:
    case Failure::kProtocol:
    case Failure::kStatus:
      ReportOutcome(Outcome::kReset);
      break;
  }
  if (TryRetry(failure, 0, false)) return;
  ReplyToFailure(failure, reason);
}

// A pooled connection that died under the request, or a stream the peer says it has not processed,
// says nothing about the endpoint: once more, on a connection of its own. Only what may be sent
// twice (RFC 9110 9.2.2), unless it was not processed.
bool Exchange::TryTransparentRetry(Failure failure) {
  const bool stale = failure == Failure::kReset && up_reused_ && IsIdempotent(request_.method);
  if (!stale && failure != Failure::kRefused) return false;
  if (response_started_ || !CanReplay() || services_.stopping || forward_ == nullptr) return false;
  if (transparent_retries_ >= (stale ? 1 : kMaxTransparentRetries)) return false;
  ++transparent_retries_;
  const bool was_retry = retry_admitted_;
  retry_admitted_ = false;  // still the same retry, if it was one
  EndAttempt(false);
  retry_admitted_ = was_retry;
  fresh_only_ = stale;
  StartAttempt();  // the same endpoint: host_ is still set
  return true;
}

// Envoy's rules: 5xx and gateway-error cover attempts that ended without any response, too.
bool Exchange::PolicyCovers(Failure failure, int status) const {
  const uint32_t on = forward_->retry->retry_on;
  switch (failure) {
    case Failure::kConnect:
    case Failure::kConnectTimeout:
      return (on & (model::kRetryConnectFailure | model::kRetryReset | model::kRetry5xx |
                    model::kRetryGatewayError)) != 0;
    case Failure::kRefused:
      return (on & (model::kRetryRefusedStream | model::kRetryReset | model::kRetry5xx |
                    model::kRetryGatewayError)) != 0;
    case Failure::kReset:
    case Failure::kProtocol:
    case Failure::kPerTryTimeout:
      return (on & (model::kRetryReset | model::kRetry5xx | model::kRetryGatewayError)) != 0;
    case Failure::kStatus:
      break;
  }
  if ((on & model::kRetry5xx) != 0 && status >= 500) return true;
  if ((on & model::kRetryGatewayError) != 0 && status >= 502 && status <= 504) return true;
  if ((on & model::kRetryRetriable4xx) != 0 && status == 409) return true;
  const auto& codes = forward_->retry->status_codes;
  return (on & model::kRetryRetriableStatusCodes) != 0 &&
         std::find(codes.begin(), codes.end(), static_cast<uint32_t>(status)) != codes.end();
}

bool Exchange::TryRetry(Failure failure, int status, bool complete) {
  if (forward_ == nullptr || !forward_->retry || response_started_ || services_.stopping)
    return false;
  const model::RetryPolicy& policy = *forward_->retry;
  retry_refused_ = WEFT_R_NONE;
  if (!PolicyCovers(failure, status) || retries_ >= policy.num_retries) return false;
  if (!CanReplay()) {
    if (outgrew_replay_) retry_refused_ = WEFT_R_BUFFER_LIMIT;
    return false;
  }
  // The place this attempt has as a retry is free for the next one.
  const bool had_place = retry_admitted_;
  if (had_place) cluster_->Release(Limit::kRetries);
  retry_admitted_ = false;
  if (!cluster_->TryAdmit(Limit::kRetries)) {
    Count(services_.counters.retries_refused);
    retry_refused_ = WEFT_R_OVERFLOW_RETRIES;
    return false;
  }
  ++retries_;
  Count(services_.counters.retries);
  if (policy.avoid_previous_hosts) tried_.push_back(host_);
  EndAttempt(complete);
  retry_admitted_ = true;
  host_ = {};
  fresh_only_ = false;
  // Full jitter: uniform in (0, base * 2^n], at most max.
  const int64_t base = std::max<int64_t>(policy.base_interval.count(), 1);
  const int64_t longest = std::max<int64_t>(policy.max_interval.count(), base);
  const int64_t interval = std::min(base << std::min(retries_ - 1, 20u), longest);
  const auto wait = milliseconds(
      1 + static_cast<int64_t>(services_.random.Below(static_cast<uint64_t>(interval))));
  backoff_until_ = services_.now + wait;
  state_ = State::kBackoff;
  ArmTimer();
  return true;
}

void Exchange::ReplyToFailure(Failure failure, Reason reason) {
#define WEFT_RESET_TEXT "upstream connect error or disconnect/reset before headers. reset reason: "
  // What failed is in the text; the reason says why that was the end of it.
  LocalReply reply{.reason = retry_refused_ != WEFT_R_NONE ? retry_refused_ : reason};
  switch (failure) {
    case Failure::kConnect:
      reply.body = WEFT_RESET_TEXT "remote connection failure";
      break;
    case Failure::kConnectTimeout:
      reply.body = WEFT_RESET_TEXT "connection timeout";
      break;
    case Failure::kRefused:
      reply.body = WEFT_RESET_TEXT "remote refused stream reset";
      break;
    case Failure::kProtocol:
      reply.status = 502;
      reply.body = WEFT_RESET_TEXT "protocol error";
      break;
    case Failure::kPerTryTimeout:
      reply.status = 504;
      reply.body = "upstream request timeout";
      break;
    case Failure::kReset:
    case Failure::kStatus:
      reply.body = WEFT_RESET_TEXT "connection termination";
      break;
  }
#undef WEFT_RESET_TEXT
  Reply(reply);
}

void Exchange::ReplyOverflow(Reason reason) {
  Reply(
      {.reason = reason,
       .body = "upstream connect error or disconnect/reset before headers. reset reason: overflow",
       .overloaded = true});
}

void Exchange::ArmTimer() {
  TimePoint due = std::min({request_deadline_, route_deadline_, try_deadline_, backoff_until_});
  if (idle_timeout_.count() > 0) due = std::min(due, last_activity_ + idle_timeout_);
  if (due == TimePoint::max()) return;
  // A deadline that moved further away is noticed when the old one comes: no list operation for
  // each byte.
  if (timer_.is_set() && timer_.due() <= due) return;
  services_.SetTimer(timer_, due);
}

void Exchange::OnTimer() {
  if (state_ == State::kEnded || state_ == State::kIdle) return;
  const TimePoint now = services_.now;
  if (request_deadline_ <= now) {
    Count(services_.counters.timeouts);
    return Reply({.status = 408, .reason = WEFT_R_IDLE_TIMEOUT, .body = "request timeout"});
  }
  if (route_deadline_ <= now) {
    Count(services_.counters.timeouts);
    if (!response_started_) ReportOutcome(Outcome::kTimeout);
    return Reply(
        {.status = 504, .reason = WEFT_R_ROUTE_TIMEOUT, .body = "upstream request timeout"});
  }
  if (try_deadline_ <= now) {
    Count(services_.counters.timeouts);
    OnFailure(Failure::kPerTryTimeout, WEFT_R_ROUTE_TIMEOUT);
  } else if (backoff_until_ <= now) {
    backoff_until_ = TimePoint::max();
    state_ = State::kIdle;
    StartAttempt();
  } else if (idle_timeout_.count() > 0 && last_activity_ + idle_timeout_ <= now) {
    Count(services_.counters.timeouts);
    const int status = request_complete_ ? 504 : 408;
    return Reply({.status = status, .reason = WEFT_R_IDLE_TIMEOUT, .body = "stream timeout"});
  }
  if (state_ != State::kEnded) ArmTimer();
}

void Exchange::Reply(const LocalReply& reply) {
  reason_ = reply.reason;
  EndAttempt(false);
  Count(services_.counters.local_replies[reply.reason]);
  http::Session& session = down_->session();
  if (response_started_) {
    session.Reset(down_stream_, http::ResetCode::kInternalError);
    return Finish();
  }
  status_ = reply.status;
  response_started_ = true;
  const bool has_body = !is_grpc_ && !reply.body.empty() && request_.method != "HEAD";
  SubmitLocalHead(reply, is_grpc_);
  session.SubmitResponse(down_stream_, local_, !has_body);
  if (has_body) {
    response_bytes_ = reply.body.size();
    session.SubmitData(down_stream_,
                       {reinterpret_cast<const uint8_t*>(reply.body.data()), reply.body.size()},
                       true);
  }
  Finish();
}

namespace {

// grpc-message: percent-encoded outside printable ASCII (gRPC over HTTP/2).
std::string GrpcMessage(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '%') {
      out.push_back(c);
      continue;
    }
    const auto byte = static_cast<uint8_t>(c);
    out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
  }
  return out;
}

}  // namespace

void Exchange::SubmitLocalHead(const LocalReply& reply, bool grpc) {
  local_.Clear();
  http::HeaderList& headers = local_.headers;
  if (grpc) {  // trailers-only: one head with the status in it
    local_.status = 200;
    headers.Add("content-type", "application/grpc");
    headers.Add("grpc-status", std::to_string(GrpcStatusOf(reply.status)));
    if (!reply.body.empty()) headers.Add("grpc-message", GrpcMessage(reply.body));
  } else {
    local_.status = reply.status;
    headers.Add("content-length", std::to_string(reply.body.size()));
    if (!reply.body.empty()) headers.Add("content-type", "text/plain");
  }
  if (!reply.location.empty()) headers.Add("location", reply.location);
  if (reply.overloaded) headers.Add("x-envoy-overloaded", "true");
  if (reply.reason != WEFT_R_NONE) headers.Add("x-weft-reason", ReasonName(reply.reason));
  if (!reply.policy.empty()) headers.Add("x-weft-policy", reply.policy);
  if (route_ != nullptr) ApplyResponseChanges(headers);
}

}  // namespace weft::worker
