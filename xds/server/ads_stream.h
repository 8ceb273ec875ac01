// SPDX-License-Identifier: Apache-2.0
// One ADS stream as seen by the server, without I/O: requests in, responses out. At most one
// response of a type is under way: the next one waits for its ACK or NACK and then carries
// everything that changed meanwhile. Thread: the server's. Borrows the options and the cache.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "xds/server/server.h"

namespace weft::xds {

class AdsStream final {
 public:
  AdsStream(bool delta, const ServerOptions& options, GrpcPeer peer, http::HeaderList metadata);

  // A message of the client. Not OK: end the stream with that status.
  absl::Status OnRequest(std::string_view bytes);
  void OnCacheChanged(const std::set<std::string>& types);
  // The next message to send, serialised; nullopt: nothing is due.
  std::optional<std::string> NextResponse();

  const AdsNode& node() const { return node_; }
  bool admitted() const { return admitted_; }

 private:
  struct TypeState {
    bool answered = false;  // a response was sent, or the client has what it would say
    bool wildcard = false;
    bool named = false;       // a name was given once: an empty list means none from then on
    bool due = true;          // look whether there is something to send
    std::string outstanding;  // nonce of the response that is not acknowledged yet
    std::string last_nonce, last_version;
    std::set<std::string> names;
    std::map<std::string, std::string> sent;  // delta: name -> version that the client has
    std::set<std::string> told_missing;       // delta: subscribed names said not to exist
    std::set<std::string> again;              // delta: names to be answered whatever `sent` says
  };

  template <typename Request>
  absl::Status Begin(const Request& request);
  // Of what the client made us keep, counted anew after each request that may have added to it.
  absl::Status CheckNames() const;
  absl::Status OnDelta(std::string_view bytes);
  absl::Status OnFullState(std::string_view bytes);
  void Nack(const std::string& type_url, const TypeState& type, const std::string& error);
  void Subscribe(TypeState& type, const std::string& name, bool first);
  void Unsubscribe(TypeState& type, const std::string& name);
  std::optional<std::string> NextOf(const std::string& type_url);
  std::optional<std::string> DeltaResponse(const std::string& type_url, TypeState& type);
  std::optional<std::string> FullResponse(const std::string& type_url, TypeState& type);
  const CachedResource* Visible(const std::string& type_url, const std::string& name) const;
  std::string NextNonce();

  const bool delta_;
  const ServerOptions& options_;
  const GrpcPeer peer_;
  const http::HeaderList metadata_;
  AdsNode node_;
  bool admitted_ = false;
  uint64_t next_nonce_ = 1;
  std::map<std::string, TypeState> types_;
};

}  // namespace weft::xds
