// SPDX-License-Identifier: Apache-2.0
// An ADS client: keeps one stream to a server, subscribes, acknowledges, refuses by resource,
// reconnects. Says what changed through a callback; keeps versions, not resources. Thread: one,
// that of the executor. Most callers want SnapshotSource (snapshot_source.h), which also builds
// snapshots.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/base/task.h"
#include "proxy/net/stream.h"
#include "xds/decode/decode.h"

namespace weft::xds {

enum class Variant : uint8_t { kStateOfTheWorld, kDelta };

// One response, what is good of it. A name is in at most one of the two lists.
struct Update {
  struct Changed {
    std::string name, version;
    std::shared_ptr<const std::string> bytes;  // the value of the Any, to be served on
    Resource resource;
  };
  std::string type_url;
  bool serves_policies = false;  // the server says it is a kPolicyServer
  std::vector<Changed> changed;
  std::vector<std::string> removed;  // delta: also names that were asked for and do not exist
};

struct TypeStatus {
  std::string type_url;
  size_t resources = 0;
  std::string version;                                  // of the last response accepted as a whole
  std::chrono::system_clock::time_point last_update{};  // epoch: never
  uint64_t updates = 0, nacks = 0;
  std::string last_nack;  // our text; empty: never, or everything was accepted since
  std::chrono::system_clock::time_point last_nack_at{};
};
struct ClientStatus {
  bool connected = false;
  std::chrono::system_clock::time_point since{};  // of this state
  std::string last_error;                         // why it is not connected, or was not before
  uint64_t connects = 0;
  std::vector<TypeStatus> types;
};

using ConnectFunction = std::function<Task<absl::StatusOr<std::unique_ptr<net::Stream>>>()>;

struct ClientOptions {
  Variant variant = Variant::kDelta;
  // Makes a connected stream (unix, TCP, TLS with ALPN h2), with its own time-out. Called for each
  // attempt.
  ConnectFunction connect;
  std::string authority = "xds";
  // Sent with the request that opens the stream; asked for at each attempt (tokens change). May be
  // empty.
  std::function<std::vector<std::pair<std::string, std::string>>()> metadata;
  std::string node_id, node_cluster;
  std::map<std::string, std::string> node_metadata;
  // Subscribed to as a whole. Types subscribed by name start without names (SetNames).
  std::vector<std::string> wildcard_types;
  // As those, once a response says that the server is a kPolicyServer; never of another one.
  std::vector<std::string> policy_types;
  DecodeOptions decode;
  // A server sends its HTTP/2 settings at once; one that accepted and says nothing for this long is
  // left.
  std::chrono::milliseconds first_byte_limit{10000};
  // Full jitter: the n-th attempt waits random() in [0,1) of min(backoff_base * 2^n, backoff_cap).
  std::chrono::milliseconds backoff_base{1000};
  std::chrono::milliseconds backoff_cap{30000};
  std::function<double()> random;  // empty: a real one
};

class Client final {
 public:
  using OnUpdate = std::function<void(const Update&)>;

  // The callback runs on the client's thread and may call SetNames.
  Client(asio::any_io_executor executor, ClientOptions options, OnUpdate on_update);
  ~Client();
  Client(const Client&) = delete;

  // Connects, serves, reconnects, until Stop(). Run it once; the client must outlive the task.
  Task<void> Run();
  // Ends Run() soon. Idempotent.
  void Stop();

  // Exactly these names are subscribed to from now on (a type that is not a wildcard type).
  void SetNames(std::string_view type_url, std::set<std::string> names);
  ClientStatus status() const;

 private:
  struct Connection;
  Task<void> Attempt();
  Task<void> Sleep(std::chrono::milliseconds time);
  static Task<void> ReadLoop(Connection& connection);
  static Task<void> WriteLoop(Connection& connection);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace weft::xds
