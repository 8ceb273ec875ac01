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
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cases import CASES, Story, Upstream  # noqa: E402
from client import fetch  # noqa: E402
from config import cluster, direct, http_listener, routes, tcp_listener  # noqa: E402


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
    def __init__(self, name, command, directory):
        self.name = name
        self.log = os.path.join(directory, name + ".log")
        self.process = subprocess.Popen(command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT)

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


class Proxy:
    """One of the two, with its own xDS server and its own upstreams (so that what they saw is not mixed)."""

    def __init__(self, name, cases, directory, xds_server, make_command):
        self.name = name
        self.http_port, self.tcp_port, self.xds_port = free_ports(3)
        self.upstreams = {case.name: make_upstreams(case) for case in cases}
        folder = os.path.join(directory, name + "-resources")
        os.mkdir(folder)
        with open(os.path.join(folder, "all.json"), "w", encoding="utf-8") as f:
            json.dump(resources(cases, self.upstreams, self.http_port, self.tcp_port), f, indent=1)
        self.processes = [Process(name + "-xds", [xds_server, "-listen", f"127.0.0.1:{self.xds_port}", "-dir", folder], directory)]
        self._wait(lambda: socket.create_connection(("127.0.0.1", self.xds_port), 1).close() or True, "the xDS server")
        self.processes.append(Process(name, make_command(self.xds_port, directory), directory))
        self._wait(lambda: fetch(self.http_port, host="marker.test").body == b"ready", "its configuration")
        if any(case.name.startswith("tcp-") for case in cases):
            self._wait(lambda: socket.create_connection(("127.0.0.1", self.tcp_port), 1).close() or True, "its TCP listener")
            self.upstreams[next(c.name for c in cases if c.name.startswith("tcp-"))]["u"].reset()

    def _wait(self, condition, what):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except (OSError, AttributeError):
                pass
            for p in self.processes:
                if p.process.poll() is not None:
                    raise RuntimeError(f"{p.name} exited with {p.process.returncode}:\n{p.tail()}")
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: waited 30 s for {what}\n" + "\n".join(p.tail() for p in self.processes))

    def tell(self, case):
        story = Story(case, self.http_port, self.tcp_port, self.upstreams[case.name])
        try:
            return case.run(story)
        except Exception:  # what went wrong is the observation: it differs from the other proxy's, or both fail the case
            return "EXCEPTION " + traceback.format_exc(limit=-2)

    def stop(self):
        for p in reversed(self.processes):
            p.stop()


def envoy_command(binary):
    def make(xds_port, directory):
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
                        "socket_address": {"address": "127.0.0.1", "port_value": xds_port}}}}]}]}}]}}, f)
        return [binary, "-c", bootstrap, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"]
    return make


def weft_command(binary, variant):
    return lambda xds_port, directory: [binary, "--xds", f"127.0.0.1:{xds_port}", "--xds-variant", variant, "--workers", "1"]


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
    proxies = []
    failed = 0
    with tempfile.TemporaryDirectory(prefix="weft-conformance-") as directory:
        try:
            if options.envoy:
                proxies.append(Proxy("envoy", cases, directory, options.xds_server, envoy_command(options.envoy)))
            if options.weft:
                proxies.append(Proxy("weft", cases, directory, options.xds_server, weft_command(options.weft, options.variant)))
            for case in cases:
                observed = [p.tell(case) for p in proxies]
                good = all(o == observed[0] for o in observed) and not str(observed[0]).startswith("EXCEPTION")
                failed += not good
                print(f"{'same  ' if good else 'DIFFER'} {case.name}")
                if options.show or not good:
                    for p, o in zip(proxies, observed):
                        print(f"         {p.name:6} {o}")
        finally:
            for p in proxies:
                p.stop()
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not cases else 0)


if __name__ == "__main__":
    main()
