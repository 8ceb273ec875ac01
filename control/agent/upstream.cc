// SPDX-License-Identifier: Apache-2.0
// Agent: configuration comes from weft-control, is mirrored for the node's proxies, and compiled
// for the kernel.
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "control/agent/agent.h"
#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/net/tcp_stream.h"

namespace weft::agent {
namespace {

constexpr std::chrono::seconds kDialTimeout{5};

Task<net::StatusOrStream> DialPlain(asio::any_io_executor executor, std::string target) {
  auto stream = co_await net::Dial(executor, target, kDialTimeout);
  co_return stream;
}

std::string Now() {
  char text[32];
  const time_t now = time(nullptr);
  tm parts{};
  gmtime_r(&now, &parts);
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

void Agent::OnTaskEnd(std::exception_ptr failure) {
  if (failure) WEFT_BUG("a task of the agent ended by an exception");
}

void Agent::StartUpstream() {
  if (certificates_) {
    auto roots = tls::CertificatesFromPem(root_pem_);
    if (roots.ok()) {
      xds::CacheBatch batch;
      batch.Put(xds::Encode(
          model::TrustBundle{.trust_domain = options_.trust_domain, .roots = std::move(*roots)}));
      cache_.Apply(std::move(batch));
    } else {
      LogError("the mesh's root is unreadable",
               {{"file", options_.control_root}, {"error", std::string(roots.status().message())}});
    }
    asio::co_spawn(io_, certificates_->Run(), OnTaskEnd);
  }
  xds::ClientOptions client;
  client.variant = xds::Variant::kDelta;
  const asio::any_io_executor executor = io_.get_executor();
  if (certificates_) {
    client.connect = [this] { return certificates_->ConnectToControl(); };
  } else {
    client.connect = [executor, target = options_.xds_plaintext] {
      return DialPlain(executor, target);
    };
  }
  client.authority = certificates_ ? options_.control : options_.xds_plaintext;
  client.node_id = options_.node;
  client.node_cluster = "weft-agent";
  client.wildcard_types = xds::AgentTypes();
  client.policy_types = xds::PolicyTypes();
  // A first connection is tried before the node has joined; the pause after it should not be felt.
  client.backoff_base = std::chrono::milliseconds(100);
  client.backoff_cap = std::chrono::milliseconds(10000);
  source_ = std::make_unique<xds::SnapshotSource>(
      executor, std::move(client),
      xds::SnapshotSource::Callbacks{
          .on_snapshot = [this](std::shared_ptr<const model::Snapshot> s) { OnSnapshot(s); },
          .on_update = [this](const xds::Update& update) { Mirror(update); }});
  asio::co_spawn(io_, source_->Run(), OnTaskEnd);
}

void Agent::Mirror(const xds::Update& update) {
  // The kernel's policies: no proxy asks for them.
  if (update.type_url == xds::kNetworkPolicyType || update.type_url == xds::kProcessPolicyType) {
    return;
  }
  xds::CacheBatch batch;
  for (const xds::Update::Changed& changed : update.changed) {
    batch.sets.push_back({update.type_url, changed.name, changed.version, changed.bytes});
  }
  for (const std::string& name : update.removed) batch.Remove(update.type_url, name);
  cache_.Apply(std::move(batch));
}

void Agent::OnSnapshot(std::shared_ptr<const model::Snapshot> snapshot) {
  snapshot_ = std::move(snapshot);
  Reconcile();
}

void Agent::OnCertificate(const model::Certificate& certificate) {
  xds::CacheBatch batch;
  batch.Put(xds::Encode(certificate));
  cache_.Apply(std::move(batch));
  Reconcile();
}

// A proxy that was adopted still has everything; an agent that knows less must not tell it to
// forget. So it is served once every workload got as far as it can without a proxy.
void Agent::MaybeServeProxies() {
  if (xds_acceptor_ || !snapshot_) return;
  if (proxy_.adopted && std::ranges::any_of(workloads_, [](const auto& item) {
        return item.second.state == State::kWaitsForCertificate;
      })) {
    return;
  }
  const absl::Status status = ServeProxies();
  if (!status.ok())
    LogError("cannot serve the proxies", {{"error", std::string(status.message())}});
}

absl::Status Agent::ServeProxies() {
  const std::string path = options_.Path("xds.sock");
  WEFT_ASSIGN_OR_RETURN(const int fd, net::ListenUnix(path, 0600));
  if (chown(path.c_str(), options_.proxy_uid, options_.proxy_uid) != 0) {
    return ErrnoStatus(errno, "chown " + path);
  }
  server_options_ = std::make_shared<xds::ServerOptions>();
  server_options_->cache = &cache_;
  server_options_->on_nack = [this](const xds::AdsNack& nack) {
    last_nack_ = LastNack{nack.type_url, nack.error, "weft-proxy", Now()};
    LogWarning("the proxy refused configuration", {{"type", nack.type_url}, {"error", nack.error}});
  };
  xds_acceptor_ =
      std::make_unique<net::Acceptor>(io_.get_executor(), fd, [this](int accepted, SocketAddress) {
        const int64_t uid = ipc::PeerUid(accepted);
        if (uid != 0 && uid != options_.proxy_uid) {
          LogWarning("a stranger knocked at xds.sock", {{"uid", std::to_string(uid)}});
          close(accepted);
          return;
        }
        auto stream = net::MakeSocketStream(io_.get_executor(), accepted);
        asio::co_spawn(
            io_,
            xds::ServeGrpc(std::move(stream), xds::GrpcPeer{.address = "unix"}, server_options_),
            OnTaskEnd);
      });
  xds_acceptor_->Start();
  return absl::OkStatus();
}

}  // namespace weft::agent
