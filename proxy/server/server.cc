// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/server.h"

#include <csignal>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <random>
#include <thread>
#include <utility>

#include "proxy/base/log.h"
#include "proxy/ipc/remote_signer.h"
#include "proxy/ipc/remote_sockets.h"
#include "proxy/net/dial.h"
#include "proxy/net/listen.h"
#include "proxy/net/local_sockets.h"
#include "proxy/route/router.h"
#include "proxy/server/sandbox.h"

namespace weft::server {
namespace {

constexpr std::chrono::milliseconds kXdsConnectTimeout{5000};

Task<absl::StatusOr<std::unique_ptr<net::Stream>>> DialTarget(asio::any_io_executor executor,
                                                              std::string target) {
  auto stream = co_await net::Dial(executor, target, kXdsConnectTimeout);
  co_return stream;
}

Task<void> RunSource(xds::SnapshotSource& source) { co_await source.Run(); }

}  // namespace

struct Server::Signals {
  explicit Signals(asio::io_context& io) : set(io, SIGTERM, SIGINT) {}
  asio::signal_set set;
  std::thread joiner;  // waits for the workers at the end
};

Server::Server(Config config) : config_(std::move(config)) {}

Server::~Server() {
  if (signals_ && signals_->joiner.joinable()) signals_->joiner.join();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(Config config) {
  std::unique_ptr<Server> server(new Server(std::move(config)));
  WEFT_RETURN_IF_ERROR(server->Open());
  return server;
}

absl::StatusOr<xds::ConnectFunction> Server::XdsConnect() {
  if (config_.xds.starts_with("unix:")) {
    WEFT_ASSIGN_OR_RETURN(unix_dialer_,
                          UnixDialer::Create(io_.get_executor(), config_.xds.substr(5)));
    return xds::ConnectFunction([dialer = unix_dialer_.get()] { return dialer->Dial(); });
  }
  return xds::ConnectFunction([executor = asio::any_io_executor(io_.get_executor()),
                               target = config_.xds] { return DialTarget(executor, target); });
}

absl::Status Server::Open() {
  WEFT_ASSIGN_OR_RETURN(table_, upstream::NodeTable::Create({.workers = config_.workers}));
  WEFT_ASSIGN_OR_RETURN(xds::ConnectFunction connect, XdsConnect());
  xds::ClientOptions options{
      .variant = config_.xds_delta ? xds::Variant::kDelta : xds::Variant::kStateOfTheWorld,
      .connect = std::move(connect),
      .node_id = config_.node,
      .node_cluster = config_.cluster_id,
      .wildcard_types = config_.alone() ? xds::StandaloneTypes() : xds::ProxyTypes(),
      .decode = {.check_routes = route::ValidateRoutes}};
  // To an agent on the same node: come back at once after its restart.
  if (unix_dialer_) options.backoff_base = std::chrono::milliseconds(100);
  if (unix_dialer_) options.backoff_cap = std::chrono::milliseconds(2000);
  source_ = std::make_unique<xds::SnapshotSource>(
      io_.get_executor(), std::move(options),
      xds::SnapshotSource::Callbacks{
          .on_snapshot =
              [this](std::shared_ptr<const model::Snapshot> snapshot) {
                for (const auto& worker : workers_) worker->Adopt(snapshot);
              },
          .on_update = [this](const xds::Update& update) { OnUpdate(update); }});
  CreateWorkers();
  signals_ = std::make_unique<Signals>(io_);
  int admin_fd = config_.admin_fd;
  if (config_.admin) {
    WEFT_ASSIGN_OR_RETURN(admin_fd, net::ListenTcp(*config_.admin));
    LogInfo("admin", {{"address", net::LocalAddress(admin_fd).ToString()}});
  }
  if (admin_fd >= 0) {
    admin_ = std::make_unique<Admin>(AdminView{.executor = io_.get_executor(),
                                               .node = config_.node,
                                               .trust_domain = config_.trust_domain,
                                               .workers = &workers_,
                                               .source = source_.get(),
                                               .table = table_.get(),
                                               .versions = &versions_,
                                               .draining = [this] { return draining_; },
                                               .drain = [this] { Drain(); }},
                                     admin_fd);
  }
  return absl::OkStatus();
}

void Server::CreateWorkers() {
  std::random_device random;
  for (uint32_t index = 0; index < config_.workers; ++index) {
    worker::WorkerOptions options{.index = index,
                                  .alone = config_.alone(),
                                  .cluster_id = config_.cluster_id,
                                  .table = table_.get(),
                                  .seed = (static_cast<uint64_t>(random()) << 32) | random()};
    if (config_.alone()) {
      options.make_sockets = [](const asio::any_io_executor&) {
        return std::make_unique<net::LocalSocketSource>();
      };
    } else {
      options.make_sockets = [fd = config_.sockets_fds[index]](asio::any_io_executor executor) {
        return std::make_unique<ipc::RemoteSocketSource>(std::move(executor), fd);
      };
    }
    if (!config_.keyd_fds.empty()) {
      options.make_signer = [fd = config_.keyd_fds[index]](asio::any_io_executor executor) {
        return std::make_unique<ipc::RemoteSigner>(std::move(executor), fd);
      };
    }
    workers_.push_back(std::make_unique<worker::Worker>(std::move(options)));
  }
}

void Server::OnUpdate(const xds::Update& update) {
  std::map<std::string, std::string>& names = versions_[update.type_url];
  for (const xds::Update::Changed& changed : update.changed) names[changed.name] = changed.version;
  for (const std::string& removed : update.removed) names.erase(removed);
}

void Server::WatchSignals() {
  signals_->set.async_wait([this](boost::system::error_code error, int) {
    if (!error) Drain();
  });
}

void Server::Drain() {
  if (std::exchange(draining_, true)) return;
  LogInfo("draining");
  for (const auto& worker : workers_) worker->Drain(config_.drain_time);
}

absl::Status Server::Run() {
  bool sandbox = config_.sandbox || !config_.alone();
  if (sandbox || config_.uid >= 0 || config_.gid >= 0) {
    WEFT_RETURN_IF_ERROR(DropPrivileges({.uid = config_.uid, .gid = config_.gid}));
  }
  // The workers' threads, and one that waits for them, since nobody may start threads later.
  std::vector<worker::Worker*> all;
  for (const auto& worker : workers_) all.push_back(worker.get());
  for (worker::Worker* worker : all) worker->Start(all);
  signals_->joiner = std::thread([this, all] {
    for (worker::Worker* worker : all) worker->Join();
    asio::post(io_, [this] { io_.stop(); });
  });
  if (sandbox) {
    absl::Status filtered = FilterSyscalls({.may_make_sockets = config_.alone()});
    if (!filtered.ok()) {
      Drain();
      signals_->joiner.join();
      return filtered;
    }
  }
  WatchSignals();
  asio::co_spawn(io_, RunSource(*source_), [](std::exception_ptr error) {
    if (error) WEFT_BUG("exception in the xDS client");
  });
  io_.run();
  signals_->joiner.join();
  LogInfo("ended");
  return absl::OkStatus();
}

}  // namespace weft::server
