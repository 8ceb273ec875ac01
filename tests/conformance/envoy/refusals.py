# SPDX-License-Identifier: Apache-2.0
"""Resources that both proxies must refuse: each changes a good state in one place. `names` must be in weft-proxy's refusal: the
resource and what is wrong with it, so that a person finds the place.

The state also changes the marker's answer; it must keep the last good one.
"""
import copy

TYPES = "type.googleapis.com/envoy.config."


def _find(state, kind, name):
    return next(r for r in state if r["@type"].endswith(kind) and r.get("name", r.get("clusterName")) == name)


def _marker(state):
    return _find(state, "RouteConfiguration", "routes")["virtualHosts"][0]


def bad_route_regex(state):
    _marker(state)["routes"].insert(0, {"match": {"safeRegex": {"regex": "/a(b"}}, "directResponse": {"status": 200}})
    return "RouteConfiguration", ["routes", "regex"]


def bad_header_regex(state):
    _marker(state)["routes"].insert(0, {"match": {"prefix": "/", "headers": [
        {"name": "x", "stringMatch": {"safeRegex": {"regex": "*"}}}]}, "directResponse": {"status": 200}})
    return "RouteConfiguration", ["routes", "regex"]


def duplicate_domain(state):
    hosts = _find(state, "RouteConfiguration", "routes")["virtualHosts"]
    hosts.append({"name": "again", "domains": ["marker.test"], "routes": hosts[0]["routes"]})
    return "RouteConfiguration", ["routes", "marker.test"]


def no_action(state):
    _marker(state)["routes"].insert(0, {"match": {"prefix": "/nothing"}})
    return "RouteConfiguration", ["routes", "missing"]


def no_path_match(state):
    _marker(state)["routes"].insert(0, {"match": {"headers": [{"name": "x", "presentMatch": True}]}, "directResponse": {"status": 200}})
    return "RouteConfiguration", ["routes", "match"]


def direct_response_status(state):
    _marker(state)["routes"].insert(0, {"match": {"prefix": "/"}, "directResponse": {"status": 99}})
    return "RouteConfiguration", ["routes", "status"]


def weights_sum_to_zero(state):
    _marker(state)["routes"].insert(0, {"match": {"prefix": "/"}, "route": {"weightedClusters": {
        "clusters": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}]}}})
    return "RouteConfiguration", ["routes", "weight"]


def _cluster(state):
    return next(r for r in state if r["@type"].endswith("v3.Cluster"))


def cluster_without_name(state):
    state.append({**copy.deepcopy(_cluster(state)), "name": ""})
    return "Cluster", ["name"]


def cluster_connect_timeout_zero(state):
    _cluster(state)["connectTimeout"] = "0s"
    return "Cluster", [_cluster(state)["name"], "connect_timeout"]


def outlier_percent(state):
    _cluster(state)["outlierDetection"] = {"maxEjectionPercent": 101}
    return "Cluster", [_cluster(state)["name"], "max_ejection_percent"]


def least_request_choices(state):
    _cluster(state).update(lbPolicy="LEAST_REQUEST", leastRequestLbConfig={"choiceCount": 1})
    return "Cluster", [_cluster(state)["name"], "choice_count"]


def _assignment(state):
    return next(r for r in state if r["@type"].endswith("ClusterLoadAssignment") and r["endpoints"])


def endpoint_port(state):
    assignment = _assignment(state)
    assignment["endpoints"][0]["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"]["portValue"] = 70000
    return "ClusterLoadAssignment", [assignment["clusterName"], "port"]


def endpoint_weight_zero(state):
    assignment = _assignment(state)
    assignment["endpoints"][0]["lbEndpoints"][0]["loadBalancingWeight"] = 0
    return "ClusterLoadAssignment", [assignment["clusterName"], "weight"]


def endpoint_name_for_eds(state):
    assignment = _assignment(state)
    assignment["endpoints"][0]["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"]["address"] = "not-an-ip.example"
    return "ClusterLoadAssignment", [assignment["clusterName"], "not-an-ip.example"]


def listener_without_filters(state):
    state.append({"@type": TYPES + "listener.v3.Listener", "name": "empty",
                  "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 1}}})
    return "Listener", ["empty", "filter"]


def manager_without_routes(state):
    listener = copy.deepcopy(_find(state, "Listener", "http"))
    listener["name"] = "no-routes"
    listener["address"]["socketAddress"]["portValue"] = 1
    del listener["filterChains"][0]["filters"][0]["typedConfig"]["rds"]
    state.append(listener)
    return "Listener", ["no-routes", "rout"]


REFUSALS = [bad_route_regex, bad_header_regex, duplicate_domain, no_action, no_path_match, direct_response_status, weights_sum_to_zero,
            cluster_without_name, cluster_connect_timeout_zero, outlier_percent, least_request_choices, endpoint_port,
            endpoint_weight_zero, endpoint_name_for_eds, listener_without_filters, manager_without_routes]


def changed(good, refusal):
    """(state, kind of the resource, words that the refusal must contain)."""
    state = copy.deepcopy(good)
    kind, names = refusal(state)
    _marker(state)["routes"][-1]["directResponse"]["body"] = {"inlineString": "changed"}
    return state, kind, names
