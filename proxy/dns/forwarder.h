// SPDX-License-Identifier: Apache-2.0
// One query on its way to a workload's resolvers, over UDP: each try from a socket of its own in
// the workload's netns (so from a port that nobody can guess, under the pod's address and network
// policy) and under a random id. Thread: the executor's.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "proxy/dns/message.h"
#include "proxy/net/datagram.h"
#include "proxy/net/socket_source.h"

namespace weft::dns {

inline constexpr uint16_t kPort = 53;
// Within the 5 s after which the usual resolver libraries ask again.
inline constexpr std::chrono::milliseconds kTryLimit{1600};
inline constexpr size_t kMinTries = 2, kMaxTries = 3;
// Wrong answers that one try looks at: more is an attack, and ends it.
inline constexpr int kMaxStrayAnswers = 64;

struct ForwardRequest {
  uint32_t workload = 0, generation = 0;
  std::vector<SocketAddress> resolvers;  // tried in this order, again from the start if few
  std::vector<uint8_t> message;
  Query query;  // parsed from it
  std::chrono::milliseconds try_limit = kTryLimit;
};

struct ForwardResult {
  std::vector<uint8_t> answer;  // under the query's id; empty: no resolver answered
  int strays = 0;               // datagrams that did not answer the query
};

class Forwarder final {
 public:
  // `random_id` draws an unpredictable number for each try.
  Forwarder(asio::any_io_executor executor, net::SocketSource& sockets,
            std::function<uint16_t()> random_id)
      : executor_(std::move(executor)), sockets_(sockets), random_id_(std::move(random_id)) {}

  // Once. The Forwarder outlives it.
  Task<ForwardResult> Run(ForwardRequest request);
  // Run() ends soon, without an answer.
  void Cancel();

 private:
  Task<bool> Try(const ForwardRequest& request, SocketAddress resolver, ForwardResult& result);
  bool Receive(const ForwardRequest& request, uint16_t id, ForwardResult& result, bool* ended);

  asio::any_io_executor executor_;
  net::SocketSource& sockets_;
  std::function<uint16_t()> random_id_;
  std::unique_ptr<net::DatagramSocket> socket_;  // of the try under way
  std::vector<uint8_t> buffer_;
  bool cancelled_ = false;
};

}  // namespace weft::dns
