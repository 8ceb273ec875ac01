// SPDX-License-Identifier: Apache-2.0
// Keeps a certificate for the node and for each identity of this node's workloads: key and CSR from
// weft-keyd, signature from weft-control, renewed at half of its life with jitter, served until it
// expires. Thread: the executor's. Owns what was issued.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "control/agent/options.h"
#include "proxy/base/task.h"
#include "proxy/ipc/keyd_control.h"
#include "proxy/ipc/remote_signer.h"
#include "proxy/net/dial.h"
#include "proxy/tls/tls_context.h"
#include "xds/model/workload.h"

namespace weft::agent {

// Tenants towards weft-keyd and weft-sockets. `isolation: node` has one for all workloads.
inline constexpr uint32_t kAgentTenant = 1;
inline constexpr uint32_t kNodeTenant = 2;

struct CertificateStatus {
  std::string identity;
  int64_t not_after = 0;  // 0: none yet
  int64_t renew_at = 0;
  bool alarm = false;  // past its renewal and failing, or none
  std::string error;   // of the last attempt; empty: it worked
};

class Certificates final {
 public:
  using OnCertificate = std::function<void(const model::Certificate&)>;

  // `on_certificate` hears of each new chain of a workload's identity.
  Certificates(asio::any_io_executor executor, const Options& options, std::string root_pem,
               OnCertificate on_certificate);
  ~Certificates();

  // Call whenever weft-keyd was started, and before Run: its keys are new, so everything is made
  // again.
  absl::Status UseKeyd(const std::string& socket_path);
  // From now on there should be a certificate for `identity`. Idempotent.
  void Want(const std::string& identity);
  void Unwant(const std::string& identity);
  // Asks for what is missing or due, until Stop().
  Task<void> Run();
  void Stop();

  // A TLS stream to weft-control as this node: mutual once it has joined. What the xDS client uses.
  Task<net::StatusOrStream> ConnectToControl();
  bool joined() const;
  bool Has(const std::string& identity) const;
  std::vector<CertificateStatus> status() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::agent
