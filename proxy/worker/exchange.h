// SPDX-License-Identifier: Apache-2.0
// One request and its response, from the route decision to the last byte: cluster choice,
// admission, endpoint, attempts, retries, timeouts, local replies. A synchronous state machine:
// connections tell it events, it submits to their sessions and never waits. Thread: the worker's.
// Owned and reused by HttpServicesState; borrows its two connections, which tell it before they go.
//
//   kIdle -> Start() -> kPending (pool) -> kAttached (an upstream stream) -> response -> end
//                ^          |  connect failed     | reset, 5xx, timeout
//                +-------- kBackoff <-------------+          a local reply ends it from anywhere
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/session.h"
#include "proxy/upstream/cluster_state.h"
#include "proxy/worker/http_state.h"
#include "proxy/worker/timer_wheel.h"
#include "xds/model/route.h"

namespace weft::worker {

class DownstreamConnection;
class HttpPool;
class UpstreamConnection;

class Exchange final {
 public:
  explicit Exchange(HttpServicesState& services);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // A request arrived. The head is taken out of the event.
  void Start(DownstreamConnection& downstream, http::Event& request);

  // From the downstream's connection.
  void OnRequestData(std::span<const uint8_t> data, bool end);
  void OnRequestTrailers(http::HeaderList& trailers);
  void OnRequestEnd();
  // The stream or its connection is gone; ends the exchange.
  void OnDownstreamGone(Reason reason);
  // Output was written: response bytes may have left.
  void OnDownstreamProgress();

  // From the pool.
  void OnConnection(UpstreamConnection& connection);
  void OnConnectFailed(Reason reason, const std::string& policy);

  // From the upstream's connection.
  void OnUpstreamEvent(http::Event& event);
  // The connection ended; the exchange is already out of its list.
  void OnUpstreamGone(Reason reason, http::ResetCode code);
  void OnUpstreamProgress();

  http::StreamId downstream_stream() const { return down_stream_; }
  const model::LocalWorkload* source() const;  // who calls; null when run alone
  DownstreamConnection& downstream() { return *down_; }
  const upstream::ClusterRef& cluster() const { return cluster_; }
  const upstream::HostRef& host() const { return host_; }
  bool upgraded() const { return upgraded_; }

 private:
  friend class HttpServicesState;
  enum class State : uint8_t { kIdle, kPending, kAttached, kBackoff, kEnded };
  // Why an attempt failed, for retries and the answer's text.
  enum class Failure : uint8_t {
    kConnect,
    kConnectTimeout,
    kReset,    // connection lost or stream reset
    kRefused,  // not processed: may always be sent again
    kProtocol,
    kPerTryTimeout,
    kStatus,  // a response that the policy may retry
  };

  // exchange_route.cc: what to do with the request.
  bool FindRoute();
  void Route();
  void Forward(const model::Forward& forward);
  void ApplyResponseChanges(http::HeaderList& headers);

  // exchange.cc: one attempt.
  void StartAttempt();
  void SendBody();
  void EndAttempt(bool complete);
  void ReportOutcome(upstream::Outcome outcome);
  void OnRequestComplete();
  void OnResponseHead(http::Event& event);
  void OnResponseData(std::span<const uint8_t> data, bool end);
  void EndResponse();
  void KeepBody(std::span<const uint8_t> data);
  void DropReplay();
  bool HasUpstream() const { return state_ == State::kAttached; }

  // exchange_retry.cc: failures, retries, timeouts.
  void OnFailure(Failure failure, Reason reason);
  bool PolicyCovers(Failure failure, int status) const;
  // `complete`: of a response to be retried, nothing follows the head.
  bool TryRetry(Failure failure, int status, bool complete);
  bool CanReplay() const { return may_replay_ || request_bytes_ == 0; }
  bool TryTransparentRetry(Failure failure);
  void ReplyToFailure(Failure failure, Reason reason);
  void ArmTimer();
  void OnTimer();
  void OnIdleTimeout();

  // The answer is the proxy's own; if a response has begun, the stream is reset instead. Ends the
  // exchange.
  struct LocalReply {
    int status = 503;
    Reason reason = WEFT_R_NONE;
    std::string_view body;
    bool overloaded = false;    // x-envoy-overloaded: true
    std::string_view policy;    // x-weft-policy
    std::string_view location;  // of a redirect
  };
  void Reply(const LocalReply& reply);
  void ReplyOverflow(Reason reason);
  void SubmitLocalHead(const LocalReply& reply, bool grpc);
  // Releases everything and hands the exchange back.
  void Finish();
  void Record();
  void Reset();

  HttpServicesState& services_;
  State state_ = State::kIdle;

  // Downstream.
  DownstreamConnection* down_ = nullptr;
  http::StreamId down_stream_ = 0;
  http::RequestHead request_;
  http::HeaderList request_trailers_;
  bool request_complete_ = false;
  bool has_request_trailers_ = false;
  std::vector<uint8_t> body_;  // of the request: all of it while it may be replayed, else what
                               // waits for the upstream
  size_t body_sent_ = 0;       // of body_, in this attempt
  size_t replay_counted_ = 0;  // of body_, in services_.replay_bytes
  bool may_replay_ = false;
  bool outgrew_replay_ = false;  // the body is more than may be kept for a retry
  size_t request_held_ = 0;      // received and not yet given back to the downstream
  size_t response_held_ = 0;

  // Decision.
  std::shared_ptr<const model::RouteConfiguration> config_;
  std::shared_ptr<const route::Router> router_;
  const model::VirtualHost* virtual_host_ = nullptr;
  const model::Route* route_ = nullptr;
  const model::Forward* forward_ = nullptr;
  const model::WeightedCluster* weighted_ = nullptr;
  upstream::ClusterRef cluster_;

  // Attempt.
  upstream::HostRef host_;
  HttpPool* pool_ = nullptr;  // while kPending
  UpstreamConnection* up_ = nullptr;
  http::StreamId up_stream_ = 0;
  std::vector<upstream::HostRef> tried_;
  uint32_t attempts_ = 0;
  uint32_t retries_ = 0;
  uint32_t transparent_retries_ = 0;
  bool fresh_only_ = false;
  bool request_admitted_ = false;
  bool retry_admitted_ = false;
  bool host_begun_ = false;
  bool up_reused_ = false;
  bool reported_ = false;
  bool upstream_request_ended_ = false;

  // Response.
  http::ResponseHead local_;  // the head of a local reply
  bool response_started_ = false;
  bool upgraded_ = false;
  bool down_gone_ = false;
  bool is_grpc_ = false;
  int status_ = 0;
  Reason reason_ = WEFT_R_NONE;
  Reason retry_refused_ = WEFT_R_NONE;  // why the last failure was not retried though it should be
  std::string policy_;
  std::string upstream_identity_;
  SocketAddress upstream_address_;

  // Time.
  WheelTimer timer_;
  TimePoint started_{}, first_byte_{}, last_activity_{};
  TimePoint request_deadline_ = TimePoint::max();  // for the downstream to complete the request
  TimePoint route_deadline_ = TimePoint::max(), try_deadline_ = TimePoint::max(),
            backoff_until_ = TimePoint::max();
  std::chrono::milliseconds idle_timeout_{0};
  uint64_t request_bytes_ = 0, response_bytes_ = 0;
};

}  // namespace weft::worker
