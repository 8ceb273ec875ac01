// SPDX-License-Identifier: Apache-2.0
// What the proxy does to request heads of its own accord: as Envoy's HTTP connection manager and
// router do by default for a proxy that is not at the edge (use_remote_address false). Pure; no
// thread.
//   x-forwarded-for       left as it came
//   x-forwarded-proto     added if absent, from the scheme
//   x-request-id          kept; a random UUID if absent
//   x-forwarded-client-cert, x-envoy-*, x-weft-*   removed from requests: nobody outside may claim
//   an identity or set
//                         timeouts and retries
// Paths and the changes a route asks for: proxy/route.
#pragma once
#include <string_view>

#include "proxy/http/message.h"
#include "proxy/upstream/random.h"

namespace weft::worker {

// The header rules above.
void PrepareRequestHeaders(http::RequestHead& head, upstream::Random& random);
bool IsGrpc(const http::HeaderList& headers);
// GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 9.2.2): may be sent again although the first may
// have been processed.
bool IsIdempotent(std::string_view method);
// grpc-status for a local reply with an HTTP status.
int GrpcStatusOf(int http_status);

}  // namespace weft::worker
