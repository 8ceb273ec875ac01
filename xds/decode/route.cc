// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

namespace rt = envoy::config::route::v3;

constexpr uint32_t kDefaultMaxBodyBytes = 4096;  // of a direct response

// What a route takes over from its virtual host unless it says otherwise, and a bound of the whole
// configuration.
struct Inherited {
  std::optional<model::RetryPolicy> retry;
  std::optional<uint64_t> buffer_bytes;
  uint32_t max_body_bytes = kDefaultMaxBodyBytes;
};

// The headers that a message of any level adds and removes.
template <typename T>
absl::Status DecodeBothSides(const T& in, std::vector<model::HeaderChange>* request,
                             std::vector<model::HeaderChange>* response) {
  WEFT_RETURN_IF_ERROR(DecodeHeaderChanges(
      "request", {in.request_headers_to_add(), in.request_headers_to_remove()}, request));
  return DecodeHeaderChanges(
      "response", {in.response_headers_to_add(), in.response_headers_to_remove()}, response);
}

template <typename T>
std::optional<uint64_t> BufferBytes(const T& in) {
  if (in.has_request_body_buffer_limit()) return in.request_body_buffer_limit().value();
  if (in.has_per_request_buffer_limit_bytes()) return in.per_request_buffer_limit_bytes().value();
  return std::nullopt;
}

absl::Status DecodeWeighted(const rt::WeightedCluster& in, model::Forward* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"clusters", "total_weight"}));
  if (in.clusters().empty()) return Bad("clusters: empty");
  uint64_t sum = 0;
  for (int i = 0; i < in.clusters_size(); ++i) {
    const auto& cluster = in.clusters(i);
    const std::string at = Indexed("clusters", i);
    WEFT_FIELD(at, OnlyFields(cluster, {"name", "weight", "request_headers_to_add",
                                        "request_headers_to_remove", "response_headers_to_add",
                                        "response_headers_to_remove"}));
    if (cluster.name().empty()) return Bad(at + ".name: missing");
    if (!cluster.has_weight()) return Bad(at + ".weight: missing");
    model::WeightedCluster& to = out->clusters.emplace_back();
    to.cluster = cluster.name();
    to.weight = cluster.weight().value();
    sum += to.weight;
    WEFT_FIELD(at, DecodeBothSides(cluster, &to.request_headers, &to.response_headers));
  }
  if (sum == 0 || sum > UINT32_MAX) return Bad("clusters: the weights must sum to 1..4294967295");
  if (in.has_total_weight() && in.total_weight().value() != sum) {
    return Bad("total_weight: is not the sum of the weights");
  }
  return absl::OkStatus();
}

absl::Status DecodeForward(const rt::RouteAction& in, const Inherited& inherited,
                           model::Forward* out) {
  if (in.priority() != envoy::config::core::v3::DEFAULT) return NotSupported("priority: HIGH");
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"cluster", "weighted_clusters", "prefix_rewrite", "host_rewrite_literal",
                      "timeout", "idle_timeout", "retry_policy"}));
  if (in.has_weighted_clusters()) {
    WEFT_FIELD("weighted_clusters", DecodeWeighted(in.weighted_clusters(), out));
  } else if (in.cluster().empty()) {
    return Bad("cluster: missing");
  } else {
    out->clusters.push_back({.cluster = in.cluster(), .weight = 1});
  }
  if (!in.prefix_rewrite().empty()) {
    WEFT_FIELD("prefix_rewrite", CheckHeaderValue(in.prefix_rewrite()));
    out->prefix_rewrite = in.prefix_rewrite();
  }
  if (!in.host_rewrite_literal().empty()) {
    WEFT_FIELD("host_rewrite_literal", CheckHeaderValue(in.host_rewrite_literal()));
    out->host_rewrite = in.host_rewrite_literal();
  }
  if (in.has_timeout()) WEFT_FIELD("timeout", DecodeDuration(in.timeout(), &out->timeout));
  if (in.has_idle_timeout()) {
    WEFT_FIELD("idle_timeout", DecodeDuration(in.idle_timeout(), &out->idle_timeout));
  }
  out->retry = inherited.retry;
  if (in.has_retry_policy()) {
    WEFT_FIELD("retry_policy", DecodeRetryPolicy(in.retry_policy(), &out->retry.emplace()));
  }
  return absl::OkStatus();
}

absl::Status DecodeRedirect(const rt::RedirectAction& in, model::Redirect* out) {
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"https_redirect", "scheme_redirect", "host_redirect", "port_redirect",
                      "path_redirect", "prefix_rewrite", "response_code", "strip_query"}));
  if (in.https_redirect()) out->scheme = "https";
  if (!in.scheme_redirect().empty()) out->scheme = in.scheme_redirect();
  if (!in.host_redirect().empty()) out->host = in.host_redirect();
  if (!in.path_redirect().empty()) out->path = in.path_redirect();
  if (!in.prefix_rewrite().empty()) out->prefix_rewrite = in.prefix_rewrite();
  for (const std::string* text :
       {&in.scheme_redirect(), &in.host_redirect(), &in.path_redirect(), &in.prefix_rewrite()}) {
    WEFT_RETURN_IF_ERROR(CheckHeaderValue(*text));
  }
  if (in.port_redirect() > 65535) return Bad("port_redirect: more than 65535");
  if (in.port_redirect() > 0) out->port = static_cast<uint16_t>(in.port_redirect());
  out->strip_query = in.strip_query();
  switch (in.response_code()) {
    case rt::RedirectAction::MOVED_PERMANENTLY:
      out->status = 301;
      return absl::OkStatus();
    case rt::RedirectAction::FOUND:
      out->status = 302;
      return absl::OkStatus();
    case rt::RedirectAction::SEE_OTHER:
      out->status = 303;
      return absl::OkStatus();
    case rt::RedirectAction::TEMPORARY_REDIRECT:
      out->status = 307;
      return absl::OkStatus();
    case rt::RedirectAction::PERMANENT_REDIRECT:
      out->status = 308;
      return absl::OkStatus();
    default:
      return NotSupported("response_code " + std::to_string(in.response_code()));
  }
}

absl::Status DecodeDirect(const rt::DirectResponseAction& in, uint32_t max_body_bytes,
                          model::DirectResponse* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"status", "body"}));
  if (in.status() < 200 || in.status() > 599) return Bad("status: must be 200 to 599");
  out->status = static_cast<int>(in.status());
  WEFT_FIELD("body", OnlyFields(in.body(), {"inline_string", "inline_bytes"}));
  out->body =
      in.body().inline_string().empty() ? in.body().inline_bytes() : in.body().inline_string();
  if (out->body.size() > max_body_bytes) {
    return Bad("body: longer than " + std::to_string(max_body_bytes) + " bytes");
  }
  return absl::OkStatus();
}

absl::Status DecodeRoute(const rt::Route& in, const Inherited& inherited, model::Route* out) {
  out->name = in.name();
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"name", "match", "route", "redirect", "direct_response", "metadata", "decorator",
           "stat_prefix", "request_headers_to_add", "request_headers_to_remove",
           "response_headers_to_add", "response_headers_to_remove", "request_body_buffer_limit",
           "per_request_buffer_limit_bytes"}));
  WEFT_FIELD("match", DecodePathAndConditions(in.match(), out));
  WEFT_RETURN_IF_ERROR(DecodeBothSides(in, &out->request_headers, &out->response_headers));
  if (in.has_route()) {
    auto& forward = out->action.emplace<model::Forward>();
    const auto own = BufferBytes(in);
    forward.retry_buffer_bytes =
        own.value_or(inherited.buffer_bytes.value_or(forward.retry_buffer_bytes));
    return Annotate(DecodeForward(in.route(), inherited, &forward), "route");
  }
  if (in.has_redirect()) {
    return Annotate(DecodeRedirect(in.redirect(), &out->action.emplace<model::Redirect>()),
                    "redirect");
  }
  if (in.has_direct_response()) {
    return Annotate(DecodeDirect(in.direct_response(), inherited.max_body_bytes,
                                 &out->action.emplace<model::DirectResponse>()),
                    "direct_response");
  }
  return Bad("route: missing, and redirect and direct_response too");
}

absl::Status CheckDomain(const std::string& domain) {
  if (domain.empty()) return Bad("empty");
  WEFT_RETURN_IF_ERROR(CheckHeaderValue(domain));
  const size_t star = domain.find('*');
  if (star == std::string::npos || domain == "*") return absl::OkStatus();
  const bool at_an_end = star == 0 || star == domain.size() - 1;
  if (!at_an_end || domain.find('*', star + 1) != std::string::npos) {
    return Bad("\"" + domain + "\": a * may stand at one end only");
  }
  return absl::OkStatus();
}

absl::Status DecodeVirtualHost(const rt::VirtualHost& in, Inherited inherited,
                               model::VirtualHost* out) {
  if (in.name().empty()) return Bad("name: missing");
  out->name = in.name();
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"name", "domains", "routes", "metadata", "request_headers_to_add",
           "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
           "retry_policy", "request_body_buffer_limit", "per_request_buffer_limit_bytes"}));
  if (in.domains().empty()) return Bad("domains: empty");
  for (int i = 0; i < in.domains_size(); ++i) {
    WEFT_FIELD(Indexed("domains", i), CheckDomain(in.domains(i)));
    out->domains.push_back(in.domains(i));
  }
  if (in.has_retry_policy()) {
    WEFT_FIELD("retry_policy", DecodeRetryPolicy(in.retry_policy(), &inherited.retry.emplace()));
  }
  inherited.buffer_bytes = BufferBytes(in);
  WEFT_RETURN_IF_ERROR(DecodeBothSides(in, &out->request_headers, &out->response_headers));
  for (int i = 0; i < in.routes_size(); ++i) {
    std::string at = Indexed("routes", i);
    if (!in.routes(i).name().empty()) at += " " + in.routes(i).name();
    WEFT_FIELD(at, DecodeRoute(in.routes(i), inherited, &out->routes.emplace_back()));
  }
  return absl::OkStatus();
}

std::string LowerCase(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

}  // namespace

absl::Status DecodeRoutes(const rt::RouteConfiguration& in, const DecodeOptions& options,
                          model::RouteConfiguration* out) {
  out->name = in.name();
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"name", "virtual_hosts", "metadata", "request_headers_to_add",
           "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
           "validate_clusters", "max_direct_response_body_size_bytes"}));
  // Whether clusters exist is not a property of this resource; a request without its cluster gets
  // 503.
  if (in.validate_clusters().value()) return NotSupported("validate_clusters");
  Inherited inherited;
  if (in.has_max_direct_response_body_size_bytes()) {
    inherited.max_body_bytes = in.max_direct_response_body_size_bytes().value();
  }
  WEFT_RETURN_IF_ERROR(DecodeBothSides(in, &out->request_headers, &out->response_headers));
  std::set<std::string> names, domains;
  for (int i = 0; i < in.virtual_hosts_size(); ++i) {
    const std::string at = Indexed("virtual_hosts", i) + " " + in.virtual_hosts(i).name();
    model::VirtualHost& host = out->virtual_hosts.emplace_back();
    WEFT_FIELD(at, DecodeVirtualHost(in.virtual_hosts(i), inherited, &host));
    if (!names.insert(host.name).second) return Bad(at + ": the name is there twice");
    for (std::string& domain : host.domains) {
      domain = LowerCase(std::move(domain));
      if (!domains.insert(domain).second) {
        return Bad(at + ": domain \"" + domain + "\" is there twice");
      }
    }
  }
  return options.check_routes ? options.check_routes(*out) : absl::OkStatus();
}

}  // namespace weft::xds
