// SPDX-License-Identifier: Apache-2.0
#include "xds/client/ads_state.h"

#include <xxhash.h>

#include <algorithm>

#include "envoy/service/discovery/v3/discovery.pb.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "xds/wire/authorization.pb.h"
#include "xds/wire/policy.pb.h"

namespace weft::xds {
namespace {

namespace ds = envoy::service::discovery::v3;
using std::chrono::milliseconds;

constexpr size_t kMaxErrors = 20;  // named in one NACK; the rest is counted
constexpr std::string_view kWrapped = "type.googleapis.com/envoy.service.discovery.v3.Resource";

// A server may answer a NACK with the same again at once: the second one in a row waits, each
// further one twice as long.
milliseconds NackDelay(int nacks_in_a_row) {
  if (nacks_in_a_row <= 1) return milliseconds(0);
  return std::min(milliseconds(100) * (1 << std::min(nacks_in_a_row - 2, 10)), milliseconds(2000));
}

std::string JoinErrors(const std::vector<std::string>& errors) {
  std::string out;
  for (size_t i = 0; i < errors.size() && i < kMaxErrors; ++i) {
    out.append(i == 0 ? "" : "; ").append(errors[i], 0, 1024);
  }
  if (errors.size() > kMaxErrors) {
    out += "; and " + std::to_string(errors.size() - kMaxErrors) + " more";
  }
  return out;
}

// Stands for a policy that could not be read and has no good version: nobody knows what it forbids,
// so it forbids everything where it would have held. What of it can be read tells where; else its
// name's namespace.
Update::Changed StandIn(const std::string& name, std::shared_ptr<const std::string> bytes,
                        Decoded decoded) {
  return {.name = name,
          .version = "",
          .bytes = std::move(bytes),
          .resource = std::move(decoded.resource)};
}

std::optional<Update::Changed> DenyAuthorization(const std::string& name, const std::string& bytes,
                                                 const DecodeOptions& options) {
  istio::security::Authorization read, deny;
  deny.set_scope(istio::security::NAMESPACE);
  if (read.ParseFromString(bytes) && istio::security::Scope_IsValid(read.scope())) {
    deny.set_scope(read.scope());
  }
  const size_t slash = name.find('/');
  deny.set_namespace_(name.substr(0, slash));
  deny.set_name(slash == std::string::npos ? name : name.substr(slash + 1));
  deny.set_action(istio::security::DENY);
  deny.add_groups();  // without a rule: matches everything
  auto out = std::make_shared<const std::string>(deny.SerializeAsString());
  absl::StatusOr<Decoded> decoded = DecodeResource(kAuthorizationType, *out, options);
  if (!decoded.ok() || decoded->name != name) return std::nullopt;
  return StandIn(name, out, *std::move(decoded));
}

// Its subjects, where they can be read, are cut off in both directions.
std::optional<Update::Changed> DenyNetwork(const std::string& name, const std::string& bytes,
                                           const DecodeOptions& options) {
  weft::policy::v1::NetworkPolicy read, deny;
  if (!read.ParseFromString(bytes)) return std::nullopt;
  const std::set<std::string> subjects(read.subjects().begin(), read.subjects().end());
  for (const std::string& uid : subjects) {
    if (!uid.empty()) deny.add_subjects(uid);
  }
  const size_t slash = name.find('/');
  deny.set_namespace_(name.substr(0, slash));
  deny.set_name(slash == std::string::npos ? name : name.substr(slash + 1));
  deny.set_isolates_ingress(true);
  deny.set_isolates_egress(true);
  auto out = std::make_shared<const std::string>(deny.SerializeAsString());
  absl::StatusOr<Decoded> decoded = DecodeResource(kNetworkPolicyType, *out, options);
  if (!decoded.ok() || decoded->name != name) return std::nullopt;
  return StandIn(name, out, *std::move(decoded));
}

std::optional<Update::Changed> DenyInstead(std::string_view type_url, const std::string& name,
                                           const std::string& bytes, const DecodeOptions& options) {
  if (type_url == kAuthorizationType) return DenyAuthorization(name, bytes, options);
  if (type_url == kNetworkPolicyType) return DenyNetwork(name, bytes, options);
  return std::nullopt;
}

}  // namespace

AdsState::AdsState(const ClientOptions& options, Client::OnUpdate on_update)
    : variant_(options.variant),
      node_id_(options.node_id),
      node_cluster_(options.node_cluster),
      node_metadata_(options.node_metadata),
      decode_(options.decode),
      on_update_(std::move(on_update)) {
  for (const std::string& type_url : options.wildcard_types) Type(type_url).wildcard = true;
  for (const std::string& type_url : options.policy_types) {
    Type(type_url).wildcard = Type(type_url).policy = true;
  }
  status_.since = std::chrono::system_clock::now();
  status_.last_error = "not connected yet";
}

AdsState::TypeState& AdsState::Type(std::string_view type_url) {
  const auto [at, added] = types_.try_emplace(std::string(type_url));
  if (added) at->second.status.type_url = type_url;
  return at->second;
}

void AdsState::OnConnected() {
  connected_ = true;
  node_sent_ = serves_policies_ = false;
  status_.connected = true;
  status_.since = std::chrono::system_clock::now();
  status_.connects++;
  for (auto& [type_url, type] : types_) {
    type.asked = false;
    type.asked_names.clear();
    type.dropped.clear();
    type.nonce.clear();
    type.answer.reset();
    type.nacks_in_a_row = 0;
  }
}

void AdsState::OnDisconnected(std::string why) {
  if (status_.connected) status_.since = std::chrono::system_clock::now();
  connected_ = status_.connected = false;
  status_.last_error = std::move(why);
}

void AdsState::SetNames(std::string_view type_url, std::set<std::string> names) {
  TypeState& type = Type(type_url);
  type.names = std::move(names);
  for (const std::string& name : type.asked_names) {
    if (!type.names.contains(name)) type.dropped.insert(name);
  }
  // What nobody asks for any more is forgotten, so that asking again brings it again.
  if (!type.wildcard) {
    std::erase_if(type.held, [&](const auto& held) { return !type.names.contains(held.first); });
  }
}

bool AdsState::Wants(const TypeState& type, const std::string& name) const {
  return type.wildcard || type.names.contains(name);
}

absl::Status AdsState::OnMessage(std::string_view bytes, Clock::time_point now) {
  return variant_ == Variant::kDelta ? OnDelta(bytes, now) : OnFullState(bytes, now);
}

// `name` is empty if only the resource itself says it.
void AdsState::TakeOne(TypeState& type, Incoming& incoming, std::string_view name,
                       const std::string& version, std::string_view type_url,
                       const std::string& bytes) {
  absl::StatusOr<Decoded> decoded = DecodeResource(type_url, bytes, decode_);
  std::string key(name);
  if (key.empty()) key = decoded.ok() ? decoded->name : ResourceName(type_url, bytes);
  if (key.empty()) incoming.nameless = true;
  if (!key.empty() && !Wants(type, key)) return;  // not asked for: neither good nor bad
  if (!key.empty() && !incoming.seen.insert(key).second) {
    incoming.bad.insert(key);
    incoming.errors.push_back(key + ": is there twice in one response");
    return;
  }
  if (decoded.ok() && decoded->name != key) {
    decoded = absl::InvalidArgumentError(key + ": calls itself \"" + decoded->name + "\"");
  }
  if (!decoded.ok()) {
    incoming.bad.insert(key);
    incoming.errors.emplace_back(StdView(decoded.status().message()));
    if (!type.held.contains(key)) {
      if (auto deny = DenyInstead(type_url, key, bytes, decode_)) {
        type.stand_ins.insert(key);
        incoming.stand_ins.push_back(std::move(*deny));
      }
    }
    return;
  }
  const uint64_t hash = XXH3_64bits(bytes.data(), bytes.size());
  const auto held = type.held.find(key);
  if (held != type.held.end() && held->second.hash == hash) {
    held->second.version = version;
    return;
  }
  incoming.update.changed.push_back({.name = std::move(key),
                                     .version = version,
                                     .bytes = std::make_shared<const std::string>(bytes),
                                     .resource = std::move(decoded->resource)});
}

absl::Status AdsState::OnDelta(std::string_view bytes, Clock::time_point now) {
  ds::DeltaDiscoveryResponse response;
  if (!response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the server's message does not parse");
  }
  serves_policies_ |= response.control_plane().identifier() == kPolicyServer;
  const auto at = types_.find(response.type_url());
  if (at == types_.end() || !at->second.asked) return absl::OkStatus();  // never asked for
  TypeState& type = at->second;
  Incoming incoming;
  for (const ds::Resource& resource : response.resources()) {
    if (!resource.has_resource()) continue;  // a heartbeat
    if (resource.name().empty() || resource.resource().type_url() != response.type_url()) {
      incoming.errors.push_back("resource \"" + resource.name() + "\" of type " +
                                resource.resource().type_url() +
                                ": has no name or is of another type than the response");
      continue;
    }
    TakeOne(type, incoming, resource.name(), resource.version(), response.type_url(),
            resource.resource().value());
  }
  std::set<std::string> removed;
  for (const std::string& name : response.removed_resources()) {
    if (incoming.seen.contains(name)) {
      incoming.bad.insert(name);
      incoming.errors.push_back(name + ": is there and removed in one response");
      continue;
    }
    // A name asked for and not there is news too, though nothing is taken away.
    if (type.held.contains(name) || type.stand_ins.contains(name) || type.names.contains(name)) {
      removed.insert(name);
    }
  }
  incoming.update.removed.assign(removed.begin(), removed.end());
  Conclude(at->first, type, std::move(incoming), response.system_version_info(), response.nonce(),
           now);
  return absl::OkStatus();
}

absl::Status AdsState::OnFullState(std::string_view bytes, Clock::time_point now) {
  ds::DiscoveryResponse response;
  if (!response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the server's message does not parse");
  }
  serves_policies_ |= response.control_plane().identifier() == kPolicyServer;
  const auto at = types_.find(response.type_url());
  if (at == types_.end() || !at->second.asked) return absl::OkStatus();  // never asked for
  TypeState& type = at->second;
  Incoming incoming;
  for (const google::protobuf::Any& any : response.resources()) {
    ds::Resource wrapped;
    const bool is_wrapped = any.type_url() == kWrapped && wrapped.ParseFromString(any.value());
    const google::protobuf::Any& resource = is_wrapped ? wrapped.resource() : any;
    if (resource.type_url() != response.type_url()) {
      incoming.nameless = true;
      incoming.errors.push_back("a resource of type " + resource.type_url() +
                                ": is of another type than the response");
      continue;
    }
    TakeOne(type, incoming, wrapped.name(), response.version_info(), response.type_url(),
            resource.value());
  }
  // Subscribed to as a whole: what is missing is gone, unless it may be what could not be read.
  if (type.wildcard && !incoming.nameless) {
    for (const auto& [name, held] : type.held) {
      if (!incoming.seen.contains(name)) incoming.update.removed.push_back(name);
    }
    for (const std::string& name : type.stand_ins) {
      if (!incoming.seen.contains(name)) incoming.update.removed.push_back(name);
    }
  }
  Conclude(at->first, type, std::move(incoming), response.version_info(), response.nonce(), now);
  return absl::OkStatus();
}

void AdsState::Conclude(const std::string& type_url, TypeState& type, Incoming incoming,
                        const std::string& version, const std::string& nonce,
                        Clock::time_point now) {
  // A name that is good once and bad once in the response is bad.
  std::erase_if(incoming.update.changed,
                [&](const Update::Changed& c) { return incoming.bad.contains(c.name); });
  for (const Update::Changed& changed : incoming.update.changed) {
    type.held[changed.name] = {changed.version,
                               XXH3_64bits(changed.bytes->data(), changed.bytes->size())};
    type.stand_ins.erase(changed.name);
  }
  for (Update::Changed& deny : incoming.stand_ins)
    incoming.update.changed.push_back(std::move(deny));
  for (const std::string& name : incoming.update.removed) {
    type.held.erase(name);
    type.stand_ins.erase(name);
  }
  type.nonce = nonce;
  type.status.updates++;
  const auto wall = std::chrono::system_clock::now();
  type.status.last_update = wall;
  const std::string error = JoinErrors(incoming.errors);
  if (error.empty()) {
    type.version = version;
    type.nacks_in_a_row = 0;
    type.status.last_nack.clear();
  } else {
    type.nacks_in_a_row++;
    type.status.nacks++;
    type.status.last_nack = error;
    type.status.last_nack_at = wall;
    LogWarning("refused configuration from the xDS server; the last good version stays",
               {{"type", type_url}, {"version", version}, {"error", error}});
  }
  type.answer = {nonce, error, now + NackDelay(type.nacks_in_a_row)};
  incoming.update.type_url = type_url;
  incoming.update.serves_policies = serves_policies_;
  if (on_update_) on_update_(incoming.update);  // may call SetNames
}

std::vector<std::string> AdsState::TakeRequests(Clock::time_point now) {
  std::vector<std::string> out;
  if (!connected_) return out;
  const auto add = [&](const std::string& type_url, TypeState& type) {
    if (variant_ == Variant::kDelta) {
      AddDeltaRequests(type_url, type, now, &out);
    } else {
      AddFullRequests(type_url, type, now, &out);
    }
  };
  for (std::string_view type_url : kTypeOrder) {
    const auto at = types_.find(type_url);
    if (at != types_.end() && (!at->second.policy || serves_policies_)) {
      add(at->first, at->second);
    }
  }
  for (auto& [type_url, type] : types_) {
    if (std::find(kTypeOrder.begin(), kTypeOrder.end(), type_url) == kTypeOrder.end()) {
      add(type_url, type);
    }
  }
  return out;
}

template <typename Request>
void AdsState::AddNode(Request* request) {
  if (node_sent_) return;
  node_sent_ = true;
  auto* node = request->mutable_node();
  node->set_id(node_id_);
  node->set_cluster(node_cluster_);
  node->set_user_agent_name("weft");
  for (const auto& [key, value] : node_metadata_) {
    (*node->mutable_metadata()->mutable_fields())[key].set_string_value(value);
  }
}

void AdsState::AddDeltaRequests(const std::string& type_url, TypeState& type, Clock::time_point now,
                                std::vector<std::string>* out) {
  if (!type.asked) {
    if (!type.wildcard && type.names.empty()) return;
    ds::DeltaDiscoveryRequest request;
    AddNode(&request);
    request.set_type_url(type_url);
    if (type.wildcard) request.add_resource_names_subscribe("*");
    for (const std::string& name : type.names) request.add_resource_names_subscribe(name);
    // What is held is good: a refused version is never held.
    for (const auto& [name, held] : type.held) {
      (*request.mutable_initial_resource_versions())[name] = held.version;
    }
    type.asked = true;
    type.asked_names = type.names;
    out->push_back(request.SerializeAsString());
    return;
  }
  if (type.answer && type.answer->not_before <= now) {
    ds::DeltaDiscoveryRequest request;
    request.set_type_url(type_url);
    request.set_response_nonce(type.answer->nonce);
    if (!type.answer->error.empty()) {
      request.mutable_error_detail()->set_code(
          static_cast<int>(absl::StatusCode::kInvalidArgument));
      request.mutable_error_detail()->set_message(type.answer->error);
    }
    type.answer.reset();
    out->push_back(request.SerializeAsString());
  }
  if (type.names == type.asked_names && type.dropped.empty()) return;
  ds::DeltaDiscoveryRequest request;  // not an answer: without a nonce
  request.set_type_url(type_url);
  for (const std::string& name : type.names) {
    // Dropped and wanted again: asking once more brings it once more.
    if (!type.asked_names.contains(name) || type.dropped.contains(name)) {
      request.add_resource_names_subscribe(name);
    }
  }
  type.dropped.clear();
  for (const std::string& name : type.asked_names) {
    if (!type.names.contains(name)) request.add_resource_names_unsubscribe(name);
  }
  type.asked_names = type.names;
  out->push_back(request.SerializeAsString());
}

std::string AdsState::FullRequest(const std::string& type_url, const TypeState& type,
                                  const std::set<std::string>& names) {
  ds::DiscoveryRequest request;
  AddNode(&request);
  request.set_type_url(type_url);
  for (const std::string& name : names) request.add_resource_names(name);
  // The version of another set of names says nothing on a new stream: ask again for those.
  if (type.asked || type.wildcard) request.set_version_info(type.version);
  request.set_response_nonce(type.nonce);
  if (type.answer && !type.answer->error.empty()) {
    request.mutable_error_detail()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
    request.mutable_error_detail()->set_message(type.answer->error);
  }
  return request.SerializeAsString();
}

void AdsState::AddFullRequests(const std::string& type_url, TypeState& type, Clock::time_point now,
                               std::vector<std::string>* out) {
  // Without a name ever given, an empty list would ask for everything.
  if (!type.asked && !type.wildcard && type.names.empty()) return;
  const bool answer_due = type.answer && type.answer->not_before <= now;
  const bool same_names = type.names == type.asked_names && type.dropped.empty();
  if (type.asked && !answer_due && same_names) return;
  // Dropped and wanted again: first without, then with it, so that it comes once more.
  std::set<std::string> names = type.names;
  const size_t without =
      std::erase_if(names, [&](const std::string& name) { return type.dropped.contains(name); });
  type.dropped.clear();
  if (without > 0) out->push_back(FullRequest(type_url, type, names));
  out->push_back(FullRequest(type_url, type, type.names));
  type.answer.reset();
  type.asked = true;
  type.asked_names = type.names;
}

std::optional<AdsState::Clock::time_point> AdsState::next_deadline() const {
  std::optional<Clock::time_point> out;
  if (!connected_) return out;
  for (const auto& [type_url, type] : types_) {
    if (type.answer && (!out || type.answer->not_before < *out)) out = type.answer->not_before;
  }
  return out;
}

ClientStatus AdsState::status() const {
  ClientStatus out = status_;
  for (const auto& [type_url, type] : types_) {
    TypeStatus& to = out.types.emplace_back(type.status);
    to.resources = type.held.size();
    to.version = type.version;
  }
  return out;
}

}  // namespace weft::xds
