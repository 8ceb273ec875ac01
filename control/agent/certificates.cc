// SPDX-License-Identifier: Apache-2.0
#include "control/agent/certificates.h"

#include <time.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "control/agent/grpc_call.h"
#include "proxy/base/log.h"
#include "proxy/base/signal.h"
#include "proxy/tls/tls_stream.h"
#include "xds/decode/ca_messages.h"

namespace weft::agent {
namespace {

constexpr std::chrono::seconds kDialTimeout{5};
constexpr int64_t kLifetimeSeconds = 3600;
constexpr int64_t kFirstRetrySeconds = 1;
constexpr int64_t kLastRetrySeconds =
    60;  // well below half of an hour: many attempts before expiry
// The same for certificates that live shorter: at most this part of their life between attempts.
constexpr int64_t kRetriesInALife = 20;

int64_t Now() { return time(nullptr); }

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::ifstream in(path);
  std::string token;
  if (!std::getline(in, token) || token.empty()) {
    return absl::FailedPreconditionError("join token " + path + " is unreadable or empty");
  }
  return token;
}

// Of "10.0.0.1:15012", "[fd00::1]:15012", "control.mesh:15012": as a certificate names it.
std::string HostOf(const std::string& target) {
  const std::string host = target.substr(0, target.rfind(':'));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

struct Certificates::State {
  State(asio::any_io_executor e, const Options& o, std::string root, OnCertificate callback)
      : executor(e),
        options(o),
        root_pem(std::move(root)),
        on_certificate(std::move(callback)),
        node_identity("spiffe://" + o.trust_domain + "/weft/node/" + o.node),
        wake(e) {}

  struct Entry {
    model::Certificate certificate;  // not_after 0: none yet
    int64_t attempt_at = 0;          // when to ask (again)
    int64_t retry_seconds = kFirstRetrySeconds;
    int64_t last_retry_seconds = kLastRetrySeconds;
    // Of the certificate before: a proxy may be in the middle of a handshake with it, so it is
    // forgotten one renewal later.
    uint64_t previous_key = 0;
    std::string error;
  };

  Task<net::StatusOrStream> Connect(bool as_node);
  Task<absl::StatusOr<model::Certificate>> Issue(std::string identity);
  Task<absl::StatusOr<model::Certificate>> IssueFor(std::string identity, uint64_t key_id,
                                                    std::string csr_pem);
  void Forget(uint64_t key_id);
  void TakeOverKeys();
  void Inherit(const std::string& identity, Entry* entry);
  Task<void> Attempt(std::string identity);
  absl::StatusOr<model::Certificate> Accept(const std::string& identity, uint64_t key_id,
                                            const std::vector<std::string>& chain_pem);
  int64_t RenewAt(const model::Certificate& certificate);
  void Adopt(Entry* entry, model::Certificate certificate);
  // The next identity that is due, the node first; empty: none.
  std::string NextDue(int64_t now) const;
  int64_t NextAttempt() const;

  asio::any_io_executor executor;
  Options options;
  std::string root_pem;
  OnCertificate on_certificate;
  std::string node_identity;
  std::map<std::string, Entry> entries;
  std::map<std::string, uint64_t> inherited;  // keys of an earlier agent that nobody asked for yet
  std::unique_ptr<ipc::KeydControl> keyd;
  std::unique_ptr<ipc::RemoteSigner> signer;  // for the node's own handshakes
  std::minstd_rand random{std::random_device{}()};
  Signal wake;
  bool stopped = false;
};

Certificates::Certificates(asio::any_io_executor executor, const Options& options,
                           std::string root_pem, OnCertificate on_certificate)
    : state_(std::make_shared<State>(executor, options, std::move(root_pem),
                                     std::move(on_certificate))) {
  state_->entries[state_->node_identity];
}

Certificates::~Certificates() { Stop(); }

// Keys that weft-keyd holds for an earlier agent: the proxies use them until they hear of new ones,
// so each counts as the present key of its identity and is forgotten one renewal after it was
// replaced.
void Certificates::State::TakeOverKeys() {
  inherited.clear();
  auto text = keyd->StatusJson();
  if (!text.ok()) return;
  const auto status = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object()) return;
  for (const auto& key : status.value("keys", nlohmann::json::array())) {
    uint64_t& newest = inherited[key.value("identity", "")];
    const uint64_t key_id = key.value("key_id", uint64_t{0});
    Forget(std::min(newest, key_id));
    newest = std::max(newest, key_id);
  }
  for (auto& [identity, entry] : entries) Inherit(identity, &entry);
}

void Certificates::State::Inherit(const std::string& identity, Entry* entry) {
  auto found = inherited.find(identity);
  if (found == inherited.end()) return;
  entry->certificate.key_id = found->second;
  inherited.erase(found);
}

absl::Status Certificates::UseKeyd(const std::string& socket_path) {
  WEFT_ASSIGN_OR_RETURN(ipc::KeydControl keyd, ipc::KeydControl::Connect(socket_path));
  WEFT_ASSIGN_OR_RETURN(const int channel, keyd.NewChannel(kAgentTenant));
  state_->keyd = std::make_unique<ipc::KeydControl>(std::move(keyd));
  state_->signer = std::make_unique<ipc::RemoteSigner>(state_->executor, channel);
  for (auto& [identity, entry] : state_->entries) entry = State::Entry{};
  state_->TakeOverKeys();
  state_->wake.Notify();
  return absl::OkStatus();
}

void Certificates::Want(const std::string& identity) {
  const auto [entry, added] = state_->entries.try_emplace(identity);
  if (!added) return;
  state_->Inherit(identity, &entry->second);
  state_->wake.Notify();
}

void Certificates::Unwant(const std::string& identity) {
  auto found = state_->entries.find(identity);
  if (found == state_->entries.end() || identity == state_->node_identity) return;
  state_->Forget(found->second.previous_key);
  state_->Forget(found->second.certificate.key_id);
  state_->entries.erase(found);
}

bool Certificates::joined() const { return Has(state_->node_identity); }

bool Certificates::Has(const std::string& identity) const {
  auto found = state_->entries.find(identity);
  return found != state_->entries.end() && found->second.certificate.not_after > Now();
}

std::vector<CertificateStatus> Certificates::status() const {
  std::vector<CertificateStatus> out;
  for (const auto& [identity, entry] : state_->entries) {
    const int64_t not_after = entry.certificate.not_after;
    out.push_back({identity, not_after, entry.attempt_at,
                   not_after <= Now() || !entry.error.empty(), entry.error});
  }
  return out;
}

Task<net::StatusOrStream> Certificates::State::Connect(bool as_node) {
  // Without a signer or a certificate there is only the token.
  tls::ClientTlsOptions tls_options;
  tls_options.roots_pem = root_pem;
  tls_options.server_name = HostOf(options.control);
  const Entry& node = entries[node_identity];
  if (as_node) {
    for (const std::string& der : node.certificate.chain) {
      tls_options.chain_pem += tls::CertificateToPem(der);
    }
    tls_options.identity = node_identity;
    tls_options.key_id = node.certificate.key_id;
    tls_options.signer = signer.get();
  }
  auto context = tls::TlsContext::Client(tls_options);
  if (!context.ok()) co_return Annotate(context.status(), "TLS to weft-control");
  auto transport = co_await net::Dial(executor, options.control, kDialTimeout);
  if (!transport.ok()) co_return transport.status();
  auto handshake =
      co_await tls::TlsConnect(executor, std::move(*transport), *context, tls::TlsClientOptions{});
  if (handshake.stream == nullptr) {
    co_return absl::UnavailableError(absl::StrCat("TLS to weft-control at ", options.control, ": ",
                                                  AbslView(ReasonMeaning(handshake.reason))));
  }
  co_return std::move(handshake.stream);
}

Task<net::StatusOrStream> Certificates::ConnectToControl() {
  if (!joined()) co_return absl::UnavailableError("this node has not joined yet");
  auto stream = co_await state_->Connect(/*as_node=*/true);
  co_return stream;
}

absl::StatusOr<model::Certificate> Certificates::State::Accept(
    const std::string& identity, uint64_t key_id, const std::vector<std::string>& chain_pem) {
  model::Certificate out{.identity = identity, .key_id = key_id};
  for (const std::string& pem : chain_pem) {
    WEFT_ASSIGN_OR_RETURN(std::vector<std::string> der, tls::CertificatesFromPem(pem));
    out.chain.insert(out.chain.end(), der.begin(), der.end());
  }
  if (out.chain.empty()) return absl::DataLossError("weft-control answered an empty chain");
  WEFT_ASSIGN_OR_RETURN(const tls::CertificateInfo leaf, tls::InspectCertificate(out.chain[0]));
  if (leaf.spiffe_id != identity) {
    return absl::DataLossError("weft-control answered a certificate for " + leaf.spiffe_id);
  }
  if (out.chain.size() > 1) out.chain.pop_back();  // the root is known to everybody
  out.not_before = leaf.not_before;
  out.not_after = leaf.not_after;
  return out;
}

Task<absl::StatusOr<model::Certificate>> Certificates::State::Issue(std::string identity) {
  if (keyd == nullptr) co_return absl::UnavailableError("weft-keyd is not running");
  auto generated = keyd->Generate(identity);
  if (!generated.ok()) co_return Annotate(generated.status(), "weft-keyd");
  const uint64_t key_id = generated->key_id;
  auto issued = co_await IssueFor(identity, key_id, generated->csr_pem);
  if (!issued.ok()) Forget(key_id);
  co_return issued;
}

Task<absl::StatusOr<model::Certificate>> Certificates::State::IssueFor(std::string identity,
                                                                       uint64_t key_id,
                                                                       std::string csr_pem) {
  const bool is_node = identity == node_identity;
  absl::Status granted = keyd->Grant(identity, key_id, is_node ? kAgentTenant : kNodeTenant);
  if (!granted.ok()) co_return Annotate(granted, "weft-keyd");
  GrpcCall call{.authority = options.control, .path = std::string(xds::kCreateCertificatePath)};
  const bool as_node = entries[node_identity].certificate.not_after > Now();
  if (!as_node) {
    auto token = ReadToken(options.join_token_file);
    if (!token.ok()) co_return token.status();
    call.metadata.emplace_back("authorization", "Bearer " + *token);
  }
  call.message = xds::EncodeCertificateRequest({.csr_pem = std::move(csr_pem),
                                                .validity_seconds = kLifetimeSeconds,
                                                .impersonated_identity = identity});
  auto stream = co_await Connect(as_node);
  if (!stream.ok()) co_return stream.status();
  auto answer = co_await CallUnary(executor, std::move(*stream), std::move(call));
  if (!answer.ok()) co_return Annotate(answer.status(), "weft-control");
  auto response = xds::DecodeCertificateResponse(*answer);
  if (!response.ok()) co_return response.status();
  co_return Accept(identity, key_id, response->chain_pem);
}

void Certificates::State::Forget(uint64_t key_id) {
  if (key_id == 0 || keyd == nullptr) return;
  const absl::Status forgotten = keyd->Forget(key_id);
  if (!forgotten.ok()) {
    LogWarning("weft-keyd did not forget a key", {{"error", std::string(forgotten.message())}});
  }
}

int64_t Certificates::State::RenewAt(const model::Certificate& c) {
  // Half of its life, a tenth of it earlier or later, so that a node's certificates do not all come
  // due at once.
  const double life = static_cast<double>(c.not_after - Now());
  const double jitter = std::uniform_real_distribution<double>(-0.05, 0.05)(random);
  return Now() + std::max<int64_t>(1, static_cast<int64_t>(life * (0.5 + jitter)));
}

void Certificates::State::Adopt(Entry* entry, model::Certificate certificate) {
  if (entry->previous_key != 0 && entry->certificate.identity == node_identity) {
    // The node's own second renewal: whoever has not claimed a key by now is gone.
    for (const auto& [identity, key_id] : inherited) Forget(key_id);
    inherited.clear();
  }
  Forget(entry->previous_key);
  entry->previous_key = entry->certificate.key_id;
  entry->certificate = std::move(certificate);
  entry->attempt_at = RenewAt(entry->certificate);
  entry->retry_seconds = kFirstRetrySeconds;
  entry->last_retry_seconds = std::clamp((entry->certificate.not_after - Now()) / kRetriesInALife,
                                         kFirstRetrySeconds, kLastRetrySeconds);
  entry->error.clear();
  LogInfo("certificate issued", {{"identity", entry->certificate.identity},
                                 {"key_id", std::to_string(entry->certificate.key_id)}});
  if (entry->certificate.identity != node_identity) on_certificate(entry->certificate);
}

Task<void> Certificates::State::Attempt(std::string identity) {
  auto issued = co_await Issue(identity);
  auto found = entries.find(identity);
  if (found == entries.end() || stopped) co_return;  // not wanted any more
  if (issued.ok()) {
    Adopt(&found->second, std::move(*issued));
    co_return;
  }
  Entry& entry = found->second;
  entry.error = std::string(issued.status().message());
  entry.attempt_at = Now() + entry.retry_seconds;
  entry.retry_seconds = std::min(entry.retry_seconds * 2, entry.last_retry_seconds);
  LogWarning(
      "no certificate, trying again",
      {{"identity", identity},
       {"error", entry.error},
       {"valid_for_s", std::to_string(std::max<int64_t>(0, entry.certificate.not_after - Now()))}});
}

std::string Certificates::State::NextDue(int64_t now) const {
  auto node = entries.find(node_identity);
  if (node->second.attempt_at <= now) return node_identity;
  if (node->second.certificate.not_after <= now) return "";  // nothing else works without it
  for (const auto& [identity, entry] : entries) {
    if (entry.attempt_at <= now) return identity;
  }
  return "";
}

int64_t Certificates::State::NextAttempt() const {
  int64_t next = Now() + 3600;
  for (const auto& [identity, entry] : entries) next = std::min(next, entry.attempt_at);
  return next;
}

Task<void> Certificates::Run() {
  std::shared_ptr<State> s = state_;
  asio::steady_timer timer(s->executor);
  while (!s->stopped) {
    const std::string due = s->NextDue(Now());
    if (!due.empty()) {
      co_await s->Attempt(due);
      continue;
    }
    const int64_t wait = std::max<int64_t>(1, s->NextAttempt() - Now());
    timer.expires_after(std::chrono::seconds(wait));
    timer.async_wait([s](boost::system::error_code error) {
      if (!error) s->wake.Notify();
    });
    co_await s->wake.Wait();
    timer.cancel();
  }
}

void Certificates::Stop() {
  state_->stopped = true;
  state_->wake.Notify();
}

}  // namespace weft::agent
