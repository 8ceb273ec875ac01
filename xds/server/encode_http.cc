// SPDX-License-Identifier: Apache-2.0
// Listeners and routes; the rest is in encode.cc.
#include <array>

#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/extensions/filters/http/router/v3/router.pb.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb.h"
#include "xds/server/encode.h"
#include "xds/server/encode_internal.h"

namespace weft::xds {
namespace {

namespace ls = envoy::config::listener::v3;
namespace rt = envoy::config::route::v3;
using envoy::config::core::v3::HeaderValueOption;
using envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
using envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
using envoy::type::matcher::v3::StringMatcher;

void EncodeString(const model::StringMatch& in, StringMatcher* out) {
  using Kind = model::StringMatch::Kind;
  out->set_ignore_case(in.ignore_case);
  switch (in.kind) {
    case Kind::kExact:
      out->set_exact(in.value);
      break;
    case Kind::kPrefix:
      out->set_prefix(in.value);
      break;
    case Kind::kSuffix:
      out->set_suffix(in.value);
      break;
    case Kind::kContains:
      out->set_contains(in.value);
      break;
    case Kind::kRegex:
      out->mutable_safe_regex()->set_regex(in.value);
      break;
  }
}

void EncodeHeaderMatch(const model::HeaderMatch& in, rt::HeaderMatcher* out) {
  out->set_name(in.name);
  out->set_invert_match(in.invert);
  out->set_treat_missing_header_as_empty(in.treat_missing_as_empty);
  if (in.value) {
    EncodeString(*in.value, out->mutable_string_match());
  } else if (in.range) {
    out->mutable_range_match()->set_start(in.range->begin);
    out->mutable_range_match()->set_end(in.range->end);
  } else {
    out->set_present_match(in.present);
  }
}

void EncodeMatch(const model::Route& in, rt::RouteMatch* out) {
  using Kind = model::PathMatch::Kind;
  switch (in.path.kind) {
    case Kind::kPrefix:
      out->set_prefix(in.path.value);
      break;
    case Kind::kExact:
      out->set_path(in.path.value);
      break;
    case Kind::kRegex:
      out->mutable_safe_regex()->set_regex(in.path.value);
      break;
    case Kind::kSeparatedPrefix:
      out->set_path_separated_prefix(in.path.value);
      break;
  }
  if (!in.path.case_sensitive) out->mutable_case_sensitive()->set_value(false);
  for (const auto& header : in.headers) EncodeHeaderMatch(header, out->add_headers());
  for (const auto& query : in.query) {
    auto* to = out->add_query_parameters();
    to->set_name(query.name);
    if (query.value) {
      EncodeString(*query.value, to->mutable_string_match());
    } else {
      to->set_present_match(true);
    }
  }
  if (in.grpc_only) out->mutable_grpc();
}

HeaderValueOption::HeaderAppendAction EncodeAction(model::HeaderChange::Action in) {
  using Action = model::HeaderChange::Action;
  switch (in) {
    case Action::kAddIfAbsent:
      return HeaderValueOption::ADD_IF_ABSENT;
    case Action::kOverwriteOrAdd:
      return HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD;
    case Action::kOverwrite:
      return HeaderValueOption::OVERWRITE_IF_EXISTS;
    case Action::kAppendOrAdd:
    case Action::kRemove:  // not an addition
      break;
  }
  return HeaderValueOption::APPEND_IF_EXISTS_OR_ADD;
}

using Additions = google::protobuf::RepeatedPtrField<HeaderValueOption>;
using Names = google::protobuf::RepeatedPtrField<std::string>;
void EncodeChanges(const std::vector<model::HeaderChange>& in, Additions* add, Names* remove) {
  for (const model::HeaderChange& change : in) {
    if (change.action == model::HeaderChange::Action::kRemove) {
      *remove->Add() = change.name;
      continue;
    }
    HeaderValueOption* to = add->Add();
    to->mutable_header()->set_key(change.name);
    for (char c : change.value) to->mutable_header()->mutable_value()->append(c == '%' ? 2 : 1, c);
    to->set_append_action(EncodeAction(change.action));
    to->set_keep_empty_value(change.value.empty());
  }
}

template <typename Model, typename Proto>
void EncodeBothSides(const Model& in, Proto* out) {
  EncodeChanges(in.request_headers, out->mutable_request_headers_to_add(),
                out->mutable_request_headers_to_remove());
  EncodeChanges(in.response_headers, out->mutable_response_headers_to_add(),
                out->mutable_response_headers_to_remove());
}

std::string EncodeRetryOn(uint32_t bits) {
  static constexpr std::array<std::string_view, 7> kNames = {
      "5xx",           "gateway-error",          "connect-failure", "reset", "refused-stream",
      "retriable-4xx", "retriable-status-codes",
  };
  std::string out;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if ((bits & (1u << i)) != 0) out.append(out.empty() ? "" : ",").append(kNames[i]);
  }
  return out;
}

void EncodeRetry(const model::RetryPolicy& in, rt::RetryPolicy* out) {
  out->set_retry_on(EncodeRetryOn(in.retry_on));
  out->mutable_num_retries()->set_value(in.num_retries);
  if (in.per_try_timeout.count() > 0) {
    EncodeDuration(in.per_try_timeout, out->mutable_per_try_timeout());
  }
  EncodeDuration(in.base_interval, out->mutable_retry_back_off()->mutable_base_interval());
  EncodeDuration(in.max_interval, out->mutable_retry_back_off()->mutable_max_interval());
  for (uint32_t code : in.status_codes) out->add_retriable_status_codes(code);
  if (in.avoid_previous_hosts) {
    auto* predicate = out->add_retry_host_predicate();
    predicate->set_name("envoy.retry_host_predicates.previous_hosts");
    PackEmpty("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
              predicate->mutable_typed_config());
  }
  out->set_host_selection_retry_max_attempts(in.host_selection_attempts);
}

void EncodeForward(const model::Forward& in, rt::RouteAction* out) {
  const bool plain = in.clusters.size() == 1 && in.clusters[0].weight == 1 &&
                     in.clusters[0].request_headers.empty() &&
                     in.clusters[0].response_headers.empty();
  if (plain) {
    out->set_cluster(in.clusters[0].cluster);
  } else {
    for (const model::WeightedCluster& cluster : in.clusters) {
      auto* to = out->mutable_weighted_clusters()->add_clusters();
      to->set_name(cluster.cluster);
      to->mutable_weight()->set_value(cluster.weight);
      EncodeBothSides(cluster, to);
    }
  }
  if (in.prefix_rewrite) out->set_prefix_rewrite(*in.prefix_rewrite);
  if (in.host_rewrite) out->set_host_rewrite_literal(*in.host_rewrite);
  EncodeDuration(in.timeout, out->mutable_timeout());
  if (in.idle_timeout != model::Forward().idle_timeout) {
    EncodeDuration(in.idle_timeout, out->mutable_idle_timeout());
  }
  if (in.retry) EncodeRetry(*in.retry, out->mutable_retry_policy());
}

void EncodeRedirect(const model::Redirect& in, rt::RedirectAction* out) {
  if (in.scheme) out->set_scheme_redirect(*in.scheme);
  if (in.host) out->set_host_redirect(*in.host);
  if (in.path) out->set_path_redirect(*in.path);
  if (in.prefix_rewrite) out->set_prefix_rewrite(*in.prefix_rewrite);
  if (in.port) out->set_port_redirect(*in.port);
  out->set_strip_query(in.strip_query);
  switch (in.status) {
    case 302:
      out->set_response_code(rt::RedirectAction::FOUND);
      break;
    case 303:
      out->set_response_code(rt::RedirectAction::SEE_OTHER);
      break;
    case 307:
      out->set_response_code(rt::RedirectAction::TEMPORARY_REDIRECT);
      break;
    case 308:
      out->set_response_code(rt::RedirectAction::PERMANENT_REDIRECT);
      break;
    default:
      out->set_response_code(rt::RedirectAction::MOVED_PERMANENTLY);
      break;
  }
}

void EncodeRoute(const model::Route& in, rt::Route* out) {
  out->set_name(in.name);
  EncodeMatch(in, out->mutable_match());
  EncodeBothSides(in, out);
  if (const auto* forward = std::get_if<model::Forward>(&in.action)) {
    EncodeForward(*forward, out->mutable_route());
    if (forward->retry_buffer_bytes != model::Forward().retry_buffer_bytes) {
      out->mutable_request_body_buffer_limit()->set_value(forward->retry_buffer_bytes);
    }
  } else if (const auto* redirect = std::get_if<model::Redirect>(&in.action)) {
    EncodeRedirect(*redirect, out->mutable_redirect());
  } else {
    const auto& direct = std::get<model::DirectResponse>(in.action);
    out->mutable_direct_response()->set_status(direct.status);
    // Bytes rather than text: a body need not be UTF-8.
    if (!direct.body.empty()) {
      out->mutable_direct_response()->mutable_body()->set_inline_bytes(direct.body);
    }
  }
}

size_t LargestBody(const model::RouteConfiguration& in) {
  size_t out = 0;
  for (const auto& host : in.virtual_hosts) {
    for (const auto& route : host.routes) {
      const auto* direct = std::get_if<model::DirectResponse>(&route.action);
      if (direct != nullptr) out = std::max(out, direct->body.size());
    }
  }
  return out;
}

void EncodeRoutes(const model::RouteConfiguration& in, rt::RouteConfiguration* out) {
  out->set_name(in.name);
  EncodeBothSides(in, out);
  const size_t largest = LargestBody(in);
  if (largest > 4096) {
    out->mutable_max_direct_response_body_size_bytes()->set_value(static_cast<uint32_t>(largest));
  }
  for (const model::VirtualHost& host : in.virtual_hosts) {
    rt::VirtualHost* to = out->add_virtual_hosts();
    to->set_name(host.name);
    for (const std::string& domain : host.domains) to->add_domains(domain);
    EncodeBothSides(host, to);
    for (const model::Route& route : host.routes) EncodeRoute(route, to->add_routes());
  }
}

void EncodeHttp(const model::HttpFilterChain& in, ls::FilterChain* out) {
  HttpConnectionManager http;
  http.set_stat_prefix(in.stat_prefix);
  if (in.inline_routes) {
    EncodeRoutes(*in.inline_routes, http.mutable_route_config());
  } else {
    http.mutable_rds()->set_route_config_name(in.rds_name);
    EncodeAds(http.mutable_rds()->mutable_config_source());
  }
  switch (in.codec) {
    case model::HttpFilterChain::Codec::kAuto:
      http.set_codec_type(HttpConnectionManager::AUTO);
      break;
    case model::HttpFilterChain::Codec::kHttp1:
      http.set_codec_type(HttpConnectionManager::HTTP1);
      break;
    case model::HttpFilterChain::Codec::kHttp2:
      http.set_codec_type(HttpConnectionManager::HTTP2);
      break;
  }
  EncodeDuration(in.stream_idle_timeout, http.mutable_stream_idle_timeout());
  EncodeDuration(in.request_timeout, http.mutable_request_timeout());
  http.mutable_max_request_headers_kb()->set_value(in.max_request_headers_kb);
  auto* router = http.add_http_filters();
  router->set_name("envoy.filters.http.router");
  Pack(envoy::extensions::filters::http::router::v3::Router(), router->mutable_typed_config());
  auto* filter = out->add_filters();
  filter->set_name("envoy.filters.network.http_connection_manager");
  Pack(http, filter->mutable_typed_config());
}

void EncodeTcp(const model::TcpFilterChain& in, ls::FilterChain* out) {
  TcpProxy tcp;
  tcp.set_stat_prefix(in.stat_prefix);
  if (in.clusters.size() == 1 && in.clusters[0].weight == 1) {
    tcp.set_cluster(in.clusters[0].cluster);
  } else {
    for (const model::WeightedCluster& cluster : in.clusters) {
      auto* to = tcp.mutable_weighted_clusters()->add_clusters();
      to->set_name(cluster.cluster);
      to->set_weight(cluster.weight);
    }
  }
  EncodeDuration(in.idle_timeout, tcp.mutable_idle_timeout());
  tcp.mutable_max_connect_attempts()->set_value(in.max_connect_attempts);
  auto* filter = out->add_filters();
  filter->set_name("envoy.filters.network.tcp_proxy");
  Pack(tcp, filter->mutable_typed_config());
}

void AddListenerFilter(const char* name, const char* type, ls::Listener* out) {
  ls::ListenerFilter* filter = out->add_listener_filters();
  filter->set_name(name);
  PackEmpty(type, filter->mutable_typed_config());
}

}  // namespace

Encoded Encode(const model::RouteConfiguration& in) {
  rt::RouteConfiguration out;
  EncodeRoutes(in, &out);
  return {std::string(kRouteType), in.name, Serialize(out)};
}

Encoded Encode(const model::Listener& in) {
  ls::Listener out;
  out.set_name(in.name);
  if (in.address) EncodeAddress(*in.address, out.mutable_address());
  if (!in.bind_to_port) out.mutable_bind_to_port()->set_value(false);
  if (in.use_original_dst) {
    out.mutable_use_original_dst()->set_value(true);
    AddListenerFilter("envoy.filters.listener.original_dst",
                      "envoy.extensions.filters.listener.original_dst.v3.OriginalDst", &out);
  }
  if (in.http) {
    ls::FilterChain* chain = out.add_filter_chains();
    EncodeHttp(*in.http, chain);
    if (in.tcp) {
      AddListenerFilter("envoy.filters.listener.http_inspector",
                        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", &out);
      auto* match = chain->mutable_filter_chain_match();
      match->set_transport_protocol("raw_buffer");
      for (const char* protocol : {"http/1.0", "http/1.1", "h2c"}) {
        match->add_application_protocols(protocol);
      }
    }
  }
  if (in.tcp)
    EncodeTcp(*in.tcp, in.http ? out.mutable_default_filter_chain() : out.add_filter_chains());
  return {std::string(kListenerType), in.name, Serialize(out)};
}

}  // namespace weft::xds
