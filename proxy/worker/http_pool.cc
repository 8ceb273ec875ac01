// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/http_pool.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>

#include "proxy/tunnel/mux.h"
#include "proxy/worker/exchange.h"

namespace weft::worker {

using upstream::Limit;

namespace {

class TaskCount final {
 public:
  explicit TaskCount(uint32_t& count) : count_(count) { ++count_; }
  ~TaskCount() { --count_; }
  TaskCount(const TaskCount&) = delete;
  TaskCount& operator=(const TaskCount&) = delete;

 private:
  uint32_t& count_;
};

}  // namespace

HttpPool::HttpPool(HttpServicesState& services, const HttpPoolKey& key,
                   upstream::ClusterRef cluster, upstream::HostRef host,
                   std::shared_ptr<const model::LocalWorkload> source, SocketAddress client)
    : services_(services),
      key_(key),
      cluster_(std::move(cluster)),
      host_(std::move(host)),
      source_(std::move(source)),
      client_(client) {}

HttpPool::~HttpPool() = default;

HttpPool::Acquired HttpPool::Acquire(Exchange& exchange, bool fresh) {
  UpstreamConnection* connection = fresh ? nullptr : TakeReady();
  if (connection != nullptr) {
    exchange.OnConnection(*connection);
    return Acquired::kNow;
  }
  if (!cluster_->TryAdmit(Limit::kPending)) return Acquired::kOverflow;
  pending_.push_back(&exchange);
  EnsureConnecting();
  return Acquired::kQueued;
}

UpstreamConnection* HttpPool::TakeReady() {
  while (!ready_.empty()) {
    UpstreamConnection* connection = ready_.back();
    if (connection->expired()) {
      Drain(*connection);
      continue;
    }
    const bool usable = connection->CanTakeRequest();
    if (!usable || !key_.http2) Unready(*connection);  // HTTP/1: busy from now on
    if (usable) return connection;
  }
  return nullptr;
}

void HttpPool::Cancel(Exchange& exchange) {
  auto it = std::find(pending_.begin(), pending_.end(), &exchange);
  if (it == pending_.end()) return;
  pending_.erase(it);
  cluster_->Release(Limit::kPending);
}

Exchange* HttpPool::NextPending() {
  if (pending_.empty()) return nullptr;
  Exchange* exchange = pending_.front();
  pending_.pop_front();
  cluster_->Release(Limit::kPending);
  return exchange;
}

// One connection for each request that waits (HTTP/2: one for all). Beyond max_connections only a
// pool without any connection makes one, as in Envoy: otherwise an endpoint could stay unreachable
// because others hold idle ones.
void HttpPool::EnsureConnecting() {
  while (connecting_ < (key_.http2 ? std::min<size_t>(pending_.size(), 1) : pending_.size())) {
    if (connecting_ == 0 && connections_.empty()) {
      if (!cluster_->TryAdmit(Limit::kConnections)) cluster_->AdmitAlways(Limit::kConnections);
    } else if (!cluster_->TryAdmit(Limit::kConnections)) {
      return;
    }
    ++connecting_;
    asio::co_spawn(services_.executor, Connect(), asio::detached);
  }
}

Task<void> HttpPool::Connect() {
  HttpServicesState::Alive alive(services_);
  const TaskCount count(tasks_);  // destroyed after the connection, which refers to this pool
  // co_spawn() runs it at once up to here: not inside whoever asked for a connection.
  co_await asio::post(services_.executor, asio::use_awaitable);
  ConnectRequest request;
  request.source = source_;
  request.client = client_;
  request.destination = host_->address();
  request.cluster = cluster_->shared_config();
  request.in_mesh = host_->endpoint().in_mesh;
  const upstream::ClusterRef cluster = cluster_;  // its row must outlive the release below
  ConnectResult result = co_await services_.options.connector->Connect(std::move(request));
  services_.UpdateNow();
  if (services_.stopping && result.stream) {
    result = ConnectResult{.reason = WEFT_R_DRAINING};
  } else if (result.stream && tunnel::IsOver(result.expiry, services_.WallNow())) {
    result = ConnectResult{.reason = WEFT_R_CERT_EXPIRED};
  }
  if (!result.stream) {
    cluster->Release(Limit::kConnections);
    Count(services_.counters.upstream_connect_failures);
    OnConnectFailed(result.reason, result.policy);
    services_.FlushDirty();
    co_return;
  }
  auto session = key_.http2 ? http::MakeHttp2Session(http::Role::kClient, services_.options.limits)
                            : http::MakeHttp1Session(http::Role::kClient, services_.options.limits);
  UpstreamConnection connection(services_, *this, std::move(result.stream), std::move(session),
                                std::move(result.peer_identity), result.expiry);
  OnConnected(connection);
  co_await connection.Serve();
  cluster->Release(Limit::kConnections);
  EnsureConnecting();  // a place is free for those who wait
  services_.FlushDirty();
}

void HttpPool::OnConnected(UpstreamConnection& connection) {
  --connecting_;
  connections_.push_back(&connection);
  Count(services_.counters.upstream_connections);
  Count(services_.counters.upstream_active);
  if (const auto left = tunnel::UntilExpiry(connection.expiry_, services_.WallNow());
      left.count() > 0) {
    services_.SetTimer(connection.expiry_timer_, services_.now + left);
  }
  OnReady(connection);
}

void HttpPool::OnConnectFailed(Reason reason, const std::string& policy) {
  --connecting_;
  // A verdict is for all who wait; a failure for the one who would have got the connection, or for
  // all if none is coming.
  const bool for_all = reason == WEFT_R_POLICY_DENIED || reason == WEFT_R_POLICY_DEFAULT_DENIED ||
                       (key_.http2 && connecting_ == 0);
  size_t failing = for_all ? pending_.size() : std::min<size_t>(pending_.size(), 1);
  while (failing-- > 0) {
    Exchange* exchange = NextPending();
    if (exchange == nullptr) break;
    exchange->OnConnectFailed(reason, policy);
  }
  EnsureConnecting();
}

void HttpPool::OnReady(UpstreamConnection& connection) {
  while (connection.CanTakeRequest()) {
    Exchange* exchange = NextPending();
    if (exchange == nullptr) break;
    Unready(connection);
    exchange->OnConnection(connection);
  }
  EnsureConnecting();
  if (connection.closed() || connection.draining_) return Unready(connection);
  if (connection.expired()) return Drain(connection);
  if (host_->removed() && connection.streams() == 0) return connection.Close(WEFT_R_CLOSED);
  if (connection.streams() == 0 && !connection.idle_timer_.is_set()) {
    services_.SetTimer(connection.idle_timer_,
                       services_.now + services_.options.upstream_idle_timeout);
  }
  if (connection.ready_ || !connection.CanTakeRequest()) return;
  connection.ready_ = true;
  ready_.push_back(&connection);
}

void HttpPool::Unready(UpstreamConnection& connection) {
  if (!connection.ready_) return;
  connection.ready_ = false;
  if (ready_.back() == &connection) return ready_.pop_back();
  ready_.erase(std::find(ready_.begin(), ready_.end(), &connection));
}

void HttpPool::Drain() {
  const std::vector<UpstreamConnection*> all = connections_;
  for (UpstreamConnection* connection : all) Drain(*connection);
}

void HttpPool::Drain(UpstreamConnection& connection) {
  connection.draining_ = true;
  Unready(connection);
  if (connection.streams() == 0) connection.Close(WEFT_R_CLOSED);
}

void HttpPool::DrainPlaintext(const model::Snapshot& snapshot) {
  const IpAddress& ip = host_->address().ip;
  const model::Workload* workload = snapshot.FindWorkload(ip);
  if (!snapshot.IsMarked(ip) && (workload == nullptr || !workload->hbone)) return;
  const std::vector<UpstreamConnection*> all = connections_;
  for (UpstreamConnection* connection : all) {
    if (connection->peer_identity().empty()) Drain(*connection);
  }
}

void HttpPool::CloseAll(Reason reason) {
  const std::vector<UpstreamConnection*> all = connections_;
  for (UpstreamConnection* connection : all) connection->Close(reason);
}

UpstreamConnection::UpstreamConnection(HttpServicesState& services, HttpPool& pool,
                                       std::unique_ptr<net::Stream> stream,
                                       std::unique_ptr<http::Session> session,
                                       std::string peer_identity,
                                       std::chrono::system_clock::time_point expiry)
    : HttpConnection(services, std::move(stream), std::move(session)),
      pool_(pool),
      peer_identity_(std::move(peer_identity)),
      expiry_(expiry),
      idle_timer_(
          [](void* self) { static_cast<UpstreamConnection*>(self)->Close(WEFT_R_IDLE_TIMEOUT); },
          this),
      expiry_timer_(
          [](void* self) {
            auto* connection = static_cast<UpstreamConnection*>(self);
            connection->pool_.Drain(*connection);
          },
          this) {}

UpstreamConnection::~UpstreamConnection() { Count(services_.counters.upstream_active, -1); }

Task<void> UpstreamConnection::Serve() {
  co_await Run();
  pool_.Unready(*this);
  std::erase(pool_.connections_, this);
  idle_timer_.Clear();
  expiry_timer_.Clear();
  services_.UpdateNow();
  FailStreams(close_reason());
  services_.FlushDirty();
}

bool UpstreamConnection::expired() const { return tunnel::IsOver(expiry_, services_.WallNow()); }

bool UpstreamConnection::CanTakeRequest() const {
  if (closed() || draining_ || session_->finished() || expired()) return false;
  const uint32_t limit = pool_.cluster_->config().max_requests_per_connection;
  if (limit != 0 && requests_ >= limit) return false;
  return session_->can_open_stream() && (session_->is_http2() || streams_.empty());
}

http::StreamId UpstreamConnection::Attach(Exchange& exchange, const http::RequestHead& head,
                                          bool end_stream) {
  const http::StreamId id = session_->SubmitRequest(head, end_stream);
  if (id == 0) return 0;
  idle_timer_.Clear();
  ++requests_;
  streams_.push_back({id, &exchange});
  MarkDirty();
  return id;
}

void UpstreamConnection::Detach(http::StreamId id, bool complete) {
  std::erase_if(streams_, [id](const Stream& s) { return s.id == id; });
  if (closed()) return;
  if (!complete) {
    if (!session_->is_http2()) return Close(WEFT_R_PEER_RESET);
    session_->Reset(id, http::ResetCode::kCancel);
  }
  MarkDirty();
}

void UpstreamConnection::Forget(http::StreamId id) {
  std::erase_if(streams_, [id](const Stream& s) { return s.id == id; });
  MarkDirty();
}

Exchange* UpstreamConnection::Find(http::StreamId id) {
  auto it = std::lower_bound(streams_.begin(), streams_.end(), id,
                             [](const Stream& s, http::StreamId wanted) { return s.id < wanted; });
  return it != streams_.end() && it->id == id ? it->exchange : nullptr;
}

void UpstreamConnection::OnEvent(http::Event& event) {
  if (event.kind == http::Event::Kind::kGoAway) {
    draining_ = true;
    return pool_.Unready(*this);
  }
  Exchange* exchange = Find(event.stream);
  if (exchange == nullptr) {  // cancelled: nobody waits for it
    if (event.kind == http::Event::Kind::kData) session_->Consume(event.stream, event.data.size());
    return;
  }
  exchange->OnUpstreamEvent(event);
}

void UpstreamConnection::AfterBatch() {
  // Indexed: an exchange may end, and leave the list, when told.
  for (size_t i = streams_.size(); i-- > 0;) {
    if (i < streams_.size()) streams_[i].exchange->OnUpstreamProgress();
  }
  if (closed()) return;
  const uint32_t limit = pool_.cluster_->config().max_requests_per_connection;
  if (limit != 0 && requests_ >= limit) draining_ = true;
  if (streams_.empty() && used() && (draining_ || session_->finished()))
    return Close(WEFT_R_CLOSED);
  // An HTTP/1 connection that has no request but can take none has lost its framing.
  if (streams_.empty() && used() && !session_->is_http2() && !session_->can_open_stream())
    return Close(WEFT_R_CLOSED);
  if (CanTakeRequest()) pool_.OnReady(*this);
}

void UpstreamConnection::OnEof() { Close(WEFT_R_UPSTREAM_RESET); }

void UpstreamConnection::FailStreams(Reason reason) {
  while (!streams_.empty()) {
    Exchange* exchange = streams_.back().exchange;
    streams_.pop_back();
    exchange->OnUpstreamGone(reason, http::ResetCode::kNoError);
  }
}

}  // namespace weft::worker
