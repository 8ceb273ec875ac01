#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tells the same stories (cases.py) to Envoy and to weft-proxy, both configured by the same resources over ADS from the
go-control-plane server, and compares what each case observed. Prints one line a case; exits 1 if any differs.

  compare.py --envoy PATH --weft PATH --xds-server PATH [--only NAME] [--variant sotw|delta] [--show]
"""
import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cases import CASES, Story, Upstream  # noqa: E402
from client import fetch  # noqa: E402
from config import cluster, direct, http_listener, routes, tcp_listener  # noqa: E402
from refusals import REFUSALS, changed  # noqa: E402


def free_ports(count):
    """Ports that nobody has, below the kernel's ephemeral range, so that no outgoing connection takes one meanwhile."""
    ports = []
    while len(ports) < count:
        port = random.randrange(20000, 30000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def refusing_port(keep=[]):
    """A port where nothing listens: bound, so that nobody else takes it, but not listening."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    keep.append(s)
    return s.getsockname()[1]


def make_upstreams(case):
    return {name: Upstream(behaviour) for name, behaviour in case.upstreams.items() if behaviour != "refuses"}


def rename(value, names, prefix):
    """Cluster names in routes get the case's prefix."""
    if isinstance(value, dict):
        return {k: (prefix + v if k in ("cluster", "name") and isinstance(v, str) and v in names else rename(v, names, prefix))
                for k, v in value.items()}
    if isinstance(value, list):
        return [rename(v, names, prefix) for v in value]
    return value


def resources(cases, upstreams, http_port, tcp_port):
    out, hosts = [], [{"name": "marker", "domains": ["marker.test"], "routes": [direct("ready")]}]
    for case in cases:
        prefix = case.name + "/"
        for name, (members, fields) in case.clusters.items():
            ports = [upstreams[case.name][m].port if m in upstreams[case.name] else refusing_port() for m in members]
            out += cluster(prefix + name, ports, **fields)
        hosts += rename(case.virtual_hosts, set(case.clusters), prefix)
    out.append(routes("routes", hosts))
    out.append(http_listener("http", http_port, "routes"))
    tcp = next((c.name for c in cases if c.name.startswith("tcp-")), None)
    if tcp:
        out.append(tcp_listener("tcp", tcp_port, cluster=f"{tcp}/c"))
    return out


class Process:
    def __init__(self, name, command, directory, **pipes):
        self.name = name
        self.log = os.path.join(directory, name + ".log")
        self.process = subprocess.Popen(command, stdout=pipes.pop("stdout", None) or open(self.log, "w"),
                                        stderr=pipes.pop("stderr", subprocess.STDOUT), **pipes)

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-3000:]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class XdsServer(Process):
    """go-control-plane on a unix socket, driven by its standard input (tests/conformance/xds-server/main.go)."""

    def __init__(self, name, binary, directory):
        self.socket = os.path.join(directory, name + ".sock")
        with open(os.path.join(directory, name + ".log"), "w", encoding="utf-8") as errors:
            super().__init__(name, [binary, "-socket", self.socket], directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=errors, text=True)
        self.directory, self.version, self.events = directory, 0, []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def publish(self, resources):
        """Returns how many events there were before: what clients say to these resources comes after."""
        self.version += 1
        before = len(self.events)
        path = os.path.join(self.directory, f"{self.name}-{self.version}.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"resources": resources}, f)
        self.process.stdin.write(f"{self.version} {path}\n")
        self.process.stdin.flush()
        wait_for(lambda: self.said("published", str(self.version)) or self.said("error", str(self.version)), "the xDS server to load", self)
        if self.said("error", str(self.version)):
            raise RuntimeError(self.said("error", str(self.version))["error"])
        return before

    def said(self, event, version):
        return next((e for e in self.events if e["event"] == event and e.get("version") == version), None)

    def refusal(self, since, kind, other_than):
        """State of the world: a refused response is sent again and again, so the last change's refusals may still come."""
        return next((e["error"] for e in self.events[since:]
                     if e["event"] == "nack" and e["type"].endswith(kind) and e["error"] != other_than), None)


def wait_for(condition, what, *processes, seconds=30):
    """Polls a condition; the pause only spares the processor."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except (OSError, AttributeError):
            pass
        for p in processes:
            if p.process.poll() is not None:
                raise RuntimeError(f"{p.name} exited with {p.process.returncode}:\n{p.tail()}")
        time.sleep(0.02)
    raise RuntimeError(f"waited {seconds} s for {what}\n" + "\n".join(p.tail() for p in processes))


class Proxy:
    """One of the two, with its own xDS server and its own upstreams (so that what they saw is not mixed)."""

    def __init__(self, name, cases, directory, xds_server, make_command):
        self.name, self.refused = name, None
        self.upstreams = {case.name: make_upstreams(case) for case in cases}
        self.http_port, self.tcp_port = free_ports(2)
        self.good = resources(cases, self.upstreams, self.http_port, self.tcp_port)
        self.xds = XdsServer(name + "-xds", xds_server, directory)
        self.processes = [self.xds]
        self.xds.publish(self.good)
        self.processes.append(Process(name, make_command(self.xds.socket, directory), directory))
        wait_for(lambda: self.marker() == b"ready", f"{name} to be configured", *self.processes)
        tcp = next((case.name for case in cases if case.name.startswith("tcp-")), None)
        if tcp:
            wait_for(lambda: socket.create_connection(("127.0.0.1", self.tcp_port), 1).close() or True, "the TCP listener", *self.processes)
            self.upstreams[tcp]["u"].reset()

    def marker(self):
        return fetch(self.http_port, host="marker.test").body

    def tell(self, case):
        story = Story(case, self.http_port, self.tcp_port, self.upstreams[case.name])
        try:
            return case.run(story)
        except Exception:  # what went wrong is the observation: it differs from the other proxy's, or both fail the case
            return "EXCEPTION " + traceback.format_exc(limit=-2)

    def refuse(self, change):
        """Publishes a bad state, then the good one again. (the refusal's text, the marker meanwhile, words it must contain)"""
        state, kind, names = changed(self.good, change)
        since = self.xds.publish(state)
        text = wait_for(lambda: self.xds.refusal(since, kind, self.refused), f"{self.name} to refuse {change.__name__}", *self.processes, seconds=10)
        self.refused = text
        meanwhile = self.marker() if kind == "RouteConfiguration" else b"ready"
        self.xds.publish(self.good)
        wait_for(lambda: self.marker() == b"ready", "the good state again", *self.processes)
        return text, meanwhile, names

    def stop(self):
        for p in reversed(self.processes):
            p.stop()


def envoy_command(binary):
    def make(xds_socket, directory):
        bootstrap = os.path.join(directory, "envoy.json")
        with open(bootstrap, "w", encoding="utf-8") as f:
            json.dump({
                "node": {"id": "envoy", "cluster": "conformance"},
                "dynamic_resources": {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3",
                                                     "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                                      "lds_config": {"ads": {}, "resource_api_version": "V3"},
                                      "cds_config": {"ads": {}, "resource_api_version": "V3"}},
                "static_resources": {"clusters": [{
                    "name": "xds", "type": "STATIC", "connect_timeout": "1s",
                    "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}}}},
                    "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                        "pipe": {"path": xds_socket}}}}]}]}}]}}, f)
        return [binary, "-c", bootstrap, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]
    return make


def weft_command(binary, variant):
    return lambda xds_socket, directory: [binary, "--xds", f"unix:{xds_socket}", "--xds-variant", variant, "--workers", "1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envoy")
    parser.add_argument("--weft")
    parser.add_argument("--xds-server", required=True)
    parser.add_argument("--variant", default="sotw")
    parser.add_argument("--only")
    parser.add_argument("--show", action="store_true", help="print what was observed")
    options = parser.parse_args()
    cases = [c for c in CASES if not options.only or c.name == options.only]
    served = cases or CASES  # a refusal alone still spoils something that is there
    proxies = []
    failed = 0
    with tempfile.TemporaryDirectory(prefix="weft-conformance-") as directory:
        try:
            if options.envoy:
                proxies.append(Proxy("envoy", served, directory, options.xds_server, envoy_command(options.envoy)))
            if options.weft:
                proxies.append(Proxy("weft", served, directory, options.xds_server, weft_command(options.weft, options.variant)))
            for case in cases:
                observed = [p.tell(case) for p in proxies]
                good = all(o == observed[0] for o in observed) and not str(observed[0]).startswith("EXCEPTION")
                failed += not good
                print(f"{'same  ' if good else 'DIFFER'} {case.name}")
                if options.show or not good:
                    for p, o in zip(proxies, observed):
                        print(f"         {p.name:6} {o}")
            refusals = [r for r in REFUSALS if not options.only or r.__name__ == options.only]
            for change in refusals:
                failed += not compare_refusals(proxies, change, options.show)
        finally:
            for p in proxies:
                p.stop()
    total = len(cases) + len(refusals)
    print(f"{total - failed} passed, {failed} failed")
    sys.exit(1 if failed or not total else 0)


def compare_refusals(proxies, change, show):
    """True if all refuse, keep the last good state, and weft-proxy names the resource and the fault."""
    good, said = True, []
    for proxy in proxies:
        try:
            text, meanwhile, names = proxy.refuse(change)
        except RuntimeError as error:
            text, meanwhile, names = f"NOT REFUSED: {error}"[:300], b"", [None]
        missing = [n for n in names if n is None or (proxy.name == "weft" and n not in text)]
        good = good and meanwhile == b"ready" and not missing
        said.append(f"         {proxy.name:6} {text[:300]!r}" + (f" (lacks {missing})" if missing else "") +
                    ("" if meanwhile == b"ready" else f" (answered {meanwhile!r} meanwhile)"))
    print(f"{'same  ' if good else 'DIFFER'} refuses {change.__name__}")
    if show or not good:
        print("\n".join(said))
    return good


if __name__ == "__main__":
    main()
