// SPDX-License-Identifier: Apache-2.0
// What a chosen route does to a request and its response. Pure; no thread.
#pragma once
#include <cstdint>
#include <span>

#include "proxy/http/message.h"
#include "proxy/route/router.h"
#include "xds/model/route.h"

namespace weft::route {

// The cluster for a uniformly random number: weights out of their sum.
const model::WeightedCluster& ChooseCluster(const model::Forward& forward, uint64_t random);

void ApplyChanges(std::span<const model::HeaderChange> changes, http::HeaderList* headers);
// Weighted cluster (may be null), route, virtual host, configuration: the most specific first, as
// Envoy does by default.
void ApplyRequestChanges(const model::WeightedCluster* cluster, const RouteMatch& match,
                         const model::RouteConfiguration& config, http::HeaderList* headers);
void ApplyResponseChanges(const model::WeightedCluster* cluster, const RouteMatch& match,
                          const model::RouteConfiguration& config, http::HeaderList* headers);

// Path and authority for the upstream. `path_match` is the route's; the request matched it. The
// query stays.
void ApplyRewrites(const model::Forward& forward, const model::PathMatch& path_match,
                   http::RequestHead* head);

// The response of a redirect: status and Location (and Content-Length: 0).
http::ResponseHead MakeRedirect(const model::Redirect& redirect, const model::PathMatch& path_match,
                                const http::RequestHead& request);

}  // namespace weft::route
