// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "envoy/extensions/filters/http/router/v3/router.pb.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb.h"
#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

namespace ls = envoy::config::listener::v3;
using envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
using envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

constexpr std::string_view kHttpInspector =
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
constexpr std::string_view kOriginalDst =
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
constexpr std::string_view kTlsInspector =
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

absl::Status DecodeRouter(const HttpConnectionManager& in) {
  const auto& filters = in.http_filters();
  for (int i = 0; i < filters.size(); ++i) {
    const std::string at = Indexed("http_filters", i) + " " + filters[i].name();
    WEFT_FIELD(at, OnlyFields(filters[i], {"name", "typed_config"}));
    envoy::extensions::filters::http::router::v3::Router router;
    WEFT_FIELD(at, Unpack(filters[i].typed_config(), &router));
    // Weft adds no x-envoy-* fields anyway; the statistics are always there.
    WEFT_FIELD(at, OnlyFields(router, {"dynamic_stats", "suppress_envoy_headers"}));
    if (i > 0) return Bad(at + ": the router is there twice");
  }
  return filters.empty() ? Bad("http_filters: the router is missing") : absl::OkStatus();
}

// Fields that may be there only if they say what Weft does anyway.
absl::Status CheckFixedBehaviour(const HttpConnectionManager& in) {
  if (in.generate_request_id().value()) return NotSupported("generate_request_id");
  if (in.use_remote_address().value()) return NotSupported("use_remote_address");
  if (in.normalize_path().value()) return NotSupported("normalize_path");
  const auto transformation = in.server_header_transformation();
  if (transformation != HttpConnectionManager::OVERWRITE &&
      transformation != HttpConnectionManager::PASS_THROUGH) {
    return NotSupported("server_header_transformation");
  }
  return OnlyFields(in, {"codec_type", "stat_prefix", "rds", "route_config", "http_filters",
                         "max_request_headers_kb", "stream_idle_timeout", "request_timeout",
                         "generate_request_id", "use_remote_address", "normalize_path",
                         "server_header_transformation"});
}

absl::Status DecodeHttp(const HttpConnectionManager& in, const DecodeOptions& options,
                        model::HttpFilterChain* out) {
  WEFT_RETURN_IF_ERROR(CheckFixedBehaviour(in));
  out->stat_prefix = in.stat_prefix();
  switch (in.codec_type()) {
    case HttpConnectionManager::AUTO:
      out->codec = model::HttpFilterChain::Codec::kAuto;
      break;
    case HttpConnectionManager::HTTP1:
      out->codec = model::HttpFilterChain::Codec::kHttp1;
      break;
    case HttpConnectionManager::HTTP2:
      out->codec = model::HttpFilterChain::Codec::kHttp2;
      break;
    default:
      return NotSupported("codec_type: " + HttpConnectionManager::CodecType_Name(in.codec_type()));
  }
  if (in.has_rds()) {
    WEFT_FIELD("rds", OnlyFields(in.rds(), {"config_source", "route_config_name"}));
    WEFT_FIELD("rds.config_source", CheckConfigSource(in.rds().config_source()));
    if (in.rds().route_config_name().empty()) return Bad("rds.route_config_name: missing");
    out->rds_name = in.rds().route_config_name();
  } else if (in.has_route_config()) {
    auto routes = std::make_shared<model::RouteConfiguration>();
    WEFT_FIELD("route_config", DecodeRoutes(in.route_config(), options, routes.get()));
    out->inline_routes = std::move(routes);
  } else {
    return Bad("rds: missing, and route_config too");
  }
  WEFT_RETURN_IF_ERROR(DecodeRouter(in));
  if (in.has_stream_idle_timeout()) {
    WEFT_FIELD("stream_idle_timeout",
               DecodeDuration(in.stream_idle_timeout(), &out->stream_idle_timeout));
  }
  if (in.has_request_timeout()) {
    WEFT_FIELD("request_timeout", DecodeDuration(in.request_timeout(), &out->request_timeout));
  }
  if (in.has_max_request_headers_kb()) {
    out->max_request_headers_kb = in.max_request_headers_kb().value();
    if (out->max_request_headers_kb < 1 || out->max_request_headers_kb > 8192) {
      return Bad("max_request_headers_kb: must be 1 to 8192");
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeTcp(const TcpProxy& in, model::TcpFilterChain* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "max_connect_attempts"}));
  out->stat_prefix = in.stat_prefix();
  if (in.has_idle_timeout()) {
    WEFT_FIELD("idle_timeout", DecodeDuration(in.idle_timeout(), &out->idle_timeout));
  }
  if (in.has_max_connect_attempts()) {
    out->max_connect_attempts = in.max_connect_attempts().value();
    if (out->max_connect_attempts == 0) return Bad("max_connect_attempts: must be 1 or more");
  }
  if (!in.has_weighted_clusters()) {
    if (in.cluster().empty()) return Bad("cluster: missing");
    out->clusters.push_back({.cluster = in.cluster(), .weight = 1});
    return absl::OkStatus();
  }
  uint64_t sum = 0;
  const auto& clusters = in.weighted_clusters().clusters();
  if (clusters.empty()) return Bad("weighted_clusters.clusters: empty");
  for (int i = 0; i < clusters.size(); ++i) {
    const std::string at = "weighted_clusters." + Indexed("clusters", i);
    WEFT_FIELD(at, OnlyFields(clusters[i], {"name", "weight"}));
    if (clusters[i].name().empty()) return Bad(at + ".name: missing");
    if (clusters[i].weight() == 0) return Bad(at + ".weight: must be 1 or more");
    sum += clusters[i].weight();
    out->clusters.push_back({.cluster = clusters[i].name(), .weight = clusters[i].weight()});
  }
  return sum <= UINT32_MAX ? absl::OkStatus()
                           : Bad("weighted_clusters: the weights sum to more than 4294967295");
}

// What a chain is for, as its match says.
enum class Selects { kEverything, kHttp };

absl::Status DecodeMatch(const ls::FilterChainMatch& in, bool has_http_inspector, Selects* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"transport_protocol", "application_protocols"}));
  if (!in.transport_protocol().empty() && in.transport_protocol() != "raw_buffer") {
    return NotSupported("transport_protocol " + in.transport_protocol());
  }
  *out = Selects::kEverything;
  if (in.application_protocols().empty()) return absl::OkStatus();
  std::set<std::string> protocols(in.application_protocols().begin(),
                                  in.application_protocols().end());
  protocols.erase("http/1.0");
  if (protocols != std::set<std::string>{"http/1.1", "h2c"}) {
    return Bad("application_protocols: must be http/1.1 and h2c, with or without http/1.0");
  }
  if (!has_http_inspector) {
    return Bad(
        "application_protocols: nothing finds them out without listener filter "
        "http_inspector");
  }
  *out = Selects::kHttp;
  return absl::OkStatus();
}

absl::Status DecodeChain(const ls::FilterChain& in, bool has_http_inspector, bool is_default,
                         const DecodeOptions& options, model::Listener* out) {
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"filter_chain_match", "filters", "transport_socket", "name", "metadata"}));
  if (in.has_transport_socket() && TypeName(in.transport_socket().typed_config()) !=
                                       "envoy.extensions.transport_sockets.raw_buffer.v3."
                                       "RawBuffer") {
    return NotSupported("transport_socket " + in.transport_socket().name());
  }
  Selects selects = Selects::kEverything;
  if (!is_default) {
    WEFT_FIELD("filter_chain_match",
               DecodeMatch(in.filter_chain_match(), has_http_inspector, &selects));
  } else {
    WEFT_FIELD("filter_chain_match", OnlyFields(in.filter_chain_match(), {}));
  }
  if (in.filters().empty()) return Bad("filters: empty");
  const std::string at = Indexed("filters", 0) + " " + in.filters(0).name();
  WEFT_FIELD(at, OnlyFields(in.filters(0), {"name", "typed_config"}));
  const google::protobuf::Any& config = in.filters(0).typed_config();
  if (TypeName(config) == HttpConnectionManager::descriptor()->full_name()) {
    HttpConnectionManager http;
    WEFT_FIELD(at, Unpack(config, &http));
    if (out->http) return NotSupported("a second chain for HTTP");
    WEFT_FIELD(at, DecodeHttp(http, options, &out->http.emplace()));
  } else if (TypeName(config) == TcpProxy::descriptor()->full_name()) {
    TcpProxy tcp;
    WEFT_FIELD(at, Unpack(config, &tcp));
    if (selects == Selects::kHttp) return NotSupported("a TCP chain that selects HTTP");
    if (out->tcp) return NotSupported("a second chain for TCP");
    WEFT_FIELD(at, DecodeTcp(tcp, &out->tcp.emplace()));
  } else {
    return NotSupported(at + ": " + config.type_url());
  }
  if (in.filters_size() > 1) {
    return NotSupported(Indexed("filters", 1) + " " + in.filters(1).name() +
                        ": a filter after the last one");
  }
  return absl::OkStatus();
}

absl::Status CheckListenerFilters(const ls::Listener& in, bool* has_http_inspector) {
  for (int i = 0; i < in.listener_filters_size(); ++i) {
    const auto& filter = in.listener_filters(i);
    const std::string at = Indexed("listener_filters", i) + " " + filter.name();
    WEFT_FIELD(at, OnlyFields(filter, {"name", "typed_config"}));
    const std::string_view type = TypeName(filter.typed_config());
    if (type != kHttpInspector && type != kOriginalDst && type != kTlsInspector) {
      return NotSupported(at + ": " + filter.typed_config().type_url());
    }
    if (!filter.typed_config().value().empty()) return Bad(at + ": settings are not supported");
    if (type == kHttpInspector) *has_http_inspector = true;
  }
  return absl::OkStatus();
}

// At most one chain takes what no other selects, so of two chains the one for HTTP is selected by
// the first bytes.
absl::Status DecodeChains(const ls::Listener& in, bool has_http_inspector,
                          const DecodeOptions& options, model::Listener* out) {
  bool catches_all = false;
  for (int i = 0; i < in.filter_chains_size(); ++i) {
    const ls::FilterChain& chain = in.filter_chains(i);
    WEFT_FIELD(Indexed("filter_chains", i),
               DecodeChain(chain, has_http_inspector, false, options, out));
    if (!chain.filter_chain_match().application_protocols().empty()) continue;
    if (catches_all) return Bad(Indexed("filter_chains", i) + ": no connection reaches it");
    catches_all = true;
  }
  if (in.has_default_filter_chain()) {
    if (catches_all) return Bad("default_filter_chain: no connection reaches it");
    WEFT_FIELD("default_filter_chain",
               DecodeChain(in.default_filter_chain(), has_http_inspector, true, options, out));
  }
  if (!out->http && !out->tcp && !out->use_original_dst) return Bad("filter_chains: empty");
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeListener(const ls::Listener& in, const DecodeOptions& options,
                            model::Listener* out) {
  if (in.name().empty()) return Bad("name: missing");
  out->name = in.name();
  // The direction is a label; the backlog and the port's sharing are the host's business.
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"name", "address", "stat_prefix", "filter_chains", "default_filter_chain",
                      "use_original_dst", "metadata", "listener_filters", "traffic_direction",
                      "enable_reuse_port", "tcp_backlog_size", "bind_to_port"}));
  out->use_original_dst = in.use_original_dst().value();
  out->bind_to_port = !in.has_bind_to_port() || in.bind_to_port().value();
  if (in.has_address()) {
    WEFT_FIELD("address", DecodeAddress(in.address(), &out->address.emplace()));
  } else if (out->bind_to_port) {
    return Bad("address: missing");
  }
  bool has_http_inspector = false;
  WEFT_RETURN_IF_ERROR(CheckListenerFilters(in, &has_http_inspector));
  return DecodeChains(in, has_http_inspector, options, out);
}

}  // namespace weft::xds
