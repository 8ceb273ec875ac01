// SPDX-License-Identifier: Apache-2.0
#include "control/plane/control_server.h"

#include <ifaddrs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/plane/folder_watcher.h"
#include "control/plane/issuer.h"
#include "control/plane/nodes.h"
#include "control/plane/status_page.h"
#include "proxy/base/log.h"
#include "proxy/ipc/local_http.h"
#include "proxy/net/listen.h"
#include "proxy/net/tcp_stream.h"
#include "proxy/tls/tls_stream.h"
#include "xds/decode/ca_messages.h"

namespace weft::plane {
namespace {

// One stream a node and a short one for each certificate: beyond this something is wrong, and more
// would only hide it.
constexpr size_t kMaxConnections = 8192;
constexpr auto kServerCertificateLifetime = std::chrono::hours(24);
constexpr auto kServerCertificateRenewal = std::chrono::hours(8);

std::vector<std::string> LocalAddresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    const int family = each->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    const auto address = SocketAddress::FromSockaddr(each->ifa_addr, length);
    if (address.has_value()) addresses.push_back(address->ip.ToString());
  }
  freeifaddrs(list);
  return addresses;
}

// What a node may have been told to find us by.
std::vector<std::string> ServerNames(const Options& options) {
  std::set<std::string> names = {"localhost", "127.0.0.1", "::1"};
  names.insert(options.server_names.begin(), options.server_names.end());
  if (!options.listen->ip.is_unspecified()) {
    names.insert(options.listen->ip.ToString());
  } else {
    for (std::string& address : LocalAddresses()) names.insert(std::move(address));
  }
  return {names.begin(), names.end()};
}

absl::Status PrepareStateDir(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return ErrnoStatus(errno, "create " + path);
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "stat " + path);
  if (!S_ISDIR(info.st_mode)) return absl::FailedPreconditionError(path + " is no folder");
  if (info.st_uid != geteuid())
    return absl::FailedPreconditionError(path + " belongs to another user");
  // Others may look inside (root.pem is public) if the operator wants so; they may not write.
  if ((info.st_mode & 022) != 0) {
    return absl::FailedPreconditionError(path + " may be written by others; chmod go-w it");
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Listen(const SocketAddress& address) {
  auto fd = net::ListenTcp(address);
  if (fd.ok() || !absl::StrContains(fd.status().message(), strerror(EADDRINUSE))) return fd;
  return absl::UnavailableError(absl::StrCat(
      "address ", address.ToString(),
      " is in use: by another weft-control, or another program; \"ss -ltnp sport = :", address.port,
      "\" shows which"));
}

void Ignore(std::exception_ptr) {}

}  // namespace

struct ControlServer::State : std::enable_shared_from_this<ControlServer::State> {
  State(asio::any_io_executor io, Options given)
      : executor(std::move(io)),
        options(std::move(given)),
        publisher({.trust_domain = options.trust_domain,
                   .cluster_domain = options.cluster_domain,
                   .root_namespace = options.root_namespace},
                  cache),
        tokens(options.join_tokens),
        renewal_timer(executor) {}

  absl::Status OpenAll();
  absl::Status IssueServerCertificate();
  absl::Status OpenStatus();
  void RenewLater();
  void MakeServerOptions();
  void Answer(const ipc::LocalRequest& request, const ipc::Responder& responder);
  void Accept(int fd, SocketAddress peer, bool with_tls);
  static Task<void> Serve(std::shared_ptr<State> self, int fd, std::string address, bool with_tls);
  static Task<xds::GrpcReply> CreateCertificate(State* self, xds::GrpcRequest request);
  absl::Status Admit(const xds::GrpcPeer& peer) const;
  // Ends everything; coroutines under way hold the state until they have left.
  void Stop();

  const asio::any_io_executor executor;
  const Options options;
  xds::ResourceCache cache;
  Publisher publisher;
  Nodes nodes;
  JoinTokens tokens;
  std::unique_ptr<identity::CertificateAuthority> ca;
  std::unique_ptr<Issuer> issuer;
  std::shared_ptr<const tls::TlsContext> tls_context;
  std::shared_ptr<const xds::ServerOptions> tls_options, plaintext_options;
  std::unique_ptr<net::Acceptor> tls_acceptor, plaintext_acceptor;
  std::unique_ptr<ipc::LocalHttpServer> status_server;
  SocketAddress status_address;
  std::unique_ptr<FolderWatcher> watcher;
  asio::steady_timer renewal_timer;
  std::set<net::Stream*> streams;  // those being served; each is valid while it is in here
  size_t connections = 0;
  bool stopped = false;
};

absl::Status ControlServer::State::IssueServerCertificate() {
  WEFT_ASSIGN_OR_RETURN(
      const auto certificate,
      ca->IssueServerCertificate(ServerNames(options),
                                 absl::StrCat("spiffe://", options.trust_domain, "/weft/control"),
                                 kServerCertificateLifetime));
  WEFT_ASSIGN_OR_RETURN(tls_context, tls::TlsContext::Server({.chain_pem = certificate.chain_pem,
                                                              .key_pem = certificate.key_pem,
                                                              .client_roots_pem = ca->root_pem()}));
  return absl::OkStatus();
}

void ControlServer::State::RenewLater() {
  renewal_timer.expires_after(kServerCertificateRenewal);
  renewal_timer.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!self || error) return;
    // The one in use has two more tries before it ends.
    if (const absl::Status renewed = self->IssueServerCertificate(); !renewed.ok()) {
      LogError("Cannot renew the server's certificate",
               {{"cause", std::string(renewed.message())}});
    }
    self->RenewLater();
  });
}

absl::Status ControlServer::State::Admit(const xds::GrpcPeer& peer) const {
  if (!NodeOfIdentity(peer.identity, options.trust_domain).empty()) return absl::OkStatus();
  return absl::PermissionDeniedError(peer.identity.empty()
                                         ? "xDS needs a node's certificate; join first"
                                         : peer.identity + " is not a node of the trust domain " +
                                               options.trust_domain);
}

Task<xds::GrpcReply> ControlServer::State::CreateCertificate(State* self,
                                                             xds::GrpcRequest request) {
  co_return self->issuer->Create(request);
}

void ControlServer::State::MakeServerOptions() {
  xds::ServerOptions base;
  base.cache = &cache;
  base.on_nack = [this](const xds::AdsNack& nack) { nodes.OnNack(nack); };
  base.on_stream = [this](const xds::GrpcPeer& peer, const xds::AdsNode& node, bool connected) {
    nodes.OnStream(peer, node, connected);
  };
  base.unary[std::string(xds::kCreateCertificatePath)] = [this](xds::GrpcRequest request) {
    return CreateCertificate(this, std::move(request));
  };
  plaintext_options = std::make_shared<const xds::ServerOptions>(base);
  base.admit = [this](const xds::GrpcPeer& peer, const xds::AdsNode&, const http::HeaderList&) {
    return Admit(peer);
  };
  tls_options = std::make_shared<const xds::ServerOptions>(std::move(base));
}

void ControlServer::State::Accept(int fd, SocketAddress peer, bool with_tls) {
  if (stopped || connections >= kMaxConnections) {
    close(fd);
    if (!stopped)
      LogWarning("Too many connections; one more was closed", {{"address", peer.ToString()}});
    return;
  }
  asio::co_spawn(executor, Serve(shared_from_this(), fd, peer.ToString(), with_tls), Ignore);
}

Task<void> ControlServer::State::Serve(std::shared_ptr<State> self, int fd, std::string address,
                                       bool with_tls) {
  struct Count {
    explicit Count(size_t& n) : counter(n) { ++counter; }
    ~Count() { --counter; }
    size_t& counter;
  } count(self->connections);
  std::unique_ptr<net::Stream> stream = net::MakeSocketStream(self->executor, fd);
  xds::GrpcPeer peer{.address = address};
  if (with_tls) {
    tls::HandshakeResult result =
        co_await tls::TlsAccept(self->executor, std::move(stream), self->tls_context);
    if (result.stream == nullptr) {
      LogInfo("A TLS handshake failed",
              {{"address", address}, {"reason", std::string(ReasonName(result.reason))}});
      co_return;
    }
    stream = std::move(result.stream);
    peer.identity = std::move(result.peer_identity);
  }
  if (self->stopped) co_return;
  net::Stream* const raw = stream.get();
  self->streams.insert(raw);
  co_await xds::ServeGrpc(std::move(stream), std::move(peer),
                          with_tls ? self->tls_options : self->plaintext_options);
  self->streams.erase(raw);
}

void ControlServer::State::Answer(const ipc::LocalRequest& request,
                                  const ipc::Responder& responder) {
  if (request.method != "GET") return responder.Send(405, "text/plain", "GET only\n");
  if (request.path == "/status") {
    const absl::Status joinable = tokens.Refresh();
    return responder.Send(
        200, "application/json",
        StatusJson({.publisher = publisher,
                    .cache = cache,
                    .nodes = nodes,
                    .manifests = options.manifests,
                    .join_tokens_problem = std::string(joinable.message()),
                    .tls_address = tls_acceptor->address(),
                    .plaintext_address =
                        plaintext_acceptor ? plaintext_acceptor->address() : SocketAddress{}}));
  }
  if (request.path == "/healthz/ready") {
    // Ready is who has read the folder, with problems or without: what is good in it is served.
    const bool is_ready = publisher.updates() > 0;
    return responder.Send(is_ready ? 200 : 503, "text/plain",
                          is_ready ? "ready\n" : "the manifests were not read yet\n");
  }
  responder.Send(404, "text/plain", "there are /status and /healthz/ready\n");
}

absl::Status ControlServer::State::OpenStatus() {
  int fd = -1;
  if (!options.status_unix.empty()) {
    WEFT_ASSIGN_OR_RETURN(fd, net::ListenUnix(options.status_unix, 0600));
  } else if (options.status.has_value()) {
    WEFT_ASSIGN_OR_RETURN(fd, Listen(*options.status));
    status_address = net::LocalAddress(fd);
  }
  if (fd < 0) return absl::OkStatus();
  status_server = std::make_unique<ipc::LocalHttpServer>(
      executor, fd, [this](const ipc::LocalRequest& request, const ipc::Responder& responder) {
        Answer(request, responder);
      });
  return absl::OkStatus();
}

absl::Status ControlServer::State::OpenAll() {
  WEFT_RETURN_IF_ERROR(PrepareStateDir(options.state_dir));
  WEFT_ASSIGN_OR_RETURN(
      ca, identity::CertificateAuthority::LoadOrCreate(options.state_dir, options.trust_domain));
  issuer = std::make_unique<Issuer>(
      IssuerOptions{.trust_domain = options.trust_domain, .lifetime = options.cert_ttl}, *ca,
      tokens, [this](std::string_view identity, std::string_view node) {
        return publisher.RunsOn(identity, node);
      });
  MakeServerOptions();
  WEFT_ASSIGN_OR_RETURN(const int tls_fd, Listen(*options.listen));
  tls_acceptor = std::make_unique<net::Acceptor>(
      executor, tls_fd, [this](int fd, SocketAddress peer) { Accept(fd, peer, true); });
  if (options.plaintext.has_value()) {
    WEFT_ASSIGN_OR_RETURN(const int fd, Listen(*options.plaintext));
    plaintext_acceptor = std::make_unique<net::Acceptor>(
        executor, fd, [this](int accepted, SocketAddress peer) { Accept(accepted, peer, false); });
  }
  WEFT_RETURN_IF_ERROR(OpenStatus());
  WEFT_RETURN_IF_ERROR(IssueServerCertificate());
  RenewLater();
  if (const absl::Status usable = tokens.Refresh(); !usable.ok()) {
    LogWarning("No node can join", {{"cause", std::string(usable.message())}});
  }
  return absl::OkStatus();
}

void ControlServer::State::Stop() {
  stopped = true;
  tls_acceptor.reset();
  plaintext_acceptor.reset();
  status_server.reset();
  watcher.reset();
  renewal_timer.cancel();
  // Closing a stream may take it out of the set.
  for (const std::set<net::Stream*> all = streams; net::Stream * stream : all) {
    if (streams.contains(stream)) stream->Close(WEFT_R_CLOSED);
  }
}

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(asio::any_io_executor executor,
                                                                    Options options) {
  auto state = std::make_shared<State>(std::move(executor), std::move(options));
  if (const absl::Status opened = state->OpenAll(); !opened.ok()) {
    state->Stop();
    return opened;
  }
  State* const raw = state.get();
  // The folder is read before the first connection is taken, so that nobody is told that nothing
  // exists.
  state->watcher =
      std::make_unique<FolderWatcher>(raw->executor, raw->options.manifests,
                                      [raw](absl::StatusOr<std::vector<ManifestFile>> files) {
                                        raw->publisher.Update(files, raw->options.manifests);
                                      });
  if (const absl::Status watching = state->watcher->Start(); !watching.ok()) {
    LogWarning("Changes are noticed late", {{"cause", std::string(watching.message())}});
  }
  state->tls_acceptor->Start();
  if (state->plaintext_acceptor) state->plaintext_acceptor->Start();
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

ControlServer::~ControlServer() { state_->Stop(); }

SocketAddress ControlServer::tls_address() const { return state_->tls_acceptor->address(); }

SocketAddress ControlServer::plaintext_address() const {
  return state_->plaintext_acceptor ? state_->plaintext_acceptor->address() : SocketAddress{};
}

SocketAddress ControlServer::status_address() const { return state_->status_address; }

}  // namespace weft::plane
