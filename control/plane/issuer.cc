// SPDX-License-Identifier: Apache-2.0
#include "control/plane/issuer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"
#include "proxy/base/log.h"
#include "proxy/tls/spiffe.h"
#include "xds/decode/ca_messages.h"
#include "xds/model/authorization.h"

namespace weft::plane {
namespace {

constexpr std::string_view kBearer = "Bearer ";
// Identities come from peers; this much of one is enough for a message.
constexpr size_t kMaxShown = 300;

std::string Shown(std::string_view text) { return std::string(text.substr(0, kMaxShown)); }

}  // namespace

std::string NodeIdentity(std::string_view node, std::string_view trust_domain) {
  return absl::StrCat("spiffe://", AbslView(trust_domain), "/weft/node/", AbslView(node));
}

std::string NodeOfIdentity(std::string_view identity, std::string_view trust_domain) {
  const std::string prefix = NodeIdentity("", trust_domain);
  if (!identity.starts_with(prefix)) return "";
  const std::string_view node = identity.substr(prefix.size());
  return IsObjectName(node) ? std::string(node) : "";
}

Issuer::Verdict Issuer::DecideForNode(const std::string& node, const std::string& node_identity,
                                      const std::string& wanted) const {
  if (wanted.empty() || wanted == node_identity) return {.identity = node_identity};
  const auto parts = model::ParseIdentity(wanted);
  if (!parts.has_value() || !tls::IsValidSpiffeId(wanted)) {
    return {.refusal = absl::StrCat("\"", Shown(wanted), "\" is no workload identity")};
  }
  if (parts->trust_domain != options_.trust_domain) {
    return {.refusal = absl::StrCat("\"", Shown(wanted), "\" is not of the trust domain ",
                                    options_.trust_domain)};
  }
  if (!runs_on_(wanted, node)) {
    return {.refusal = absl::StrCat("no workload with the identity ", Shown(wanted),
                                    " runs on node ", node)};
  }
  return {.identity = wanted};
}

Issuer::Verdict Issuer::Decide(const xds::GrpcRequest& request, const std::string& wanted) {
  if (!request.peer.identity.empty()) {
    const std::string node = NodeOfIdentity(request.peer.identity, options_.trust_domain);
    if (node.empty()) {
      return {.refusal = absl::StrCat(Shown(request.peer.identity),
                                      " is not a node; only nodes may ask for certificates")};
    }
    return DecideForNode(node, request.peer.identity, wanted);
  }
  const auto header = request.metadata.Get("authorization");
  if (!header.has_value() || !header->starts_with(kBearer)) {
    return {.refusal = "neither a node's certificate nor a join token was shown"};
  }
  if (const absl::Status usable = tokens_.Refresh(); !usable.ok()) {
    // Why is for the operator: it names files of this host.
    LogError("No node can join", {{"cause", std::string(usable.message())}});
    return {.refusal = "join tokens are not accepted now; weft-control's log says why"};
  }
  const std::string node = tokens_.NodeOf(header->substr(kBearer.size()));
  if (node.empty()) return {.refusal = "the join token is not known"};
  const std::string identity = NodeIdentity(node, options_.trust_domain);
  if (!wanted.empty() && wanted != identity) {
    return {.refusal = absl::StrCat("a join token gives the node's own certificate (", identity,
                                    ") only; ask for others with that")};
  }
  return {.identity = identity};
}

xds::GrpcReply Issuer::Create(const xds::GrpcRequest& request) {
  const auto asked = xds::DecodeCertificateRequest(request.message);
  if (!asked.ok()) {
    return {.status = xds::GrpcStatus::kInvalidArgument,
            .error = std::string(asked.status().message())};
  }
  const Verdict verdict = Decide(request, asked->impersonated_identity);
  if (verdict.identity.empty()) {
    LogWarning(
        "Refused a certificate",
        {{"peer", request.peer.identity.empty() ? request.peer.address : request.peer.identity},
         {"asked", Shown(asked->impersonated_identity)},
         {"reason", verdict.refusal}});
    return {.status = xds::GrpcStatus::kPermissionDenied, .error = verdict.refusal};
  }
  std::chrono::seconds lifetime = options_.lifetime;
  if (asked->validity_seconds > 0)
    lifetime = std::min(lifetime, std::chrono::seconds(asked->validity_seconds));
  const auto chain = ca_.SignCsr(asked->csr_pem, verdict.identity, lifetime);
  if (!chain.ok()) {
    LogWarning("Refused a certificate request",
               {{"identity", verdict.identity},
                {"peer", request.peer.address},
                {"reason", std::string(chain.status().message())}});
    return {.status = xds::GrpcStatus::kInvalidArgument,
            .error = std::string(chain.status().message())};
  }
  LogInfo("Issued a certificate",
          {{"identity", verdict.identity},
           {"peer", request.peer.identity.empty() ? "join token" : request.peer.identity},
           {"seconds", std::to_string(lifetime.count())}});
  return {.message = xds::EncodeCertificateResponse({.chain_pem = chain->pem})};
}

}  // namespace weft::plane
