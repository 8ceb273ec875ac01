// SPDX-License-Identifier: Apache-2.0
#include "xds/server/ads_stream.h"

#include <algorithm>
#include <vector>

#include "envoy/service/discovery/v3/discovery.pb.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "xds/server/encode_internal.h"

namespace weft::xds {
namespace {

namespace ds = envoy::service::discovery::v3;

constexpr size_t kMaxTypes = 64;  // a stream may ask for; ours are 9

AdsNode DecodeNode(const envoy::config::core::v3::Node& in) {
  AdsNode out{.id = in.id(), .cluster = in.cluster()};
  for (const auto& [key, value] : in.metadata().fields()) {
    if (value.kind_case() == google::protobuf::Value::kStringValue) {
      out.metadata[key] = value.string_value();
    }
  }
  return out;
}

}  // namespace

AdsStream::AdsStream(bool delta, const ServerOptions& options, GrpcPeer peer,
                     http::HeaderList metadata)
    : delta_(delta), options_(options), peer_(std::move(peer)), metadata_(std::move(metadata)) {}

absl::Status AdsStream::OnRequest(std::string_view bytes) {
  return delta_ ? OnDelta(bytes) : OnFullState(bytes);
}

void AdsStream::OnCacheChanged(const std::set<std::string>& types) {
  for (const std::string& type_url : types) {
    const auto at = types_.find(type_url);
    if (at != types_.end()) at->second.due = true;
  }
}

template <typename Request>
absl::Status AdsStream::Begin(const Request& request) {
  if (!admitted_) {
    node_ = DecodeNode(request.node());
    if (options_.admit) WEFT_RETURN_IF_ERROR(options_.admit(peer_, node_, metadata_));
    admitted_ = true;
    if (options_.on_stream) options_.on_stream(peer_, node_, true);
  }
  if (request.type_url().empty()) return absl::InvalidArgumentError("type_url: missing");
  if (types_.size() >= kMaxTypes && !types_.contains(request.type_url())) {
    return absl::ResourceExhaustedError("too many types on one stream");
  }
  return absl::OkStatus();
}

absl::Status AdsStream::CheckNames() const {
  size_t names = 0, bytes = 0;
  const auto count = [&](const std::string& name) {
    ++names;
    bytes += name.size();
  };
  for (const auto& [type_url, type] : types_) {
    for (const std::string& name : type.names) count(name);
    // What a wildcard was answered is ours and bounded by the cache; another name under `sent`, or
    // one to be answered, came from the client.
    for (const auto& [name, version] : type.sent) {
      if (!type.names.contains(name) && options_.cache->Find(type_url, name) == nullptr) {
        count(name);
        bytes += version.size();
      }
    }
    for (const std::string& name : type.again) {
      if (!type.names.contains(name)) count(name);
    }
  }
  if (names <= options_.max_names && bytes <= options_.max_name_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError("more names on one stream than " +
                                      std::to_string(options_.max_names) + ", or of more than " +
                                      std::to_string(options_.max_name_bytes) + " bytes");
}

void AdsStream::Nack(const std::string& type_url, const TypeState& type, const std::string& error) {
  LogWarning("a client refuses a configuration",
             {{"node", node_.id}, {"peer", peer_.address}, {"type", type_url}, {"error", error}});
  if (options_.on_nack) options_.on_nack({node_, peer_, type_url, type.last_version, error});
}

void AdsStream::Subscribe(TypeState& type, const std::string& name, bool first) {
  if (name == "*") {
    type.wildcard = true;
    return;
  }
  type.names.insert(name);
  type.told_missing.erase(name);
  // Asking once more for what it has means that it wants it again; at first `sent` is what it has
  // kept.
  if (!first) type.again.insert(name);
}

void AdsStream::Unsubscribe(TypeState& type, const std::string& name) {
  if (name == "*") {
    type.wildcard = false;
    std::erase_if(type.sent, [&](const auto& entry) { return !type.names.contains(entry.first); });
    return;
  }
  if (type.names.erase(name) == 0) return;
  if (type.wildcard) {
    type.again.insert(name);  // it must hear whether it still gets it
  } else {
    type.sent.erase(name);
    type.again.erase(name);
  }
}

absl::Status AdsStream::OnDelta(std::string_view bytes) {
  ds::DeltaDiscoveryRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the request does not parse");
  }
  WEFT_RETURN_IF_ERROR(Begin(request));
  const auto [at, first] = types_.try_emplace(request.type_url());
  TypeState& type = at->second;
  const std::string& nonce = request.response_nonce();
  if (!nonce.empty() && nonce == type.outstanding) {
    type.outstanding.clear();
    type.due = true;
    if (request.has_error_detail()) {
      Nack(request.type_url(), type, request.error_detail().message());
    }
  }
  if (first) {
    for (const auto& [name, version] : request.initial_resource_versions()) {
      type.sent[name] = version;
    }
    if (request.resource_names_subscribe().empty()) type.wildcard = true;
  }
  for (const std::string& name : request.resource_names_subscribe()) Subscribe(type, name, first);
  for (const std::string& name : request.resource_names_unsubscribe()) Unsubscribe(type, name);
  const bool changes =
      request.resource_names_subscribe_size() + request.resource_names_unsubscribe_size() > 0;
  if (changes) type.due = true;
  return changes || first ? CheckNames() : absl::OkStatus();
}

absl::Status AdsStream::OnFullState(std::string_view bytes) {
  ds::DiscoveryRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("the request does not parse");
  }
  WEFT_RETURN_IF_ERROR(Begin(request));
  const auto [at, first] = types_.try_emplace(request.type_url());
  TypeState& type = at->second;
  const std::string& nonce = request.response_nonce();
  // An answer to a response that a newer one has overtaken; the answer to that one is on its way.
  if (!first && !nonce.empty() && nonce != type.last_nonce) return absl::OkStatus();
  if (!nonce.empty() && nonce == type.outstanding) {
    type.outstanding.clear();
    type.due = true;
    if (request.has_error_detail()) {
      Nack(request.type_url(), type, request.error_detail().message());
    }
  }
  if (first) type.last_version = request.version_info();  // kept from an earlier stream
  std::set<std::string> names(request.resource_names().begin(), request.resource_names().end());
  const bool star = names.erase("*") > 0;
  if (!names.empty() || star) type.named = true;
  const bool wildcard = star || !type.named;
  const bool changes = names != type.names;
  if (changes || wildcard != type.wildcard) type.due = true;
  type.names = std::move(names);
  type.wildcard = wildcard;
  return changes ? CheckNames() : absl::OkStatus();
}

std::optional<std::string> AdsStream::NextResponse() {
  for (std::string_view type_url : kTypeOrder) {
    if (auto out = NextOf(std::string(type_url))) return out;
  }
  for (const auto& [type_url, type] : types_) {
    if (auto out = NextOf(type_url)) return out;
  }
  return std::nullopt;
}

std::optional<std::string> AdsStream::NextOf(const std::string& type_url) {
  const auto at = types_.find(type_url);
  if (at == types_.end()) return std::nullopt;
  TypeState& type = at->second;
  if (!type.due || !type.outstanding.empty()) return std::nullopt;
  return delta_ ? DeltaResponse(type_url, type) : FullResponse(type_url, type);
}

const CachedResource* AdsStream::Visible(const std::string& type_url,
                                         const std::string& name) const {
  const CachedResource* resource = options_.cache->Find(type_url, name);
  if (resource == nullptr || !options_.visible) return resource;
  return options_.visible(peer_, node_, type_url, name) ? resource : nullptr;
}

std::string AdsStream::NextNonce() { return std::to_string(next_nonce_++); }

std::optional<std::string> AdsStream::DeltaResponse(const std::string& type_url, TypeState& type) {
  // Whatever the client has or wants; the names are copied, the answer changes the sets they come
  // from.
  std::set<std::string> candidates = type.names;
  candidates.insert(type.again.begin(), type.again.end());
  for (const auto& [name, version] : type.sent) candidates.insert(name);
  if (type.wildcard) {
    for (const auto& [name, resource] : options_.cache->OfType(type_url)) candidates.insert(name);
  }
  ds::DeltaDiscoveryResponse response;
  size_t bytes = 0;
  bool more = false;
  for (const std::string& name : candidates) {
    const bool wanted = type.wildcard || type.names.contains(name);
    const bool again = type.again.contains(name);
    const CachedResource* resource = wanted ? Visible(type_url, name) : nullptr;
    const auto has = type.sent.find(name);
    if (resource == nullptr) {
      const bool tell = has != type.sent.end() || again ||
                        (type.names.contains(name) && !type.told_missing.contains(name));
      if (!tell) continue;
      response.add_removed_resources(name);
      type.sent.erase(name);
      if (type.names.contains(name)) type.told_missing.insert(name);
      type.again.erase(name);
      continue;
    }
    if (!again && has != type.sent.end() && has->second == resource->version) continue;
    if (bytes > 0 && bytes + resource->bytes->size() > options_.max_response_bytes) {
      more = true;
      break;
    }
    bytes += resource->bytes->size() + name.size() + 128;
    ds::Resource* to = response.add_resources();
    to->set_name(name);
    to->set_version(resource->version);
    to->mutable_resource()->set_type_url(type_url);
    to->mutable_resource()->set_value(*resource->bytes);
    type.sent[name] = resource->version;
    type.told_missing.erase(name);
    type.again.erase(name);
  }
  type.due = more;
  const bool empty = response.resources().empty() && response.removed_resources().empty();
  // The first request is answered even with nothing: the client must know that there is nothing to
  // wait for.
  if (empty && type.answered) return std::nullopt;
  type.answered = true;
  type.outstanding = type.last_nonce = NextNonce();
  type.last_version = type.last_nonce;
  response.set_type_url(type_url);
  response.set_nonce(type.last_nonce);
  response.set_system_version_info(type.last_version);
  response.mutable_control_plane()->set_identifier(std::string(kPolicyServer));
  return Serialize(response);
}

std::optional<std::string> AdsStream::FullResponse(const std::string& type_url, TypeState& type) {
  type.due = false;
  std::vector<std::pair<std::string, const CachedResource*>> resources;
  if (type.wildcard) {
    for (const auto& [name, resource] : options_.cache->OfType(type_url)) {
      if (const CachedResource* visible = Visible(type_url, name)) {
        resources.emplace_back(name, visible);
      }
    }
  } else {
    for (const std::string& name : type.names) {
      if (const CachedResource* visible = Visible(type_url, name)) {
        resources.emplace_back(name, visible);
      }
    }
  }
  // Made of what it stands for: the same after a restart of the server, another one for other
  // names.
  std::string parts = type.wildcard ? "*" : "";
  for (const auto& [name, resource] : resources) {
    parts.append(name).append(1, '\0').append(resource->version).append(1, '\0');
  }
  if (!type.wildcard) {
    for (const std::string& name : type.names) parts.append(1, '\1').append(name);
  }
  const std::string version = ContentVersion(parts);
  if (version == type.last_version) return std::nullopt;
  type.outstanding = type.last_nonce = NextNonce();
  type.last_version = version;
  ds::DiscoveryResponse response;
  response.set_type_url(type_url);
  response.set_nonce(type.last_nonce);
  response.set_version_info(version);
  response.mutable_control_plane()->set_identifier(std::string(kPolicyServer));
  for (const auto& [name, resource] : resources) {
    google::protobuf::Any* to = response.add_resources();
    to->set_type_url(type_url);
    to->set_value(*resource->bytes);
  }
  return Serialize(response);
}

}  // namespace weft::xds
