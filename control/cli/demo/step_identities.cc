// SPDX-License-Identifier: Apache-2.0
// Step 2: who called whom, as SPIFFE ids, from both ends.
#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

using nlohmann::json;
constexpr const char* kClient = "spiffe://cluster.local/ns/demo/sa/client";
constexpr const char* kRedis = "spiffe://cluster.local/ns/demo/sa/redis";

// The newest flow of that kind from the client to redis-b, if it is there yet.
json FindFlow(Story& story, const std::string& node, const std::string& kind) {
  auto flows = story.Proxy(node, "/flows");
  json found;
  if (!flows.ok() || !flows->is_array()) return found;
  for (const json& flow : *flows) {
    if (flow.value("kind", "") == kind && flow.value("destination", "") == "10.244.2.20:6379") {
      found = flow;
    }
  }
  return found;
}

absl::Status CheckFlow(const std::string& end, const json& flow) {
  if (flow.value("source_identity", "") != kClient ||
      flow.value("destination_identity", "") != kRedis || !flow.value("mutual_tls", false)) {
    return DoesNotHold(end + " did not verify both identities: " + flow.dump());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status StepIdentities(Story& story) {
  WEFT_ASSIGN_OR_RETURN(RunResult ping,
                        story.mesh().In("client", {"redis-cli", "-h", "10.244.2.20", "ping"}));
  if (ping.out != "PONG\n") return DoesNotHold("redis-b did not answer: " + ping.out + ping.err);
  for (const auto& [node, kind, who] :
       {std::tuple("node-a", "outbound_tcp", "calling end (node-a's proxy)"),
        std::tuple("node-b", "inbound_tunnel", "called end (node-b's proxy)")}) {
    json flow;
    const bool seen = WaitFor(std::chrono::seconds(5), [&, n = node, k = kind] {
      flow = FindFlow(story, n, k);
      return !flow.is_null();
    });
    if (!seen) return DoesNotHold(std::string(who) + " reports no such connection");
    story.Say(absl::StrCat(who, ": ", flow.value("source_identity", "?"), " -> ",
                           flow.value("destination_identity", "?"), ", mutual TLS"));
    story.Figure(kind, {{"source_identity", flow.value("source_identity", "")},
                        {"destination_identity", flow.value("destination_identity", "")}});
    WEFT_RETURN_IF_ERROR(CheckFlow(who, flow));
  }
  return absl::OkStatus();
}

}  // namespace weft::cli
