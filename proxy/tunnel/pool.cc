// SPDX-License-Identifier: Apache-2.0
#include "proxy/tunnel/pool.h"

#include <algorithm>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "proxy/base/log.h"
#include "proxy/net/deadline.h"
#include "proxy/tunnel/tunnel_stream.h"

namespace weft::tunnel {
namespace {

using Clock = std::chrono::steady_clock;

std::chrono::milliseconds Left(Clock::time_point until) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
  return std::max(left, std::chrono::milliseconds(1));
}

http::RequestHead ConnectHead(const TunnelRequest& request) {
  http::RequestHead head;
  head.method = "CONNECT";
  head.authority = request.destination.ToString();
  head.headers.Add("forwarded", "for=\"" + request.client.ToString() + "\"");
  if (!request.baggage.empty()) head.headers.Add("baggage", request.baggage);
  return head;
}

// What an answer other than 200 means.
Reason ReasonOfStatus(const TunnelStream& stream) {
  switch (stream.status()) {
    case 401:
    case 403:
      return stream.refusal() == ReasonName(WEFT_R_POLICY_DEFAULT_DENIED)
                 ? WEFT_R_POLICY_DEFAULT_DENIED
                 : WEFT_R_POLICY_DENIED;
    case 503:
      return WEFT_R_CONNECT_FAILED;
    default:
      return WEFT_R_HBONE_REFUSED;
  }
}

}  // namespace

// In the frame of a caller that waits for a connection.
struct TunnelPool::Waiter {
  explicit Waiter(const asio::any_io_executor& executor) : signal(executor) {}
  Signal signal;
  Reason reason = WEFT_R_NONE;
  bool woken = false;
};

struct TunnelPool::Group {
  TunnelKey key;
  struct Connection {
    Mux* mux;  // owned by DialAndRun's frame
    std::string peer_identity;
    Expiry expiry;
  };
  std::vector<Connection> connections;
  std::vector<Waiter*> waiters;
  size_t dialing = 0;
};

size_t TunnelPool::KeyHash::operator()(const TunnelKey& key) const noexcept {
  size_t h = std::hash<std::string>{}(key.source_identity);
  h = h * 31 + AddressHash{}(key.source);
  h = h * 31 + std::hash<std::string>{}(key.destination_identity);
  return h * 31 + AddressHash{}(key.destination);
}

TunnelPool::TunnelPool(asio::any_io_executor executor, Dialer& dialer, PoolOptions options)
    : executor_(executor), dialer_(dialer), options_(std::move(options)), ended_(executor) {}

TunnelPool::~TunnelPool() = default;

TunnelPool::Group& TunnelPool::GroupOf(const TunnelKey& key) {
  std::unique_ptr<Group>& group = groups_[key];
  if (group == nullptr) {
    group = std::make_unique<Group>();
    group->key = key;
  }
  return *group;
}

void TunnelPool::DropIfEmpty(const TunnelKey& key) {
  auto found = groups_.find(key);
  if (found == groups_.end()) return;
  const Group& group = *found->second;
  if (group.connections.empty() && group.waiters.empty() && group.dialing == 0)
    groups_.erase(found);
}

bool TunnelPool::IsOver(Expiry expiry) const {
  return tunnel::IsOver(
      expiry, options_.wall_clock ? options_.wall_clock() : std::chrono::system_clock::now());
}

Mux* TunnelPool::Pick(Group& group) {
  Mux* best = nullptr;
  for (const Group::Connection& connection : group.connections) {
    Mux* mux = connection.mux;
    if (!mux->can_open()) continue;
    if (IsOver(connection.expiry)) {  // before its timer: clocks are set, machines sleep
      mux->StartDrain();
      continue;
    }
    bool better = best == nullptr || std::pair(mux->congested(), mux->streams()) <
                                         std::pair(best->congested(), best->streams());
    if (better) best = mux;
  }
  return best;
}

void TunnelPool::StartDial(Group& group, const TunnelRequest& request) {
  ++group.dialing;
  ++connections_;
  asio::co_spawn(executor_, DialAndRun(group.key, request.source, request.timeout),
                 [this](std::exception_ptr error) {
                   --connections_;
                   ended_.Notify();
                   if (error) WEFT_BUG("exception in a tunnel");
                 });
}

Task<void> TunnelPool::DialAndRun(TunnelKey key, std::shared_ptr<const model::LocalWorkload> source,
                                  std::chrono::milliseconds timeout) {
  DialResult dialed = co_await dialer_.Dial(key, std::move(source), timeout);
  Group& group = GroupOf(key);
  --group.dialing;
  const Reason unwanted = IsOver(dialed.expiry) ? WEFT_R_CERT_EXPIRED : closing_;
  if (unwanted != WEFT_R_NONE && dialed.stream != nullptr) {
    dialed.stream->Close(unwanted);
    dialed.stream.reset();
    dialed.reason = unwanted;
  }
  if (dialed.stream == nullptr) {
    WakeWaiters(group, dialed.reason == WEFT_R_NONE ? WEFT_R_CONNECT_FAILED : dialed.reason);
    DropIfEmpty(key);
    co_return;
  }
  Mux mux({.executor = executor_,
           .transport = std::move(dialed.stream),
           .role = http::Role::kClient,
           .scratch = options_.scratch});
  group.connections.push_back({&mux, std::move(dialed.peer_identity), dialed.expiry});
  if (options_.on_connection) options_.on_connection(true);
  WakeWaiters(group, WEFT_R_NONE);
  {
    const net::Deadline expired(executor_, UntilExpiry(dialed.expiry),
                                [&mux] { mux.StartDrain(); });
    co_await mux.Run();
  }
  if (options_.on_connection) options_.on_connection(false);
  std::erase_if(group.connections, [&mux](const Group::Connection& c) { return c.mux == &mux; });
  DropIfEmpty(key);
}

void TunnelPool::WakeWaiters(Group& group, Reason reason) {
  std::vector<Waiter*> waiters = std::move(group.waiters);
  group.waiters.clear();
  for (Waiter* waiter : waiters) {
    waiter->woken = true;
    waiter->reason = reason;
    waiter->signal.Notify();
  }
}

Task<Reason> TunnelPool::AwaitConnection(TunnelKey key, const TunnelRequest& request,
                                         Clock::time_point until) {
  Group& group = GroupOf(key);
  bool dial = group.dialing * kMaxStreams <= group.waiters.size();
  if (dial && group.connections.size() + group.dialing >= options_.max_connections_per_key) {
    co_return WEFT_R_OVERFLOW_CONNECTIONS;
  }
  Waiter waiter(executor_);
  group.waiters.push_back(&waiter);     // keeps the group alive
  if (dial) StartDial(group, request);  // may wake us at once
  {
    net::Deadline limit(executor_, Left(until), [&waiter] { waiter.signal.Notify(); });
    co_await waiter.signal.Wait();
  }
  if (!waiter.woken) {
    std::erase(group.waiters, &waiter);
    DropIfEmpty(key);
    co_return WEFT_R_CONNECT_TIMEOUT;
  }
  co_return waiter.reason;
}

Task<TunnelResult> TunnelPool::TryOnce(TunnelKey key, const TunnelRequest& request,
                                       Clock::time_point until, bool* again) {
  *again = false;
  Mux* mux = Pick(GroupOf(key));
  if (mux == nullptr) {
    Reason reason = co_await AwaitConnection(key, request, until);
    if (reason != WEFT_R_NONE) co_return TunnelResult{.reason = reason};
    mux = Pick(GroupOf(key));
  } else if (Group& group = GroupOf(key); mux->congested() && group.dialing == 0 &&
                                          group.connections.size() < options_.max_spread) {
    StartDial(group, request);  // for those that come after us
  }
  std::unique_ptr<TunnelStream> stream = mux == nullptr ? nullptr : mux->Open(ConnectHead(request));
  if (stream == nullptr) {
    DropIfEmpty(key);
    *again = true;
    co_return TunnelResult{.reason = WEFT_R_CONNECT_FAILED};
  }
  std::string peer;
  Expiry expiry{};
  for (const Group::Connection& connection : GroupOf(key).connections) {
    if (connection.mux != mux) continue;
    peer = connection.peer_identity;
    expiry = connection.expiry;
  }
  if (options_.on_stream) options_.on_stream();
  {
    TunnelStream* waiting = stream.get();
    net::Deadline limit(executor_, Left(until),
                        [waiting] { waiting->Close(WEFT_R_CONNECT_TIMEOUT); });
    while (stream->status() == 0 && stream->reason() == WEFT_R_NONE) {
      co_await stream->Answered();
    }
  }
  if (stream->status() == 200 && stream->reason() == WEFT_R_NONE) {
    if (IsOver(expiry)) {  // nothing has been sent on it yet: another tunnel may do
      stream->Close(WEFT_R_CERT_EXPIRED);
      *again = true;
      co_return TunnelResult{.reason = WEFT_R_CERT_EXPIRED, .peer_identity = std::move(peer)};
    }
    co_return TunnelResult{
        .stream = std::move(stream), .peer_identity = std::move(peer), .expiry = expiry};
  }
  if (stream->status() != 0) {
    co_return TunnelResult{.reason = ReasonOfStatus(*stream),
                           .policy = stream->policy(),
                           .peer_identity = std::move(peer)};
  }
  *again = stream->retriable();
  co_return TunnelResult{.reason = stream->reason(), .peer_identity = std::move(peer)};
}

Task<TunnelResult> TunnelPool::Connect(TunnelRequest request) {
  Clock::time_point until = Clock::now() + request.timeout;
  TunnelKey key{.source_identity = request.source ? request.source->identity : std::string(),
                .source = request.source_address,
                .destination_identity = request.destination_identity,
                .destination = request.destination.ip};
  // Again only if the server did not process the request: the connection was just draining or full.
  constexpr int kAttempts = 3;
  TunnelResult result{.reason = WEFT_R_CONNECT_FAILED};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (closing_ != WEFT_R_NONE) co_return TunnelResult{.reason = closing_};
    bool again = false;
    result = co_await TryOnce(key, request, until, &again);
    if (!again || Clock::now() >= until) break;
  }
  co_return result;
}

void TunnelPool::Sweep() {
  auto now = Clock::now();
  for (auto& [key, group] : groups_) {
    for (const Group::Connection& connection : group->connections) {
      Mux* mux = connection.mux;
      if (mux->streams() == 0 && now - mux->idle_since() >= options_.idle_timeout)
        mux->StartDrain();
    }
  }
}

void TunnelPool::DrainSource(const std::string& source_identity, const IpAddress& source) {
  for (auto& [key, group] : groups_) {
    if (key.source_identity != source_identity || key.source != source) continue;
    for (const Group::Connection& connection : group->connections) connection.mux->StartDrain();
  }
}

void TunnelPool::CloseDrained(const std::string& source_identity, const IpAddress& source,
                              Reason reason) {
  for (auto& [key, group] : groups_) {
    if (key.source_identity != source_identity || key.source != source) continue;
    for (const Group::Connection& connection : group->connections) {
      if (connection.mux->draining()) connection.mux->Close(reason);
    }
  }
}

void TunnelPool::StartDrain() {
  for (auto& [key, group] : groups_) {
    for (const Group::Connection& connection : group->connections) connection.mux->StartDrain();
  }
}

void TunnelPool::Close(Reason reason) {
  closing_ = reason;
  for (auto& [key, group] : groups_) {
    for (const Group::Connection& connection : group->connections) connection.mux->Close(reason);
    WakeWaiters(*group, reason);
  }
}

Task<void> TunnelPool::Closed() {
  while (connections_ > 0) co_await ended_.Wait();
}

std::vector<TunnelPool::Info> TunnelPool::List() const {
  std::vector<Info> result;
  for (const auto& [key, group] : groups_) {
    for (const Group::Connection& connection : group->connections) {
      result.push_back({key, connection.mux->streams(), connection.mux->draining()});
    }
  }
  return result;
}

}  // namespace weft::tunnel
