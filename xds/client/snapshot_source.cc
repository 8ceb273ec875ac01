// SPDX-License-Identifier: Apache-2.0
#include "xds/client/snapshot_source.h"

#include "proxy/net/deadline.h"

namespace weft::xds {
namespace {

std::vector<std::string> Strings(std::initializer_list<std::string_view> in) {
  return std::vector<std::string>(in.begin(), in.end());
}

}  // namespace

std::vector<std::string> StandaloneTypes() { return Strings({kClusterType, kListenerType}); }

std::vector<std::string> AgentTypes() {
  return Strings({kClusterType, kListenerType, kAuthorizationType, kAddressType});
}

std::vector<std::string> PolicyTypes() { return Strings({kNetworkPolicyType, kProcessPolicyType}); }

std::vector<std::string> ProxyTypes() {
  return Strings({kClusterType, kListenerType, kAuthorizationType, kAddressType, kTrustBundleType,
                  kCertificateType, kLocalWorkloadType});
}

struct SnapshotSource::State {
  State(asio::any_io_executor executor_in, ClientOptions options, Callbacks callbacks_in)
      : executor(executor_in),
        callbacks(std::move(callbacks_in)),
        builder(
            {.required_types = options.wildcard_types, .policy_types = options.policy_types},
            [this](std::string_view type_url, std::set<std::string> names) {
              client.SetNames(type_url, std::move(names));
            },
            [this](std::shared_ptr<const model::Snapshot> snapshot) {
              if (callbacks.on_snapshot) callbacks.on_snapshot(std::move(snapshot));
            }),
        client(executor_in, std::move(options), [this](const Update& update) { Apply(update); }) {}

  void Apply(const Update& update) {
    if (callbacks.on_update) callbacks.on_update(update);
    builder.Apply(update, SnapshotBuilder::Clock::now());
    Arm();
  }
  void Arm() {
    const auto deadline = builder.next_deadline();
    timer.reset();
    if (!deadline) return;
    const auto wait =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline - SnapshotBuilder::Clock::now());
    timer = std::make_unique<net::Deadline>(executor, std::max(wait, std::chrono::milliseconds(1)),
                                            [this] {
                                              builder.OnTimer(SnapshotBuilder::Clock::now());
                                              Arm();
                                            });
  }

  asio::any_io_executor executor;
  Callbacks callbacks;
  SnapshotBuilder builder;
  Client client;
  std::unique_ptr<net::Deadline> timer;
};

SnapshotSource::SnapshotSource(asio::any_io_executor executor, ClientOptions options,
                               Callbacks callbacks)
    : state_(
          std::make_shared<State>(std::move(executor), std::move(options), std::move(callbacks))) {}

SnapshotSource::~SnapshotSource() = default;

Task<void> SnapshotSource::Run() {
  const std::shared_ptr<State> keep = state_;
  co_await keep->client.Run();
}

void SnapshotSource::Stop() { state_->client.Stop(); }
ClientStatus SnapshotSource::status() const { return state_->client.status(); }
std::vector<Warming> SnapshotSource::warming() const { return state_->builder.warming(); }
std::shared_ptr<const model::Snapshot> SnapshotSource::current() const {
  return state_->builder.current();
}

}  // namespace weft::xds
