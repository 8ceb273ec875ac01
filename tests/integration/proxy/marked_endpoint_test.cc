// SPDX-License-Identifier: Apache-2.0
// Endpoints that EDS marks as of the mesh, while the workload API is behind: not one byte of
// plaintext, and the tunnel as soon as it is known. weft-proxy as in the mesh, with a captured
// connection.
#include <boost/asio/detached.hpp>

#include "proxy/tunnel/server.h"
#include "tests/integration/proxy/mesh_fixture.h"

namespace weft::test {
namespace {

// Of this machine: nothing may leave it if the proxy passes a connection through.
constexpr char kService[] = "127.99.0.1:80";

// An application that answers every request, and counts who came to it.
class HttpApp {
 public:
  HttpApp(asio::io_context& io, SocketAddress at)
      : io_(io), acceptor_(io.get_executor(), *net::ListenTcp(at), [this](int fd, SocketAddress) {
          ++accepted;
          asio::co_spawn(io_, Answer(net::MakeSocketStream(io_.get_executor(), fd)),
                         asio::detached);
        }) {
    acceptor_.Start();
  }
  SocketAddress address() const { return acceptor_.address(); }
  int accepted = 0;

 private:
  static Task<void> Answer(std::unique_ptr<net::Stream> stream) {
    std::vector<uint8_t> buffer(4096);
    co_await net::ReadSome(*stream, buffer);
    co_await net::WriteAll(*stream,
                           std::string_view("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"));
    co_await net::ReadSome(*stream, buffer);  // until the proxy lets go
  }
  asio::io_context& io_;
  net::Acceptor acceptor_;
};

// The other node's end of tunnels: lets everybody in.
class PeerNode final : public tunnel::ServerHandler {
 public:
  PeerNode(asio::io_context& io, IpAddress ip, std::shared_ptr<const tls::TlsContext> context,
           std::span<uint8_t> scratch)
      : io_(io),
        context_(std::move(context)),
        scratch_(scratch),
        acceptor_(io.get_executor(), *net::ListenTcp({ip, WEFT_PORT_HBONE}),
                  [this](int fd, SocketAddress peer) {
                    ++serving;
                    asio::co_spawn(io_, Serve(net::MakeSocketStream(io_.get_executor(), fd), peer),
                                   [this](std::exception_ptr) { --serving; });
                  }) {
    acceptor_.Start();
  }
  bool Serves(const SocketAddress&) const override { return true; }
  policy::Decision Decide(const policy::Connection& connection) const override {
    asked.push_back(std::string(connection.source_identity));
    return {};
  }
  Task<App> ConnectApp(SocketAddress, SocketAddress destination) override {
    auto app = co_await net::DialTcp(io_.get_executor(), destination, 2s);
    if (!app.ok()) co_return App{.reason = WEFT_R_CONNECT_FAILED};
    co_return App{.stream = *std::move(app)};
  }
  void OnStreamStart() override {}
  void OnStreamEnd(const tunnel::ServedStream&) override {}
  void Close() {
    for (tunnel::TunnelServer* server : servers_) server->Close(WEFT_R_CLOSED);
  }

  mutable std::vector<std::string> asked;
  int serving = 0;

 private:
  Task<void> Serve(std::unique_ptr<net::Stream> stream, SocketAddress peer) {
    tls::HandshakeResult tls =
        co_await tls::TlsAccept(io_.get_executor(), std::move(stream), context_);
    if (tls.stream == nullptr) co_return;
    tunnel::TunnelServer server(*this, {.executor = io_.get_executor(),
                                        .stream = std::move(tls.stream),
                                        .peer_identity = tls.peer_identity,
                                        .peer = peer,
                                        .scratch = scratch_});
    servers_.push_back(&server);
    co_await server.Serve();
    std::erase(servers_, &server);
  }
  asio::io_context& io_;
  std::shared_ptr<const tls::TlsContext> context_;
  std::span<uint8_t> scratch_;
  std::vector<tunnel::TunnelServer*> servers_;
  net::Acceptor acceptor_;
};

class MarkedEndpoint : public Mesh {
 protected:
  MarkedEndpoint() {
    alice_.uid = "cluster//Pod/prod/alice";
    alice_.name = "alice";
    alice_.namespace_name = "prod";
    alice_.service_account = "alice";
    alice_.trust_domain = "cluster.local";
    alice_.addresses = {peer_ip_};
    alice_.hbone = true;
    endpoints_.endpoints[0].in_mesh = true;
    model::Route route;
    model::Forward forward;
    forward.clusters.push_back({.cluster = "web", .weight = 1});
    route.action = forward;
    model::Listener listener = HttpListener("web", "routes");
    listener.address = SocketAddress::Parse(kService);
    listener.bind_to_port = false;
    Put(local_, workload_, certificate_, bundle_, EdsCluster("web"), endpoints_, listener,
        model::RouteConfiguration{
            .name = "routes",
            .virtual_hosts = {{.name = "all", .domains = {"*"}, .routes = {route}}}});
    setenv("LD_PRELOAD", WEFT_ORIGINAL_PRELOAD, 1);
    setenv("WEFT_TEST_ORIGINAL", kService, 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    StartMesh();
    for (const char* name : {"LD_PRELOAD", "WEFT_TEST_ORIGINAL"}) unsetenv(name);
  }
  ~MarkedEndpoint() override {
    peer_.Close();
    EXPECT_TRUE(RunUntil([&] { return peer_.serving == 0; }));
  }
  std::string Get() { return HttpGet({ip_, WEFT_PORT_OUTBOUND}, "/"); }
  void ExpectRefused() {
    // Before its listener arrives, a captured connection is passed through, to nobody.
    std::string answer;
    EXPECT_TRUE(RunUntil([&] {
      answer = Get();
      return answer.starts_with("HTTP/1.1 ");
    })) << answer;
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 503 ")) << answer;
    EXPECT_NE(answer.find("x-weft-reason: plaintext_refused\r\n"), std::string::npos) << answer;
    EXPECT_EQ(app_.accepted, 0);
    EXPECT_EQ(peer_.serving, 0);
  }

  IpAddress peer_ip_ = TestIp(30);
  HttpApp app_{io_, {peer_ip_, 0}};
  PeerNode peer_{io_, peer_ip_,
                 *tls::TlsContext::Mesh({.identity = kAlice,
                                         .chain_der = {peer_cert_.der()},
                                         .trust = {{"cluster.local", {root_.der()}}},
                                         .signer = peer_signer_.get()}),
                 scratch_};
  model::Workload alice_;
  model::Endpoints endpoints_ = EndpointsOf("web", {app_.address()});
};

TEST_F(MarkedEndpoint, WaitsForItsWorkloadAndGoesByTunnel) {
  ASSERT_TRUE(Listening());
  ExpectRefused();
  EXPECT_TRUE(RunUntil([&] {
    for (const auto& flow : AdminJson("/flows")) {
      if (flow["reason"] == "plaintext_refused") return true;
    }
    return false;
  }));
  Put(alice_);
  std::string answer;
  EXPECT_TRUE(RunUntil([&] {
    answer = Get();
    return answer.starts_with("HTTP/1.1 200 ");
  })) << answer;
  EXPECT_EQ(app_.accepted, 1);
  EXPECT_EQ(peer_.asked, std::vector<std::string>{kBob});
}

TEST_F(MarkedEndpoint, IsNotReachedWhenItsWorkloadIsRefusedByName) {
  model::Workload bad = alice_;
  bad.service_account = "a/b";
  Put(bad);
  ASSERT_TRUE(Listening());
  ASSERT_TRUE(RunUntil([&] { return !nacks_.empty(); }));
  ExpectRefused();
}

}  // namespace
}  // namespace weft::test
