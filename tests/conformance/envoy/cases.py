# SPDX-License-Identifier: Apache-2.0
"""The cases: each is a virtual host `NAME.test` with its own clusters and upstreams, and a story told to both proxies.

A case is a function decorated with @case(routes, clusters, upstreams). It gets a Story and returns what it observed: plain data
that must be equal for Envoy and Weft. What is compared is chosen in the case: status, body, what upstreams saw, who was asked.
"""
import subprocess
import time

from client import Connection, fetch, request_bytes
from config import HTTP2, direct, route
from upstream import Close, Hang, Reply, Reset, Upstream

CASES = []


class Case:
    def __init__(self, name, run, virtual_hosts, clusters, upstreams):
        self.name, self.run, self.virtual_hosts = name, run, virtual_hosts
        self.clusters, self.upstreams = clusters, upstreams


def case(routes=(), clusters=None, upstreams=None, domains=None, **host_fields):
    """clusters: {name: (upstream names, fields)}; default one cluster `c` over upstream `u`. Names get the case's as a prefix."""
    def add(function):
        name = function.__name__.replace("_", "-")
        CASES.append(Case(name, function, [{"name": name, "domains": domains or [f"{name}.test"], "routes": list(routes), **host_fields}],
                          clusters if clusters is not None else {"c": (["u"], {})}, upstreams or {"u": None}))
        return function
    return add


class Story:
    """One case against one proxy."""

    def __init__(self, this, port, tcp_port, upstreams):
        self.host, self.port, self.tcp_port, self.upstreams = f"{this.name}.test", port, tcp_port, upstreams

    def get(self, path="/", **arguments):
        arguments.setdefault("host", self.host)
        return fetch(self.port, path=path, **arguments)

    def status(self, path="/", **arguments):
        return self.get(path, **arguments).status

    def hits(self):
        return {name: len(u.seen()) for name, u in self.upstreams.items()}


def by_status(*statuses):
    """Answers with these statuses in turn, the last one for ever."""
    return lambda request, number: Reply(statuses[min(number, len(statuses) - 1)], b"answer %d" % number)


def always(action):
    return lambda request, number: action


def named(name):
    return lambda request, number: Reply(200, name.encode())


# ---- matching -----------------------------------------------------------------------------------------------------------
@case([direct("exact", {"path": "/a"}), direct("rest", {"prefix": "/"})], clusters={})
def match_path_exact(s):
    return [s.get(p).body for p in ("/a", "/a/", "/a?x=1", "/ab", "/A")]


@case([direct("p", {"prefix": "/api"})], clusters={})
def match_path_prefix(s):
    return [(r.status, r.body) for r in map(s.get, ("/api", "/apix", "/api/v1?q", "/ap"))]


@case([direct("p", {"pathSeparatedPrefix": "/api"})], clusters={})
def match_path_separated_prefix(s):
    return [(r.status, r.body) for r in map(s.get, ("/api", "/apix", "/api/v1", "/api?x"))]


@case([direct("r", {"safeRegex": {"regex": "/item/[0-9]+"}})], clusters={})
def match_path_regex(s):
    return [s.status(p) for p in ("/item/12", "/item/12?x=y", "/item/", "/item/12/more", "/x/item/12")]


@case([direct("i", {"prefix": "/API", "caseSensitive": False}), direct("e", {"path": "/One", "caseSensitive": False})], clusters={})
def match_path_ignoring_case(s):
    return [s.status(p) for p in ("/api/x", "/Api", "/one", "/ONE", "/onex")]


@case([direct("first", {"prefix": "/x"}), direct("second", {"prefix": "/x/y"}), direct("third", {"path": "/x/y/z"})], clusters={})
def match_first_wins(s):
    return [s.get(p).body for p in ("/x", "/x/y", "/x/y/z")]


def _header_route(text, **matcher):
    return direct(text, {"prefix": "/", "headers": [{"name": "x-test", **matcher}]})


@case([_header_route("hit", stringMatch={"exact": "one"})], clusters={})
def match_header_exact(s):
    return [s.status(headers=[("X-Test", v)]) for v in ("one", "One", "two", "")] + [s.status()]


@case([_header_route("p", stringMatch={"prefix": "ab"}), _header_route("s", stringMatch={"suffix": "yz"}),
       _header_route("c", stringMatch={"contains": "mid"})], clusters={})
def match_header_prefix_suffix_contains(s):
    return [(r.status, r.body) for r in (s.get(headers=[("x-test", v)]) for v in ("abc", "xyz", "amidb", "none"))]


@case([_header_route("r", stringMatch={"safeRegex": {"regex": "v[0-9]"}})], clusters={})
def match_header_regex(s):
    return [s.status(headers=[("x-test", v)]) for v in ("v1", "v12", "xv1", "v")]


@case([_header_route("present", presentMatch=True), direct("absent")], clusters={})
def match_header_present(s):
    return [s.get(headers=h).body for h in ([("x-test", "1")], [("x-test", "")], [])]


@case([_header_route("inverted", stringMatch={"exact": "no"}, invertMatch=True), direct("rest")], clusters={})
def match_header_inverted(s):
    return [s.get(headers=h).body for h in ([("x-test", "no")], [("x-test", "yes")], [])]


@case([_header_route("range", rangeMatch={"start": "10", "end": "20"}), direct("rest")], clusters={})
def match_header_range(s):
    return [s.get(headers=[("x-test", v)]).body for v in ("9", "10", "19", "20", "x")]


@case([_header_route("i", stringMatch={"exact": "MiXed", "ignoreCase": True})], clusters={})
def match_header_ignoring_case(s):
    return [s.status(headers=[("x-test", v)]) for v in ("mixed", "MIXED", "mixe")]


@case([_header_route("comma", stringMatch={"exact": "a,b"}), _header_route("comma-space", stringMatch={"exact": "a, b"}),
       _header_route("second", stringMatch={"exact": "b"}), _header_route("first", stringMatch={"exact": "a"}), direct("rest")], clusters={})
def match_header_repeated(s):
    return [s.get(headers=[("x-test", "a"), ("x-test", "b")]).body, s.get(headers=[("x-test", "a,b")]).body]


@case([_header_route("not-b", stringMatch={"exact": "b"}, invertMatch=True), direct("rest")], clusters={})
def match_header_repeated_inverted(s):
    return [s.get(headers=[("x-test", v) for v in values]).body for values in (["a"], ["b"], ["a", "b"], ["b", "a"], ["a", "c"])]


@case([direct("post", {"prefix": "/", "headers": [{"name": ":method", "stringMatch": {"exact": "POST"}}]}), direct("other")], clusters={})
def match_method(s):
    return [s.get(method="POST", body=b"x").body, s.get().body, s.get(method="PUT", body=b"").body]


@case([direct("q", {"prefix": "/", "queryParameters": [{"name": "v", "stringMatch": {"exact": "2"}}]}),
       direct("p", {"prefix": "/", "queryParameters": [{"name": "debug", "presentMatch": True}]}), direct("rest")], clusters={})
def match_query(s):
    return [s.get(p).body for p in ("/?v=2", "/?v=1", "/?a=1&v=2", "/?debug", "/?debug=0", "/?v=1&v=2", "/")]


@case([direct("suffix")], clusters={}, domains=["*.suffix.example", "prefix.example.*"])
def match_domain_wildcards(s):
    return [s.status(host=h) for h in ("a.suffix.example", "a.b.suffix.example", "suffix.example", "prefix.example.org", "other.example")]


@case([direct("port")], clusters={}, domains=["with-port.example:8080", "plain.example"])
def match_domain_port(s):
    return [s.status(host=h) for h in ("with-port.example:8080", "with-port.example", "plain.example", "PLAIN.example", "plain.example:81")]


@case(clusters={})
def no_route(s):
    r = s.get("/nothing")
    return r.status, r.body


@case([direct("x")], clusters={})
def no_virtual_host(s):
    r = s.get(host="unknown-host.invalid")
    return r.status, r.body


# ---- actions ------------------------------------------------------------------------------------------------------------
@case([direct("teapot", {"path": "/t"}, 418), {"match": {"path": "/empty"}, "directResponse": {"status": 204}}], clusters={})
def direct_response(s):
    a, b = s.get("/t"), s.get("/empty")
    return a.status, a.body, a.get("content-length"), b.status, b.body


@case([{"match": {"path": "/host"}, "redirect": {"hostRedirect": "new.example"}},
       {"match": {"path": "/path"}, "redirect": {"pathRedirect": "/elsewhere", "responseCode": "TEMPORARY_REDIRECT"}},
       {"match": {"path": "/https"}, "redirect": {"httpsRedirect": True, "responseCode": "FOUND"}},
       {"match": {"prefix": "/old"}, "redirect": {"prefixRewrite": "/new", "stripQuery": True, "responseCode": "PERMANENT_REDIRECT"}},
       {"match": {"path": "/port"}, "redirect": {"portRedirect": 8443}}], clusters={})
def redirect(s):
    return [(r.status, r.get("location")) for r in map(s.get, ("/host?q=1", "/path?q=1", "/https", "/old/x?q=1", "/port"))]


@case([route({"prefix": "/v1/"}, {"cluster": "c", "prefixRewrite": "/"}), route({"prefix": "/h"}, {"cluster": "c", "hostRewriteLiteral": "in.example"})])
def rewrites(s):
    s.get("/v1/thing?q=1")
    s.get("/host")
    return [(r.path, r.get("host")) for r in s.upstreams["u"].seen()]


@case([route(to="c", requestHeadersToAdd=[{"header": {"key": "x-new", "value": "a"}},
                                          {"header": {"key": "x-over", "value": "b"}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"},
                                          {"header": {"key": "x-if", "value": "c"}, "appendAction": "ADD_IF_ABSENT"}],
             requestHeadersToRemove=["x-secret"])])
def request_header_changes(s):
    s.get(headers=[("x-over", "old"), ("x-if", "mine"), ("x-secret", "1"), ("x-new", "z")])
    seen = s.upstreams["u"].seen()[0]
    return {h: seen.get(h) for h in ("x-new", "x-over", "x-if", "x-secret")}


@case([route(to="c", responseHeadersToAdd=[{"header": {"key": "x-added", "value": "1"}}], responseHeadersToRemove=["x-internal"])],
      upstreams={"u": always(Reply(headers=[("X-Internal", "s"), ("X-Kept", "k")]))})
def response_header_changes(s):
    r = s.get()
    return {h: r.get(h) for h in ("x-added", "x-internal", "x-kept")}


@case([route(to={"weightedClusters": {"clusters": [{"name": "a", "weight": 0}, {"name": "b", "weight": 100}]}})],
      clusters={"a": (["ua"], {}), "b": (["ub"], {})}, upstreams={"ua": None, "ub": None})
def weighted_all_to_one(s):
    for _ in range(20):
        s.get()
    return s.hits()


@case([route(to={"weightedClusters": {"clusters": [{"name": "a", "weight": 75}, {"name": "b", "weight": 25}]}})],
      clusters={"a": (["ua"], {}), "b": (["ub"], {})}, upstreams={"ua": None, "ub": None})
def weighted_split(s):
    connection = Connection(s.port)
    for _ in range(400):
        connection.send(request_bytes(host=s.host))
        connection.read()
    connection.close()
    return 230 <= s.hits()["ua"] <= 370 and s.hits()["ua"] + s.hits()["ub"] == 400


@case([route(to="c")], clusters={"c": (["u1", "u2", "u3"], {})}, upstreams={"u1": None, "u2": None, "u3": None})
def round_robin_is_even(s):
    connection = Connection(s.port)
    for _ in range(30):
        connection.send(request_bytes(host=s.host))
        connection.read()
    connection.close()
    return s.hits()


@case([route(to="nowhere")])
def unknown_cluster(s):
    r = s.get()
    return r.status, r.body


@case([route(to="c")], clusters={"c": ([], {})})
def no_endpoints(s):
    r = s.get()
    return r.status, r.body


# ---- what passes through ------------------------------------------------------------------------------------------------
@case([route(to="c")], upstreams={"u": lambda r, n: Reply(200, r.body + b"|" + r.method.encode())})
def bodies_both_ways(s):
    return [s.get(method="POST", body=b"x" * n).body for n in (0, 1, 70000)]


@case([route(to="c")], upstreams={"u": lambda r, n: Reply(200, r.body)})
def chunked_request(s):
    connection = Connection(s.port)
    connection.send(f"POST / HTTP/1.1\r\nHost: {s.host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n".encode())
    r = connection.read()
    connection.close()
    return r.status, r.body


@case([route(to="c")], upstreams={"u": always(Reply(body=b"chunky", chunked=True))})
def chunked_response(s):
    r = s.get()
    return r.status, r.body, r.complete


@case([route(to="c")], upstreams={"u": always(Reply(body=b"12345"))})
def head_request(s):
    r = s.get(method="HEAD")
    return r.status, r.get("content-length"), r.body


@case([route(to="c")], upstreams={"u": by_status(204, 304, 404, 500)})
def statuses_pass_through(s):
    return [s.status() for _ in range(4)]


@case([route(to="c")])
def pipelined_requests(s):
    connection = Connection(s.port)
    connection.send(b"".join(request_bytes(path=f"/{i}", host=s.host) for i in range(5)))
    statuses = [connection.read().status for _ in range(5)]
    connection.close()
    return statuses, [r.path for r in s.upstreams["u"].seen()]


@case([route(to="c")])
def hop_by_hop_headers_stay(s):
    s.get(headers=[("Connection", "keep-alive, x-hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("TE", "gzip"), ("X-Stay", "1")])
    seen = s.upstreams["u"].seen()[0]
    return {h: seen.get(h) for h in ("keep-alive", "x-stay", "te")}


@case([route(to="c")])
def forwarded_proto_is_set(s):
    s.get()
    return s.upstreams["u"].seen()[0].get("x-forwarded-proto")


@case([route(to="c")])
def request_id_is_made(s):
    s.get()
    return [len(v) for v in s.upstreams["u"].seen()[0].get("x-request-id")]


@case([route(to="c")])
def connection_close_is_honoured(s):
    connection = Connection(s.port)
    connection.send(request_bytes(host=s.host, headers=[("Connection", "close")]))
    r = connection.read()
    return r.status, r.get("connection"), connection.ended()


@case([route(to="c")], clusters={"c": (["u"], {})})
def upstream_connections_are_reused(s):
    connection = Connection(s.port)
    for _ in range(5):
        connection.send(request_bytes(host=s.host))
        connection.read()
    connection.close()
    return s.upstreams["u"].connections


# ---- bad requests -------------------------------------------------------------------------------------------------------
def _raw_status(s, data):
    connection = Connection(s.port)
    connection.send(data)
    r = connection.read()
    ended = connection.ended()
    connection.close()
    return (r.status if r else None), ended


@case([route(to="c")])
def bad_no_host(s):
    return _raw_status(s, b"GET / HTTP/1.1\r\n\r\n")


@case([route(to="c")])
def bad_request_line(s):
    return _raw_status(s, b"GARBAGE\r\n\r\n")[0]


@case([route(to="c")])
def bad_content_length(s):
    return _raw_status(s, f"POST / HTTP/1.1\r\nHost: {s.host}\r\nContent-Length: +5\r\n\r\nhello".encode())


@case([route(to="c")])
def bad_two_content_lengths(s):
    return _raw_status(s, f"POST / HTTP/1.1\r\nHost: {s.host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".encode())


@case([route(to="c")])
def bad_length_and_chunked(s):
    status, _ = _raw_status(s, f"POST / HTTP/1.1\r\nHost: {s.host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
    return status, s.hits()["u"]


@case([route(to="c")])
def headers_too_large(s):
    return _raw_status(s, request_bytes(host=s.host, headers=[(f"x-{i}", "v" * 8000) for i in range(9)]))


# ---- failures of the upstream -------------------------------------------------------------------------------------------
def _local(r):
    return r.status, r.get("content-type"), b"reset reason" in r.body or r.body


@case([route(to="c")], upstreams={"u": always(Close())})
def upstream_closes_without_answer(s):
    return _local(s.get())


@case([route(to="c")], upstreams={"u": always(Reset())})
def upstream_resets(s):
    return _local(s.get())


@case([route(to="c")], clusters={"c": (["dead"], {})}, upstreams={"dead": "refuses"})
def upstream_refuses(s):
    return _local(s.get())


@case([route(to="c")], upstreams={"u": always(Reply(body=b"x" * 1000, cut_after=100))})
def upstream_cut_mid_body(s):
    r = s.get()
    return r.status, r.complete


@case([route(to={"cluster": "c", "timeout": "0.3s"})], upstreams={"u": always(Hang())})
def route_timeout(s):
    started = time.monotonic()
    r = s.get()
    return r.status, r.body, 0.25 < time.monotonic() - started < 2


@case([route(to={"cluster": "c", "timeout": "0s"})], upstreams={"u": always(Reply(delay=0.4))})
def route_timeout_off(s):
    return s.status()


# ---- retries ------------------------------------------------------------------------------------------------------------
def _retry(on, n=1, **fields):
    return {"cluster": "c", "timeout": "5s", "retryPolicy": {"retryOn": on, "numRetries": n, **fields}}


@case([route(to=_retry("5xx", 2))], upstreams={"u": by_status(500, 503, 200)})
def retry_5xx_until_good(s):
    return s.status(), s.hits()


@case([route(to=_retry("5xx", 2))], upstreams={"u": by_status(500)})
def retry_5xx_exhausted(s):
    return s.status(), s.hits()


@case([route(to=_retry("gateway-error", 1))], upstreams={"u": by_status(500, 200)})
def retry_gateway_error_not_500(s):
    return s.status(), s.hits()


@case([route(to=_retry("gateway-error", 1))], upstreams={"u": by_status(502, 200)})
def retry_gateway_error(s):
    return s.status(), s.hits()


@case([route(to=_retry("5xx", 2))], upstreams={"u": by_status(404, 200)})
def retry_not_on_404(s):
    return s.status(), s.hits()


@case([route(to=_retry("retriable-4xx", 1))], upstreams={"u": by_status(409, 200)})
def retry_retriable_4xx(s):
    return s.status(), s.hits()


@case([route(to=_retry("retriable-status-codes", 1, retriableStatusCodes=[418]))], upstreams={"u": by_status(418, 200)})
def retry_status_codes(s):
    return s.status(), s.hits()


@case([route(to=_retry("reset", 1))], upstreams={"u": lambda r, n: Reset() if n == 0 else Reply()})
def retry_reset(s):
    return s.status(), s.hits()


@case([route(to=_retry("connect-failure", 3))], clusters={"c": (["dead", "u"], {})}, upstreams={"dead": "refuses", "u": None})
def retry_connect_failure(s):
    return [s.status() for _ in range(4)]


@case([route(to=_retry("5xx", 1))], upstreams={"u": lambda r, n: Reply(503) if n == 0 else Reply(200, r.body)})
def retry_replays_body(s):
    r = s.get(method="POST", body=b"payload" * 1000)
    return r.status, r.body == b"payload" * 1000, s.hits()


@case([route(to=_retry("5xx", 1, perTryTimeout="0.2s"))], upstreams={"u": lambda r, n: Hang() if n == 0 else Reply()})
def retry_per_try_timeout(s):
    return s.status(), s.hits()


@case([route(to="c")], upstreams={"u": by_status(503, 200)})
def retry_only_where_configured(s):
    return s.status(), s.hits()


@case([route(to=_retry("5xx", 1))], upstreams={"u": by_status(503)}, clusters={"c": (["u"], {"circuitBreakers": {"thresholds": [{"maxRetries": 0}]}})})
def retry_breaker(s):
    return s.status(), s.hits()


# ---- breakers and ejection ----------------------------------------------------------------------------------------------
def _overflow(r):
    return r.status, r.get("x-envoy-overloaded"), r.body


@case([route(to="c")], clusters={"c": (["u"], {"circuitBreakers": {"thresholds": [{"maxRequests": 0}]}})})
def breaker_requests(s):
    return s.get().status


@case([route(to="c")], clusters={"c": (["u"], {"circuitBreakers": {"thresholds": [{"maxConnections": 1, "maxPendingRequests": 1}]}})},
      upstreams={"u": lambda r, n: Reply(200, delay=0.5 if r.path == "/slow" else 0)})
def breaker_pending(s):
    first, second, third = Connection(s.port), Connection(s.port), Connection(s.port)
    first.send(request_bytes(path="/slow", host=s.host))
    deadline = time.monotonic() + 3
    while not s.upstreams["u"].seen() and time.monotonic() < deadline:
        time.sleep(0.005)
    second.send(request_bytes(path="/queued", host=s.host))
    refused = None
    while refused is None and time.monotonic() < deadline:  # the second must be queued before the third may be refused
        third.send(request_bytes(path="/third", host=s.host))
        refused = third.read()
    out = _overflow(refused), first.read().status, second.read().status
    for c in (first, second, third):
        c.close()
    return out


@case([route(to=_retry("5xx", 3))], upstreams={"bad": by_status(500), "good": None},
      clusters={"c": (["bad", "good"], {"outlierDetection": {"consecutive5xx": 3, "interval": "60s", "baseEjectionTime": "60s",
                                                             "maxEjectionPercent": 100}})})
def ejection_after_consecutive_5xx(s):
    connection = Connection(s.port)
    statuses = set()
    for _ in range(30):
        connection.send(request_bytes(host=s.host))
        statuses.add(connection.read().status)
    connection.close()
    # Envoy ejects on its main thread, so a request or two may still reach the bad one.
    return statuses == {200}, 3 <= s.hits()["bad"] <= 5, s.hits()["good"]


@case([route(to="c")], upstreams={"u": by_status(500)},
      clusters={"c": (["u"], {"commonLbConfig": {"healthyPanicThreshold": {"value": 50}},
                              "outlierDetection": {"consecutive5xx": 2, "interval": "60s", "maxEjectionPercent": 100}})})
def ejection_of_all_is_panic(s):
    return [s.status() for _ in range(6)], s.hits()


@case([route(to="c")], upstreams={"u": by_status(500)},
      clusters={"c": (["u"], {"commonLbConfig": {"healthyPanicThreshold": {"value": 0}},
                              "outlierDetection": {"consecutive5xx": 2, "interval": "60s", "maxEjectionPercent": 100}})})
def ejection_of_all_without_panic(s):
    deadline = time.monotonic() + 5
    while (r := s.get()).status == 500 and time.monotonic() < deadline:
        pass
    return r.status, r.body, 2 <= s.hits()["u"] <= 4


# ---- HTTP/2 downstream (curl) -------------------------------------------------------------------------------------------
def _curl(s, path, *arguments, **options):
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-o", "-", "-w", "|%{http_version} %{http_code}", "-H", f"Host: {s.host}",
                           *arguments, f"http://127.0.0.1:{s.port}{path}"], capture_output=True, timeout=20, check=False, **options)
    return done.returncode, done.stdout


@case([route(to="c")], upstreams={"u": lambda r, n: Reply(200, r.method.encode() + b" " + r.path.encode())})
def http2_request(s):
    return _curl(s, "/two?x=1"), [(r.get("host"), r.get("x-forwarded-proto")) for r in s.upstreams["u"].seen()]


@case([route(to="c")], upstreams={"u": lambda r, n: Reply(200, r.body)})
def http2_body_both_ways(s):
    code, out = _curl(s, "/", "--data-binary", "@-", input=b"b" * 200000)
    return code, len(out), out[-8:]


@case([route(to="c")], upstreams={"u": always(Reply(body=b"chunky", chunked=True))})
def http2_chunked_upstream(s):
    return _curl(s, "/")


@case([route(to=_retry("5xx", 1))], upstreams={"u": by_status(503, 200)})
def http2_retry(s):
    return _curl(s, "/"), s.hits()


@case([route(to="c")], clusters={"c": (["dead"], {})}, upstreams={"dead": "refuses"})
def http2_upstream_refuses(s):
    code, out = _curl(s, "/")
    return code, out.rsplit(b"|", 1)[1]


# ---- TCP ----------------------------------------------------------------------------------------------------------------
@case()
def tcp_proxy_carries_http_untouched(s):
    r = fetch(s.tcp_port, path="/raw?x", host="anything", headers=[("X-A", "1")])
    return r.status, [(seen.path, seen.headers) for seen in s.upstreams["u"].seen()]


HTTP2_CLUSTER = {"typedExtensionProtocolOptions": HTTP2}
__all__ = ["CASES", "Story", "Upstream", "HTTP2_CLUSTER", "named"]
