// SPDX-License-Identifier: Apache-2.0
// Exchange, the decision: which route, which cluster, and what changes on the way.
#include "proxy/route/path.h"
#include "proxy/route/rewrite.h"
#include "proxy/route/router.h"
#include "proxy/worker/exchange.h"
#include "proxy/worker/http_downstream_connection.h"
#include "proxy/worker/http_headers.h"

namespace weft::worker {
namespace {

// As Istio configures Envoy (BASE): %2F stays what it is, and an upstream gets it as it came.
constexpr route::PathOptions kPathOptions{.merge_slashes = false, .reject_escaped_slashes = false};

}  // namespace

// The route configuration in force now: the listener's own, or the snapshot's of that name.
bool Exchange::FindRoute() {
  const auto& listener = down_->args().listener;
  if (!listener || !listener->http) return false;
  if (listener->http->inline_routes) {
    config_ = listener->http->inline_routes;
  } else if (services_.snapshot) {
    auto it = services_.snapshot->routes.find(listener->http->rds_name);
    if (it != services_.snapshot->routes.end()) config_ = it->second;
  }
  if (!config_) return false;
  router_ = services_.RouterFor(config_);
  if (!router_) return false;
  const route::RouteMatch match = router_->Match(request_);
  virtual_host_ = match.virtual_host;
  route_ = match.route;
  return route_ != nullptr;
}

void Exchange::Route() {
  if (request_.method == "CONNECT") return Reply({.status = 405, .reason = WEFT_R_NO_ROUTE});
  if (route::NormalizePath(kPathOptions, &request_.path) != route::PathResult::kOk) {
    return Reply({.status = 400, .reason = WEFT_R_DOWNSTREAM_PROTOCOL_ERROR});
  }
  PrepareRequestHeaders(request_, services_.random);
  if (!FindRoute()) return Reply({.status = 404, .reason = WEFT_R_NO_ROUTE});
  if (const auto* forward = std::get_if<model::Forward>(&route_->action)) return Forward(*forward);
  if (const auto* redirect = std::get_if<model::Redirect>(&route_->action)) {
    const http::ResponseHead head = route::MakeRedirect(*redirect, route_->path, request_);
    const std::string location(head.headers.Get("location").value_or(""));
    return Reply({.status = head.status, .location = location});
  }
  const auto& direct = std::get<model::DirectResponse>(route_->action);
  Reply({.status = direct.status, .body = direct.body});
}

void Exchange::Forward(const model::Forward& forward) {
  forward_ = &forward;
  weighted_ = &route::ChooseCluster(forward, services_.random.Next());
  cluster_ = services_.clusters.Find(weighted_->cluster);
  if (!cluster_) return Reply({.reason = WEFT_R_NO_CLUSTER});
  route::ApplyRequestChanges(weighted_, {virtual_host_, route_}, *config_, &request_.headers);
  route::ApplyRewrites(forward, route_->path, &request_);
  may_replay_ = forward.retry.has_value() && forward.retry_buffer_bytes > 0;
  if (forward.idle_timeout.count() > 0) idle_timeout_ = forward.idle_timeout;
  if (request_complete_) OnRequestComplete();
  StartAttempt();
}

void Exchange::ApplyResponseChanges(http::HeaderList& headers) {
  route::ApplyResponseChanges(weighted_, {virtual_host_, route_}, *config_, &headers);
}

}  // namespace weft::worker
