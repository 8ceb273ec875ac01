# SPDX-License-Identifier: Apache-2.0
"""Builds Envoy v3 resources as plain dicts. Both proxies get the same ones; only the listeners' ports differ."""

TYPES = "type.googleapis.com/envoy"


def cluster(name, ports, **fields):
    """An EDS cluster and its endpoints. fields: members of Cluster, and `weights` for the endpoints."""
    weights = fields.pop("weights", None)
    options = {"@type": f"{TYPES}.config.cluster.v3.Cluster", "name": name, "type": "EDS", "connectTimeout": "1s",
               "edsClusterConfig": {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}, "lbPolicy": "ROUND_ROBIN", **fields}
    endpoints = [{"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}}},
                  **({"loadBalancingWeight": weights[i]} if weights else {})} for i, port in enumerate(ports)]
    assignment = {"@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment", "clusterName": name,
                  "endpoints": [{"lbEndpoints": endpoints}] if endpoints else []}
    return options, assignment


HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions", "explicitHttpConfig": {"http2ProtocolOptions": {}}}}


def routes(name, virtual_hosts):
    return {"@type": f"{TYPES}.config.route.v3.RouteConfiguration", "name": name, "virtualHosts": virtual_hosts}


def http_listener(name, port, route_name, **fields):
    manager = {"@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "statPrefix": name, "codecType": "AUTO",
               "rds": {"routeConfigName": route_name, "configSource": {"ads": {}, "resourceApiVersion": "V3"}},
               "httpFilters": [{"name": "envoy.filters.http.router",
                                "typedConfig": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"}}], **fields}
    return _listener(name, port, "envoy.filters.network.http_connection_manager", manager)


def tcp_listener(name, port, **fields):
    proxy = {"@type": f"{TYPES}.extensions.filters.network.tcp_proxy.v3.TcpProxy", "statPrefix": name, **fields}
    return _listener(name, port, "envoy.filters.network.tcp_proxy", proxy)


def _listener(name, port, filter_name, typed):
    return {"@type": f"{TYPES}.config.listener.v3.Listener", "name": name,
            "address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}},
            "filterChains": [{"filters": [{"name": filter_name, "typedConfig": typed}]}]}


def route(match=None, to=None, **fields):
    """A route: match defaults to every path; `to` is a cluster name or a RouteAction."""
    out = {"match": match or {"prefix": "/"}, **fields}
    if to is not None:
        out["route"] = {"cluster": to} if isinstance(to, str) else to
    return out


def direct(text, match=None, status=200):
    return {"match": match or {"prefix": "/"}, "directResponse": {"status": status, "body": {"inlineString": text}}}
