// SPDX-License-Identifier: Apache-2.0
// Serves one downstream connection that speaks HTTP: reads requests, gives each to an Exchange
// (route, endpoint, retries), writes responses. Returns when the connection is over.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "proxy/net/stream.h"
#include "proxy/worker/connector.h"

namespace weft::worker {

class HttpServices;  // what all HTTP connections of a worker share: http_services.h (pools, node
                     // table, metrics, clock)

struct HttpDownstreamArgs {
  std::unique_ptr<net::Stream> stream;
  std::vector<uint8_t> first_bytes;  // what protocol detection already read
  bool http2 = false;                // the HTTP/2 preface was seen (or ALPN said h2)
  std::shared_ptr<const model::LocalWorkload> source;  // null when run alone
  SocketAddress client;
  SocketAddress original_destination;
  std::string client_identity;  // verified; empty if unknown
  std::shared_ptr<const model::Listener>
      listener;  // has `http`; RDS is looked up in the snapshot at each request
};

// Thread: the worker's. `services` outlives the task.
Task<void> ServeHttp(HttpServices& services, HttpDownstreamArgs args);

}  // namespace weft::worker
