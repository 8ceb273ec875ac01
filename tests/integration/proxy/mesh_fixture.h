// SPDX-License-Identifier: Apache-2.0
// A node for weft-proxy in the mesh: this process plays weft-sockets, weft-keyd and weft-agent, and
// a peer node that comes with HBONE. Thread: the test's.
#pragma once
#include <sys/socket.h>

#include "bpf/abi.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"
#include "proxy/ipc/packet_channel.h"
#include "proxy/ipc/sockets_protocol.h"
#include "proxy/tls/local_signer.h"
#include "proxy/tls/tls_stream.h"
#include "proxy/tunnel/pool.h"
#include "tests/integration/proxy/proxy_process.h"
#include "tests/support/cert_factory.h"

namespace weft::test {

inline const char kAlice[] = "spiffe://cluster.local/ns/prod/sa/alice";
inline const char kBob[] = "spiffe://cluster.local/ns/prod/sa/bob";

inline IpAddress TestIp(int n) {
  int pid = getpid();
  return *IpAddress::Parse("127." + std::to_string(64 + pid % 128) + "." +
                           std::to_string(pid / 128 % 256) + "." + std::to_string(n));
}

// weft-sockets for one worker: gives sockets of this netns.
class FakeSockets {
 public:
  FakeSockets(asio::any_io_executor executor, int fd, IpAddress ip)
      : ip_(ip),
        channel_(
            executor, fd, sizeof(ipc::SocketsRequest) + 1,
            [this](std::span<const uint8_t> bytes, std::vector<int>) { return OnPacket(bytes); },
            [] {}) {}
  int listeners_asked = 0;

 private:
  int DnsDatagrams() {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_storage storage{};
    const socklen_t length = SocketAddress{ip_, WEFT_PORT_DNS}.ToSockaddr(AF_INET, &storage);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&storage), length), 0);
    return fd;
  }
  bool OnPacket(std::span<const uint8_t> bytes) {
    ipc::SocketsRequest request;
    if (bytes.size() != sizeof request) return false;
    memcpy(&request, bytes.data(), sizeof request);
    std::vector<int> fds;
    if (request.op == ipc::SocketsOp::kListeners) {
      ++listeners_asked;
      for (uint16_t port :
           {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS}) {
        fds.push_back(*net::ListenTcp({ip_, port}));
      }
      fds.push_back(DnsDatagrams());
    } else {
      for (uint32_t i = 0; i < request.count; ++i) {
        fds.push_back(socket(request.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      }
    }
    ipc::SocketsAnswer answer{.id = request.id, .count = static_cast<uint32_t>(fds.size())};
    // The channel cannot pass descriptors; the raw socket can.
    EXPECT_EQ(ipc::SendPacket(raw_, {reinterpret_cast<uint8_t*>(&answer), sizeof answer}, fds), 0);
    for (int f : fds) close(f);
    return true;
  }
  IpAddress ip_;
  ipc::PacketChannel channel_;

 public:
  int raw_ = -1;
};

// weft-keyd for one worker: signs with one key.
class FakeKeyd {
 public:
  FakeKeyd(asio::any_io_executor executor, int fd, const std::string& key_pem)
      : signer_(*tls::LocalSigner::Create(executor, key_pem)),
        channel_(
            executor, fd, ipc::kMaxKeydPacket,
            [this](std::span<const uint8_t> bytes, std::vector<int>) { return OnPacket(bytes); },
            [] {}) {}
  int signatures = 0;

 private:
  bool OnPacket(std::span<const uint8_t> bytes) {
    ipc::KeydRequest request;
    if (bytes.size() < sizeof request) return false;
    memcpy(&request, bytes.data(), sizeof request);
    signer_->Sign("", 0, bytes.subspan(sizeof request + request.identity_bytes),
                  [this, id = request.id](bool ok, std::vector<uint8_t> signature) {
                    ++signatures;
                    ipc::KeydAnswer answer{.id = id,
                                           .error = ok ? 0 : EPERM,
                                           .body_bytes = static_cast<uint32_t>(signature.size())};
                    std::vector<uint8_t> packet(sizeof answer);
                    memcpy(packet.data(), &answer, sizeof answer);
                    packet.insert(packet.end(), signature.begin(), signature.end());
                    channel_.Send(packet);
                  });
    return true;
  }
  std::unique_ptr<tls::LocalSigner> signer_;
  ipc::PacketChannel channel_;
};

// The peer node's way to the proxy under test.
class PeerDialer final : public tunnel::Dialer {
 public:
  PeerDialer(asio::io_context& io, std::shared_ptr<const tls::TlsContext> context)
      : io_(io), context_(std::move(context)) {}
  Task<tunnel::DialResult> Dial(tunnel::TunnelKey key, std::shared_ptr<const model::LocalWorkload>,
                                std::chrono::milliseconds timeout) override {
    auto tcp =
        co_await net::DialTcp(io_.get_executor(), {key.destination, WEFT_PORT_HBONE}, timeout);
    if (!tcp.ok()) co_return tunnel::DialResult{.reason = WEFT_R_CONNECT_FAILED};
    tls::TlsClientOptions options{.expected_identities = {key.destination_identity}};
    tls::HandshakeResult tls =
        co_await tls::TlsConnect(io_.get_executor(), *std::move(tcp), context_, options);
    co_return tunnel::DialResult{
        .stream = std::move(tls.stream), .reason = tls.reason, .peer_identity = tls.peer_identity};
  }

 private:
  asio::io_context& io_;
  std::shared_ptr<const tls::TlsContext> context_;
};

class Mesh : public ProxyTest {
 protected:
  static constexpr uint32_t kWorkers = 2;

  Mesh() {
    local_.uid = "cluster//Pod/prod/bob";
    local_.id = 1;
    local_.generation = 1;
    local_.identity = kBob;
    local_.addresses = {ip_};
    local_.namespace_name = "prod";
    local_.name = "bob";
    workload_.uid = local_.uid;
    workload_.name = "bob";
    workload_.namespace_name = "prod";
    workload_.service_account = "bob";
    workload_.trust_domain = "cluster.local";
    workload_.addresses = {ip_};
    workload_.hbone = true;
    certificate_ = {.identity = kBob,
                    .key_id = 1,
                    .chain = {cert_.der()},
                    .not_before = time(nullptr) - 60,
                    .not_after = time(nullptr) + 3600};
    bundle_ = {.trust_domain = "cluster.local", .roots = {root_.der()}};
  }
  ~Mesh() override {
    pool_->Close(WEFT_R_CLOSED);
    EXPECT_TRUE(RunUntil([&] { return pool_->connections() == 0; }));
  }

  // The proxy's end of a channel to weft-keyd.
  virtual int KeydChannel() {
    ipc::FdPair pair = ipc::MakeSeqpacketPair();
    keyds_.push_back(std::make_unique<FakeKeyd>(io_.get_executor(), pair.a, cert_.key_pem()));
    return pair.b;
  }
  void StartMesh(std::vector<std::string> more_flags = {}) {
    std::vector<int> fds;
    for (uint32_t i = 0; i < kWorkers; ++i) {
      ipc::FdPair pair = ipc::MakeSeqpacketPair();
      int raw = fcntl(pair.a, F_DUPFD_CLOEXEC, 0);
      sockets_.push_back(std::make_unique<FakeSockets>(io_.get_executor(), pair.a, ip_));
      sockets_.back()->raw_ = raw;
      fds.push_back(pair.b);
    }
    for (uint32_t i = 0; i < kWorkers; ++i) fds.push_back(KeydChannel());
    std::vector<std::string> flags = {"--xds",           ServeXds(true), "--workers",  "2",
                                      "--sockets-fds",   "3,4",          "--keyd-fds", "5,6",
                                      "--drain-time-ms", "500"};
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    Start(flags, fds);
    for (int fd : fds) close(fd);
  }
  bool Listening() {
    return RunUntil([&] {
      auto status = AdminJson("/status");
      return status.is_object() && status.contains("workloads") &&
             status["workloads"].size() == 1 && status["workloads"][0]["listening"] == true;
    });
  }
  tunnel::TunnelResult Connect(SocketAddress destination) {
    return Await(pool_->Connect({.source = source_,
                                 .source_address = *IpAddress::Parse("127.0.0.1"),
                                 .destination_identity = kBob,
                                 .destination = destination,
                                 .client = *SocketAddress::Parse("127.0.0.1:4242")}));
  }

  IpAddress ip_ = TestIp(20);
  TestCert root_ = MakeRoot();
  TestCert cert_ = MakeCert({.uris = {kBob}}, &root_);
  TestCert peer_cert_ = MakeCert({.uris = {kAlice}}, &root_);
  std::unique_ptr<tls::LocalSigner> peer_signer_ =
      *tls::LocalSigner::Create(io_.get_executor(), peer_cert_.key_pem());
  PeerDialer dialer_{io_, *tls::TlsContext::Mesh({.identity = kAlice,
                                                  .chain_der = {peer_cert_.der()},
                                                  .trust = {{"cluster.local", {root_.der()}}},
                                                  .signer = peer_signer_.get()})};
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(65536);
  std::unique_ptr<tunnel::TunnelPool> pool_ = std::make_unique<tunnel::TunnelPool>(
      io_.get_executor(), dialer_, tunnel::PoolOptions{.scratch = scratch_});
  std::shared_ptr<const model::LocalWorkload> source_ =
      std::make_shared<model::LocalWorkload>(model::LocalWorkload{.identity = kAlice});
  std::vector<std::unique_ptr<FakeSockets>> sockets_;
  std::vector<std::unique_ptr<FakeKeyd>> keyds_;
  model::LocalWorkload local_;
  model::Workload workload_;
  model::Certificate certificate_;
  model::TrustBundle bundle_;
};

}  // namespace weft::test
