// SPDX-License-Identifier: Apache-2.0
// The real weft-proxy as a child, an xDS server in this process to feed it, and plain clients and
// applications to use it. One thread: the test's, which runs the loop until what it waits for has
// happened.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "proxy/ipc/local_http.h"
#include "proxy/net/dial.h"
#include "proxy/net/io.h"
#include "proxy/net/listen.h"
#include "proxy/net/tcp_stream.h"
#include "xds/server/server.h"

namespace weft::test {

using namespace std::chrono_literals;  // NOLINT: tests

// An application that accepts, and an address where it does.
class App {
 public:
  App(asio::io_context& io, SocketAddress at)
      : acceptor_(io.get_executor(), *net::ListenTcp(at), [this, &io](int fd, SocketAddress peer) {
          peers.push_back(peer);
          accepted.push_back(net::MakeSocketStream(io.get_executor(), fd));
        }) {
    acceptor_.Start();
  }
  SocketAddress address() const { return acceptor_.address(); }
  std::vector<std::unique_ptr<net::Stream>> accepted;
  std::vector<SocketAddress> peers;

 private:
  net::Acceptor acceptor_;
};

class ProxyTest : public testing::Test {
 protected:
  ProxyTest() {
    char name[] = "/tmp/weft-l4-XXXXXX";
    directory_ = mkdtemp(name);
    chmod(directory_.c_str(), 0755);
    options_->cache = &cache_;
    options_->on_nack = [this](const xds::AdsNack& nack) { nacks_.push_back(nack.error); };
  }
  ~ProxyTest() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    for (net::Stream* stream : xds_streams_) stream->Close(WEFT_R_CLOSED);
    EXPECT_TRUE(RunUntil([&] { return xds_serving_ == 0; }));
    xds_acceptor_.reset();
    unlink((directory_ + "/admin.sock").c_str());
    unlink((directory_ + "/xds.sock").c_str());
    rmdir(directory_.c_str());
  }

  template <typename Condition>
  bool RunUntil(Condition done, std::chrono::seconds limit = 10s) {
    auto end = std::chrono::steady_clock::now() + limit;
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.restart();
      io_.run_one_for(20ms);
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

  // xDS at a unix socket, as weft-agent serves it, or at TCP.
  std::string ServeXds(bool unix_socket) {
    std::string path = directory_ + "/xds.sock";
    int fd = unix_socket ? *net::ListenUnix(path, 0666)
                         : *net::ListenTcp(*SocketAddress::Parse("127.0.0.1:0"));
    std::string target = unix_socket ? "unix:" + path : net::LocalAddress(fd).ToString();
    xds_acceptor_ = std::make_unique<net::Acceptor>(
        io_.get_executor(), fd, [this](int accepted, SocketAddress) {
          auto stream = net::MakeSocketStream(io_.get_executor(), accepted);
          net::Stream* raw = stream.get();
          xds_streams_.push_back(raw);
          ++xds_serving_;
          asio::co_spawn(io_, xds::ServeGrpc(std::move(stream), {}, options_),
                         [this, raw](std::exception_ptr) {
                           std::erase(xds_streams_, raw);
                           --xds_serving_;
                         });
        });
    xds_acceptor_->Start();
    return target;
  }
  // Starts the proxy with an admin interface at a unix socket. `fds` become 3, 4, ...; the admin's
  // is the one after.
  void Start(std::vector<std::string> flags, std::vector<int> fds = {}) {
    absl::StatusOr<int> admin = net::ListenUnix(directory_ + "/admin.sock", 0600);
    ASSERT_TRUE(admin.ok()) << admin.status();
    fds.push_back(*admin);
    flags.insert(flags.end(), {"--admin-fd", std::to_string(2 + fds.size())});
    pid_ = fork();
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) Exec(flags, fds);
    close(*admin);
  }
  absl::StatusOr<ipc::LocalResponse> Admin(std::string_view method, std::string_view target) {
    return ipc::HttpRequest(directory_ + "/admin.sock", method, target, {}, 5);
  }
  nlohmann::json AdminJson(std::string_view target) {
    auto response = Admin("GET", target);
    if (!response.ok() || response->status != 200) return {};
    return nlohmann::json::parse(response->body, nullptr, false);
  }
  bool Ready() {
    return RunUntil([&] {
      auto response = Admin("GET", "/ready");
      return response.ok() && response->status == 200;
    });
  }
  // Where the listener of that name was bound; waits for it.
  SocketAddress Bound(const std::string& name) {
    std::optional<SocketAddress> found;
    RunUntil([&] {
      for (const auto& listener : AdminJson("/listeners")) {
        if (listener["name"] == name)
          found = SocketAddress::Parse(listener["address"].get<std::string>());
      }
      return found.has_value();
    });
    EXPECT_TRUE(found) << name << " is not listened on";
    return found.value_or(SocketAddress());
  }
  // Its exit code, or -signal.
  int WaitForExit() {
    int status = 0;
    EXPECT_TRUE(RunUntil([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }));
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::unique_ptr<net::Stream> Dial(SocketAddress address) {
    auto stream = Await(DialPointer(address));
    EXPECT_NE(stream, nullptr) << address.ToString();
    return stream;
  }
  void Write(net::Stream& stream, std::string_view text) {
    EXPECT_EQ(Await(net::WriteAll(stream, text)).status, net::IoStatus::kOk);
  }
  std::string Read(net::Stream& stream, size_t bytes) {
    std::string got;
    std::vector<uint8_t> buffer(65536);
    while (got.size() < bytes) {
      net::IoResult r = Await(net::ReadSome(stream, buffer));
      if (r.status == net::IoStatus::kEof) return got + "<eof>";
      if (r.status != net::IoStatus::kOk)
        return got + "<" + std::string(ReasonName(r.reason)) + ">";
      got.append(reinterpret_cast<char*>(buffer.data()), r.bytes);
    }
    return got;
  }
  std::string HttpGet(SocketAddress address, const std::string& path) {
    auto stream = Dial(address);
    if (stream == nullptr) return "";
    Write(*stream, "GET " + path + " HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    return Read(*stream, 1 << 20);
  }
  void Put(const auto&... values) {
    xds::CacheBatch batch;
    (batch.Put(xds::Encode(values)), ...);
    cache_.Apply(std::move(batch));
  }

  asio::io_context io_{1};
  xds::ResourceCache cache_;
  std::shared_ptr<xds::ServerOptions> options_ = std::make_shared<xds::ServerOptions>();
  std::vector<std::string> nacks_;
  std::vector<net::Stream*> xds_streams_;
  std::string directory_;
  pid_t pid_ = -1;

 private:
  [[noreturn]] static void Exec(const std::vector<std::string>& flags,
                                const std::vector<int>& fds) {
    // Out of the way first: the targets may be among the sources.
    std::vector<int> moved;
    for (int fd : fds) moved.push_back(fcntl(fd, F_DUPFD, 100));
    for (size_t i = 0; i < moved.size(); ++i) dup2(moved[i], static_cast<int>(3 + i));
    for (int fd : moved) close(fd);
    std::vector<char*> argv = {const_cast<char*>(WEFT_PROXY)};
    for (const std::string& flag : flags) argv.push_back(const_cast<char*>(flag.c_str()));
    argv.push_back(nullptr);
    execv(WEFT_PROXY, argv.data());
    _exit(127);
  }
  Task<std::unique_ptr<net::Stream>> DialPointer(SocketAddress address) {
    auto stream = co_await net::DialTcp(io_.get_executor(), address, 2s);
    co_return stream.ok() ? *std::move(stream) : nullptr;
  }
  std::unique_ptr<net::Acceptor> xds_acceptor_;
  int xds_serving_ = 0;
};

// A listener of a proxy that runs alone, at a port of its choice.
inline model::Listener ListenerAt(const std::string& name,
                                  const std::string& address = "127.0.0.1:0") {
  model::Listener listener;
  listener.name = name;
  listener.address = SocketAddress::Parse(address);
  return listener;
}
inline model::Listener TcpListener(const std::string& name, const std::string& cluster) {
  model::Listener listener = ListenerAt(name);
  listener.tcp.emplace();
  listener.tcp->stat_prefix = name;
  listener.tcp->clusters = {{.cluster = cluster, .weight = 1}};
  return listener;
}
inline model::Listener HttpListener(const std::string& name, const std::string& routes) {
  model::Listener listener = ListenerAt(name);
  listener.http.emplace();
  listener.http->stat_prefix = name;
  listener.http->rds_name = routes;
  return listener;
}
inline model::Cluster EdsCluster(const std::string& name) {
  model::Cluster cluster;
  cluster.name = name;
  cluster.type = model::DiscoveryType::kEds;
  cluster.eds_name = name;
  return cluster;
}
inline model::Endpoints EndpointsOf(const std::string& name, std::vector<SocketAddress> addresses) {
  model::Endpoints endpoints{.cluster = name};
  for (const SocketAddress& address : addresses)
    endpoints.endpoints.push_back({.address = address});
  return endpoints;
}
inline model::RouteConfiguration DirectRoutes(const std::string& name, const std::string& body) {
  model::Route route;
  route.action = model::DirectResponse{.status = 200, .body = body};
  return {.name = name, .virtual_hosts = {{.name = "all", .domains = {"*"}, .routes = {route}}}};
}

}  // namespace weft::test
