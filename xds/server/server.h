// SPDX-License-Identifier: Apache-2.0
// The server half of gRPC as Weft needs it: ADS in both variants and unary calls, over HTTP/2 on
// any net::Stream. Several streams share a connection. Thread: the one whose io_context made the
// stream; the cache must live on the same.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proxy/base/task.h"
#include "proxy/http/message.h"
#include "proxy/net/stream.h"
#include "xds/server/resource_cache.h"

namespace weft::xds {

// Who is at the other end, as the caller's transport found it out.
struct GrpcPeer {
  std::string identity;  // verified SPIFFE id; empty: none
  std::string address;   // for log lines
};

struct GrpcRequest {
  std::string path;
  http::HeaderList metadata;
  std::string message;
  GrpcPeer peer;
};

// Status codes of gRPC that Weft sends.
enum class GrpcStatus : int {
  kOk = 0,
  kUnknown = 2,
  kInvalidArgument = 3,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kUnauthenticated = 16,
};

struct GrpcReply {
  GrpcStatus status = GrpcStatus::kOk;
  std::string error;    // for people; sent as grpc-message
  std::string message;  // only with kOk
};

// The first request of an ADS stream says this.
struct AdsNode {
  std::string id, cluster;
  std::map<std::string, std::string> metadata;  // string values only
};

struct AdsNack {
  AdsNode node;
  GrpcPeer peer;
  std::string type_url, version, error;
};

struct ServerOptions {
  // Null: no ADS is served (kUnimplemented). Must outlive every connection.
  ResourceCache* cache = nullptr;
  // May this stream be served? Not OK: it ends with that code and message. Empty: everybody.
  std::function<absl::Status(const GrpcPeer&, const AdsNode&, const http::HeaderList& metadata)>
      admit;
  // May this node see that resource? Empty: all. Its answers may change with ResourceCache::Touch
  // only.
  std::function<bool(const GrpcPeer&, const AdsNode&, std::string_view type_url,
                     std::string_view name)>
      visible;
  std::function<void(const AdsNack&)> on_nack;
  // One line a stream: it opened, or ended and why. For status pages.
  std::function<void(const GrpcPeer&, const AdsNode&, bool connected)> on_stream;
  // Unary calls by path, e.g. kCreateCertificatePath. A handler is a named coroutine function bound
  // to what it needs.
  std::map<std::string, std::function<Task<GrpcReply>(GrpcRequest)>, std::less<>> unary;
  // Looked at this often: a connection without an admitted ADS stream or a unary call under way is
  // closed. Nobody needs to be known to make one, and they could fill the server.
  std::chrono::milliseconds idle_limit{60000};
  uint32_t max_streams = 100;  // at once, a connection
  size_t max_unary_bytes = 1u << 20;
  size_t max_request_bytes = 16u << 20;  // ADS: one request
  // ADS: names that one stream keeps, of all types: those it subscribes and those it says it has. A
  // stream that goes beyond either ends with kResourceExhausted.
  size_t max_names = 100'000;
  size_t max_name_bytes = 32u << 20;
  size_t max_response_bytes =
      3u << 20;  // delta: split into several above (Go's clients accept 4 MiB)
};

// Serves one connection until the peer or the transport ends it. To cut it off, Close() the stream
// through `stop`: the caller keeps the pointer only as long as the task runs. `options` is shared
// by all connections.
Task<void> ServeGrpc(std::unique_ptr<net::Stream> stream, GrpcPeer peer,
                     std::shared_ptr<const ServerOptions> options);

}  // namespace weft::xds
