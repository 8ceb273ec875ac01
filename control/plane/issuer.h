// SPDX-License-Identifier: Apache-2.0
// Who gets which certificate (DESIGN.md 8, "Joining"): a join token buys the node's own one; a
// node's certificate buys those of the identities that run on that node. Everything else is refused
// with the reason. Thread: one. Borrows the CA and the tokens.
#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "control/identity/ca.h"
#include "control/plane/join_tokens.h"
#include "xds/server/server.h"

namespace weft::plane {

struct IssuerOptions {
  std::string trust_domain = "cluster.local";
  std::chrono::seconds lifetime{3600};  // also the most that may be asked for
};

class Issuer final {
 public:
  // Does a workload with that SPIFFE id run on that node?
  using RunsOn = std::function<bool(std::string_view identity, std::string_view node)>;

  // All must outlive the issuer.
  Issuer(IssuerOptions options, const identity::CertificateAuthority& ca, JoinTokens& tokens,
         RunsOn runs_on)
      : options_(std::move(options)), ca_(ca), tokens_(tokens), runs_on_(std::move(runs_on)) {}

  // One call of CreateCertificate.
  xds::GrpcReply Create(const xds::GrpcRequest& request);

 private:
  struct Verdict {
    std::string identity;  // what may be signed; empty: refused
    std::string refusal;
  };
  Verdict Decide(const xds::GrpcRequest& request, const std::string& wanted);
  Verdict DecideForNode(const std::string& node, const std::string& node_identity,
                        const std::string& wanted) const;

  const IssuerOptions options_;
  const identity::CertificateAuthority& ca_;
  JoinTokens& tokens_;
  const RunsOn runs_on_;
};

// "spiffe://TD/weft/node/NAME" -> NAME; empty: no node identity of that trust domain.
std::string NodeOfIdentity(std::string_view identity, std::string_view trust_domain);
std::string NodeIdentity(std::string_view node, std::string_view trust_domain);

}  // namespace weft::plane
