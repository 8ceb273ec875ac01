// SPDX-License-Identifier: Apache-2.0
// The client's side of the xDS protocol without I/O, for as long as the client lives: streams come
// and go, versions stay. Responses in, requests out. Internal to xds/client and its tests. Thread:
// one.
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "xds/client/client.h"

namespace weft::xds {

class AdsState final {
 public:
  using Clock = std::chrono::steady_clock;

  // Of `options`: variant, node, wildcard and policy types, decode.
  AdsState(const ClientOptions& options, Client::OnUpdate on_update);

  void OnConnected();
  void OnDisconnected(std::string why);
  // One message of the server. Not OK: it is none; end the stream.
  absl::Status OnMessage(std::string_view bytes, Clock::time_point now);
  void SetNames(std::string_view type_url, std::set<std::string> names);

  // What to send now, serialised, in order.
  std::vector<std::string> TakeRequests(Clock::time_point now);
  // When TakeRequests() has more although nothing else happened.
  std::optional<Clock::time_point> next_deadline() const;
  ClientStatus status() const;

 private:
  struct Held {
    std::string version;
    uint64_t hash = 0;  // of the bytes: state of the world sends everything, changed or not
  };
  struct Answer {  // ACK, or NACK if there is an error
    std::string nonce, error;
    Clock::time_point not_before{};
  };
  struct TypeState {
    bool wildcard = false;
    bool policy = false;  // asked only of a kPolicyServer
    std::set<std::string> names;
    std::map<std::string, Held> held;
    // Policies that could not be read and have no good version: something that denies stands for
    // them.
    std::set<std::string> stand_ins;
    std::string version;  // of the last response accepted as a whole
    // Of the current stream.
    bool asked = false;
    std::set<std::string> asked_names;
    std::set<std::string> dropped;  // asked for, then not, and the server has not heard of it yet
    std::string nonce;
    std::optional<Answer> answer;
    int nacks_in_a_row = 0;
    TypeStatus status;
  };
  // What one response brings, while it is looked through.
  struct Incoming {
    Update update;
    std::set<std::string> seen, bad;
    std::vector<std::string> errors;
    std::vector<Update::Changed> stand_ins;
    bool nameless = false;  // something in it does not even tell its name
  };

  TypeState& Type(std::string_view type_url);
  absl::Status OnDelta(std::string_view bytes, Clock::time_point now);
  absl::Status OnFullState(std::string_view bytes, Clock::time_point now);
  void TakeOne(TypeState& type, Incoming& incoming, std::string_view name,
               const std::string& version, std::string_view type_url, const std::string& bytes);
  void Conclude(const std::string& type_url, TypeState& type, Incoming incoming,
                const std::string& version, const std::string& nonce, Clock::time_point now);
  bool Wants(const TypeState& type, const std::string& name) const;
  void AddDeltaRequests(const std::string& type_url, TypeState& type, Clock::time_point now,
                        std::vector<std::string>* out);
  void AddFullRequests(const std::string& type_url, TypeState& type, Clock::time_point now,
                       std::vector<std::string>* out);
  std::string FullRequest(const std::string& type_url, const TypeState& type,
                          const std::set<std::string>& names);
  template <typename Request>
  void AddNode(Request* request);

  const Variant variant_;
  const std::string node_id_, node_cluster_;
  const std::map<std::string, std::string> node_metadata_;
  const DecodeOptions decode_;
  const Client::OnUpdate on_update_;
  std::map<std::string, TypeState, std::less<>> types_;
  bool connected_ = false;
  bool node_sent_ = false;
  bool serves_policies_ = false;  // of the current stream
  ClientStatus status_;
};

}  // namespace weft::xds
