// SPDX-License-Identifier: Apache-2.0
// Two nodes of a mesh in one process and on one thread: real sockets on 127.x.y.z, real TLS, no
// kernel programs. Each node serves one workload, whose address is a loopback address of its own,
// so that its ports 15001, 15006, 15008 and 15053 are free.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bpf/abi.h"
#include "proxy/net/dial.h"
#include "proxy/net/io.h"
#include "proxy/net/listen.h"
#include "proxy/net/local_sockets.h"
#include "proxy/net/tcp_stream.h"
#include "proxy/tls/local_signer.h"
#include "proxy/worker/accept_points.h"
#include "proxy/worker/mesh_connector.h"
#include "proxy/worker/outbound.h"
#include "tests/support/cert_factory.h"

namespace weft::worker {

using namespace std::chrono_literals;  // NOLINT: tests

inline const char kAlice[] = "spiffe://cluster.local/ns/prod/sa/alice";
inline const char kBob[] = "spiffe://cluster.local/ns/prod/sa/bob";
inline const char kMallory[] = "spiffe://cluster.local/ns/evil/sa/mallory";

// Loopback addresses that no other test of this machine uses at the same time: 127.(pid).n.
inline IpAddress TestIp(int n) {
  int pid = getpid();
  return *IpAddress::Parse("127." + std::to_string(64 + pid % 128) + "." +
                           std::to_string(pid / 128 % 256) + "." + std::to_string(n));
}

// Sockets as weft-sockets would give them: those of a workload leave from its address.
class WorkloadSockets final : public net::SocketSource {
 public:
  explicit WorkloadSockets(IpAddress ip) : ip_(ip) {}
  Task<Result> Take(net::SocketRequest request) override {
    ++taken[request.kind];
    Result result = co_await local_.Take(request);
    if (result.fd >= 0 && request.kind == net::SocketKind::kTunnel) {
      sockaddr_storage address;
      socklen_t length = SocketAddress{ip_, 0}.ToSockaddr(request.family, &address);
      EXPECT_EQ(bind(result.fd, reinterpret_cast<sockaddr*>(&address), length), 0);
    }
    co_return result;
  }
  Task<std::vector<int>> Listeners(uint32_t, uint32_t) override {
    std::vector<int> fds;
    for (uint16_t port : {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS}) {
      auto fd = net::ListenTcp({ip_, port});
      EXPECT_TRUE(fd.ok()) << fd.status();
      if (fd.ok()) fds.push_back(*fd);
    }
    const int datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_storage address;
    const socklen_t length = SocketAddress{ip_, WEFT_PORT_DNS}.ToSockaddr(AF_INET, &address);
    EXPECT_EQ(bind(datagrams, reinterpret_cast<sockaddr*>(&address), length), 0);
    fds.push_back(datagrams);
    co_return fds;
  }
  Reason Permit(int fd, const SocketAddress& destination) override {
    EXPECT_GE(fd, 0);
    const Reason answer = denied.contains(destination) ? WEFT_R_POLICY_DENIED : WEFT_R_NONE;
    if (on_permit) on_permit();
    return answer;
  }
  std::map<net::SocketKind, int> taken;
  std::set<SocketAddress> denied;   // by the network policy that a kernel would have
  std::function<void()> on_permit;  // after each answer

 private:
  IpAddress ip_;
  net::LocalSocketSource local_;
};

// Signs for any identity, with the key that belongs to the key id.
class KeyedSigner final : public tls::KeySigner {
 public:
  void Add(uint64_t key_id, std::unique_ptr<tls::LocalSigner> signer) {
    signers_[key_id] = std::move(signer);
  }
  void Sign(std::string_view identity, uint64_t key_id, std::span<const uint8_t> input,
            Done done) override {
    signers_.at(key_id)->Sign(identity, key_id, input, std::move(done));
  }

 private:
  std::map<uint64_t, std::unique_ptr<tls::LocalSigner>> signers_;
};

struct TestNode {
  TestNode(asio::io_context& io, IpAddress ip_in, std::string identity_in, uint32_t id)
      : ip(ip_in),
        identity(std::move(identity_in)),
        sockets(ip),
        state(io.get_executor(), sockets, &signer),
        connector(state),
        table(*upstream::NodeTable::Create({.clusters = 64, .endpoints = 64})),
        http(io.get_executor(), {.connector = &connector, .table = table.get()}),
        tunnels(io.get_executor(), connector, {.scratch = state.scratch}),
        accepts(state, false, true, nullptr) {
    state.http = &http;
    state.tunnels = &tunnels;
    state.connector = &connector;
    auto workload = std::make_shared<model::LocalWorkload>();
    workload->uid = "cluster//Pod/" + identity;
    workload->id = id;
    workload->identity = identity;
    workload->addresses = {ip};
    workload->namespace_name = "prod";
    workload->name = "pod-" + std::to_string(id);
    workload->policy_epoch = 1;
    local = workload;
  }
  SocketAddress At(uint16_t port) const { return {ip, port}; }

  IpAddress ip;
  std::string identity;
  KeyedSigner signer;
  WorkloadSockets sockets;
  WorkerState state;
  MeshConnector connector;
  std::unique_ptr<upstream::NodeTable> table;
  HttpServices http;
  tunnel::TunnelPool tunnels;
  AcceptPoints accepts;
  std::shared_ptr<const model::LocalWorkload> local;
};

// An application that accepts, and an address where it does.
class App {
 public:
  App(asio::io_context& io, IpAddress ip)
      : acceptor_(io.get_executor(), *net::ListenTcp({ip, 0}), [this, &io](int fd, SocketAddress) {
          accepted.push_back(net::MakeSocketStream(io.get_executor(), fd));
        }) {
    acceptor_.Start();
  }
  SocketAddress address() const { return acceptor_.address(); }
  std::vector<std::unique_ptr<net::Stream>> accepted;

 private:
  net::Acceptor acceptor_;
};

class MeshWorld : public testing::Test {
 protected:
  MeshWorld() { Publish(); }
  ~MeshWorld() override {
    apps_.clear();
    for (TestNode* node : {&a_, &b_}) {
      node->accepts.CloseAll();
      node->state.connections.CloseAll(WEFT_R_DRAINING);
      node->tunnels.Close(WEFT_R_CLOSED);
    }
    bool down = false;
    for (TestNode* node : {&a_, &b_}) {
      down = false;
      asio::co_spawn(io_, node->http.Shutdown(), [&](std::exception_ptr) { down = true; });
      EXPECT_TRUE(RunUntil([&] { return down; }));
      EXPECT_TRUE(RunUntil(
          [&] { return node->state.gate.in_flight() == 0 && node->tunnels.connections() == 0; }));
      EXPECT_EQ(node->state.connections.size(), 0u);
    }
  }

  // Runs the loop until the condition holds; false after 5 s.
  template <typename Condition>
  bool RunUntil(Condition done) {
    auto end = std::chrono::steady_clock::now() + 5s;
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_one_for(50ms);
    }
    return true;
  }
  template <typename T>
  T Await(Task<T> task) {
    std::optional<T> result;
    asio::co_spawn(io_, std::move(task), [&](std::exception_ptr error, T value) {
      EXPECT_FALSE(error);
      result = std::move(value);
    });
    EXPECT_TRUE(RunUntil([&] { return result.has_value(); }));
    return result ? std::move(*result) : T();
  }

  void AddCertificate(TestNode& node, const std::string& identity, uint64_t key_id,
                      int64_t lifetime_seconds = 3600) {
    test::TestCert cert =
        test::MakeCert({.uris = {identity}, .not_after_seconds = lifetime_seconds}, &root_);
    node.signer.Add(key_id, *tls::LocalSigner::Create(io_.get_executor(), cert.key_pem()));
    auto certificate = std::make_shared<model::Certificate>();
    certificate->identity = node.identity;
    certificate->key_id = key_id;
    certificate->chain = {cert.der()};
    certificates_[&node] = certificate;
  }
  std::shared_ptr<model::Workload> AddWorkload(const TestNode& node, const std::string& sa) {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = node.local->uid;
    workload->name = node.local->name;
    workload->namespace_name = "prod";
    workload->service_account = sa;
    workload->trust_domain = "cluster.local";
    workload->addresses = {node.ip};
    workload->hbone = true;
    workloads_[workload->uid] = workload;
    return workload;
  }
  // What both nodes know from now on.
  void Publish() {
    auto bundle = std::make_shared<model::TrustBundle>();
    bundle->trust_domain = "cluster.local";
    bundle->roots = {root_.der()};
    for (TestNode* node : {&a_, &b_}) {
      auto snapshot = std::make_shared<model::Snapshot>();
      snapshot->sequence = ++sequence_;
      snapshot->trust_bundles[bundle->trust_domain] = bundle;
      snapshot->workloads.insert(workloads_.begin(), workloads_.end());
      snapshot->authorizations.insert(policies_.begin(), policies_.end());
      snapshot->services.insert(services_.begin(), services_.end());
      snapshot->listeners.insert(listeners_.begin(), listeners_.end());
      snapshot->clusters.insert(clusters_.begin(), clusters_.end());
      snapshot->endpoints.insert(endpoints_.begin(), endpoints_.end());
      snapshot->local_workloads[node->local->uid] = node->local;
      if (certificates_[node]) snapshot->certificates[node->identity] = certificates_[node];
      snapshot->Finish();
      node->state.Adopt(snapshot);
      node->accepts.Adopt([](const std::string&, uint32_t) {});
    }
  }
  // What the agent tells the proxy when the kernel's network policy of its workload has changed.
  void PolicyChanged(TestNode& node) {
    auto changed = std::make_shared<model::LocalWorkload>(*node.local);
    changed->policy_epoch += 1;
    node.local = changed;
    Publish();
  }
  void Listen() {
    ASSERT_TRUE(
        RunUntil([&] { return a_.accepts.bound().size() == 4 && b_.accepts.bound().size() == 4; }));
  }
  void DenyPort(uint16_t port) {
    auto policy = std::make_shared<model::Authorization>();
    policy->name = "deny-" + std::to_string(port);
    policy->namespace_name = "prod";
    policy->scope = model::Authorization::Scope::kNamespace;
    policy->action = model::Authorization::Action::kDeny;
    model::Authorization::Match match;
    match.destination_ports = {port};
    policy->groups = {{{match}}};
    policies_[policy->Key()] = policy;
  }
  App& StartApp(IpAddress ip) {
    apps_.push_back(std::make_unique<App>(io_, ip));
    return *apps_.back();
  }
  ConnectResult ConnectFromA(SocketAddress destination) {
    return Await(a_.connector.Connect({.source = a_.local,
                                       .client = {a_.ip, 40000},
                                       .destination = destination,
                                       .cluster = nullptr}));
  }
  void Write(net::Stream& stream, std::string_view text) {
    EXPECT_EQ(Await(net::WriteAll(stream, text)).status, net::IoStatus::kOk);
  }
  std::string Read(net::Stream& stream, size_t bytes) {
    std::string got;
    std::vector<uint8_t> buffer(16384);
    while (got.size() < bytes) {
      net::IoResult r = Await(net::ReadSome(stream, buffer));
      if (r.status == net::IoStatus::kEof) return got + "<eof>";
      if (r.status != net::IoStatus::kOk)
        return got + "<" + std::string(ReasonName(r.reason)) + ">";
      got.append(reinterpret_cast<char*>(buffer.data()), r.bytes);
    }
    return got;
  }
  std::unique_ptr<net::Stream> Dial(SocketAddress address) {
    auto stream = Await(DialAsPointer(address));
    EXPECT_NE(stream, nullptr);
    return stream;
  }
  uint64_t Closed(const TestNode& node, Reason reason) {
    return node.state.telemetry.counters.closes[reason].value();
  }

  asio::io_context io_{1};
  test::TestCert root_ = test::MakeRoot();
  TestNode a_{io_, TestIp(1), kAlice, 1};
  TestNode b_{io_, TestIp(2), kBob, 2};
  std::vector<std::unique_ptr<App>> apps_;
  model::Named<model::Workload> workloads_;
  model::Named<model::Authorization> policies_;
  model::Named<model::Service> services_;
  model::Named<model::Listener> listeners_;
  model::Named<model::Cluster> clusters_;
  model::Named<model::Endpoints> endpoints_;

 private:
  Task<std::unique_ptr<net::Stream>> DialAsPointer(SocketAddress address) {
    auto stream = co_await net::DialTcp(io_.get_executor(), address, 2s);
    co_return stream.ok() ? *std::move(stream) : nullptr;
  }
  std::map<TestNode*, std::shared_ptr<const model::Certificate>> certificates_;
  uint64_t sequence_ = 0;
};

// Both nodes enrolled: certificates, workloads, listeners.
class TwoNodes : public MeshWorld {
 protected:
  TwoNodes() {
    AddCertificate(a_, kAlice, 1);
    AddCertificate(b_, kBob, 2);
    AddWorkload(a_, "alice");
    AddWorkload(b_, "bob");
    Publish();
    Listen();
  }
};

}  // namespace weft::worker
