#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: interleaved rounds of the same work over direct TCP, a null relay and Weft; ratios with confidence intervals.

Client and server run on CPU 1, proxies and relays on CPU 0. Latency is open loop (weft-load). CPU is charged twice: the proxy's
own, and everything the machine was busy with minus its idle baseline and the load generator's waiting, both per request. Prints a
table, writes JSON, exits 1 if a target of the project is missed; the README beside this file says what the figures mean.
"""
import argparse
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from intervals import median, ratio_interval  # noqa: E402  (ours, beside this file)
from world import World, address, busy_seconds  # noqa: E402

ECHO, SINK, HTTP, RELAY_ECHO, RELAY_HTTP, RELAY_SINK = 9000, 9001, 8080, 9100, 9180, 9101
VIPS = {"wb-s1": "10.97.0.1", "wb-s2": "10.97.0.2"}  # HTTP services of one pod each: splice on, splice off


def manifests():
    """weft-control's view: the enrolled pods as workloads, HTTP services with a route on the same node."""
    from world import NODES, PODS
    documents = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}]
    for pod, (node, _, enrolled, splice) in PODS.items():
        if enrolled:
            documents.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": pod, "namespace": "bench"}})
            documents.append({"apiVersion": "weft.dev/v1", "kind": "Workload",
                              "metadata": {"name": pod, "namespace": "bench", "labels": {"app": pod},
                                           "annotations": {"weft.dev/splice": "on" if splice else "off"}},
                              "spec": {"serviceAccount": pod, "node": node, "addresses": [address(pod)]}})
    assert set(NODES) == {"wb-a", "wb-b"}
    for pod, vip in VIPS.items():
        name = f"web-{pod}"
        documents.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "bench"},
                          "spec": {"clusterIP": vip, "selector": {"app": pod},
                                   "ports": [{"name": "http", "port": 80, "targetPort": HTTP, "appProtocol": "http"}]}})
        documents.append({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                          "metadata": {"name": name, "namespace": "bench"},
                          "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": name, "port": 80}],
                                   "rules": [{"backendRefs": [{"name": name, "port": 80}]}]}})
    return documents


class Case:
    """One way for bytes to go. `proxies`: functions giving the pids whose CPU is the proxy's."""

    def __init__(self, name, pod, target, proxies=(), spliced=False):
        self.name, self.pod, self.target, self.proxies, self.spliced = name, pod, target, proxies, spliced
        self.rounds = []

    def figures(self, key):
        return [r[key] for r in self.rounds]


def measure(world, case, idle_busy, arguments):
    if case.proxies:
        arguments = [*arguments, "--charge", ",".join(str(proxy()) for proxy in case.proxies)]
    result = world.load(case.pod, "--target", case.target, *arguments)
    took, work = result["seconds"], result["answered"] or 1
    # weft-load spins while it waits for the next due time: that is no work of anybody's.
    result["system_us"] = max(result["busy_s"] - result["spun_s"] - idle_busy * took, 0) * 1e6 / work
    case.rounds.append(result)


def idle_baseline(seconds=3.0):
    before, start = busy_seconds(), time.monotonic()
    time.sleep(seconds)  # measuring nothing happening, not waiting for something
    return (busy_seconds() - before) / (time.monotonic() - start)


def interleave(world, cases, rounds, idle, arguments):
    for i in range(rounds):
        for case in cases if i % 2 == 0 else reversed(cases):
            before = world.spliced_messages("wb-a") if case.spliced else 0
            measure(world, case, idle, arguments)
            if case.spliced:
                case.rounds[-1]["spliced_messages"] = world.spliced_messages("wb-a") - before


def print_table(title, cases, columns):
    print(f"\n{title}")
    print(f"  {'':42}" + "".join(f"{c:>13}" for c in columns))
    for case in cases:
        print(f"  {case.name:42}" + "".join(f"{median(case.figures(c)):13.2f}" for c in columns))


def check(report, text, numerator, denominator, key, limit):
    ratio, low, high = ratio_interval(numerator.figures(key), denominator.figures(key))
    held = high <= limit
    report["targets"].append({"text": text, "ratio": ratio, "low": low, "high": high, "limit": limit, "held": held})
    print(f"  {'held  ' if held else 'MISSED'} {text}: {ratio:.2f} [{low:.2f}, {high:.2f}], at most {limit}")
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", default="build/release/bin")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--out", default="build/bench.json")
    parser.add_argument("--logs", help="keep the processes' logs in this folder")
    parser.add_argument("--sizes", default="64,1024,16384")
    parser.add_argument("--parts", default="echo,http,bulk", help="which tables to make; a target without its table is not judged")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - {"echo", "http", "bulk"}
    if unknown:
        parser.error(f"--parts: {', '.join(sorted(unknown))}: there are echo, http and bulk")
    if os.geteuid() != 0:
        sys.exit("bench: needs root (network namespaces, BPF): run it with sudo")
    report = {"machine": {"kernel": os.uname().release, "cores": os.cpu_count()}, "tables": {}, "targets": []}
    if options.logs:
        os.makedirs(options.logs, exist_ok=True)
    # An end by SIGTERM removes everything, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))
    world = World(os.path.abspath(options.binaries), options.logs)
    try:
        held = benchmark(world, options, report)
    except RuntimeError as error:
        for process in world.processes:
            if process.poll() not in (None, 0):
                with open(process.log_path, encoding="utf-8", errors="replace") as log:
                    print(f"--- {process.args[-1]} exited {process.returncode}: {log.read()[-2000:]}", file=sys.stderr)
        sys.exit(f"bench: {error}")
    finally:
        world.close()
    with open(options.out, "w", encoding="utf-8") as out:
        json.dump(report, out, indent=1)
    print(f"\nwritten to {options.out}")
    sys.exit(0 if held else 1)


def benchmark(world, options, report):
    world.build_network()
    for pod in ["wb-s0", "wb-t0", "wb-s1", "wb-t1", "wb-s2"]:
        for mode, port in (("echo", ECHO), ("sink", SINK), ("http", HTTP)):
            world.serve(pod, mode, port)
    relays = {port: world.relay("wb-c0", port, f"{address('wb-s0')}:{upstream}")
              for port, upstream in ((RELAY_ECHO, ECHO), (RELAY_HTTP, HTTP), (RELAY_SINK, SINK))}
    # `ip netns exec` and taskset replace themselves, so the process is the program.
    relay_pid = {port: (lambda p=process: p.pid) for port, process in relays.items()}
    world.start_mesh(manifests())
    world.prefer()
    proxy_a, proxy_b = (lambda: world.proxy_pid("wb-a")), (lambda: world.proxy_pid("wb-b"))
    idle = idle_baseline()

    def cases(port, relay_port):
        # What is compared runs next to each other, in both directions of the round.
        return [Case("direct veth TCP, same node", "wb-c0", f"{address('wb-s0')}:{port}"),
                Case("Weft same node, spliced", "wb-c1", f"{address('wb-s1')}:{port}", spliced=True),
                Case("Weft same node, splice off", "wb-c2", f"{address('wb-s2')}:{port}"),
                Case("null relay, same node", "wb-c0", f"{address('wb-c0')}:{relay_port}", [relay_pid[relay_port]]),
                Case("direct TCP, across nodes", "wb-c0", f"{address('wb-t0')}:{port}"),
                Case("Weft across nodes, mutual TLS", "wb-c1", f"{address('wb-t1')}:{port}", [proxy_a, proxy_b])]

    results = {}
    columns = ["p50_us", "p99_us", "proxy_us", "system_us"]
    parts = options.parts.split(",")
    for size in map(int, options.sizes.split(",")) if "echo" in parts else []:
        group = cases(ECHO, RELAY_ECHO)
        # The machine's mood lasts for seconds and moves p50 by a factor of two: many short rounds tell more than few long ones.
        interleave(world, group, 3 * options.rounds, idle,
                   ["--size", size, "--rate", 1000, "--seconds", options.seconds / 3, "--warmup", 0.5])
        print_table(f"echo, {size} B, 1000 requests/s, one connection (open loop)", group, columns)
        results[size] = group
        # Request and answer are a message each; those of the warm-up count, too, and the first go by TCP.
        went = sum(r["spliced_messages"] / (2 * r["answered"]) for r in group[1].rounds) / len(group[1].rounds)
        if went < 0.9:
            raise RuntimeError(f"only {went:.0%} of the messages of the spliced case were spliced: the figures mean nothing")
        report["tables"][f"echo-{size}"] = {c.name: c.rounds for c in group}

    def http_cases():
        return [Case("null relay, same node", "wb-c0", f"{address('wb-c0')}:{RELAY_HTTP}", [relay_pid[RELAY_HTTP]]),
                Case("Weft same node, HTTP/1.1 route", "wb-c2", f"{VIPS['wb-s2']}:80", [proxy_a]),
                Case("Weft same node, HTTP/1.1 route, splice on", "wb-c1", f"{VIPS['wb-s1']}:80", [proxy_a])]

    http, http_closed = http_cases(), http_cases()
    if "http" in parts:
        common = ["--mode", "http", "--size", 1024, "--seconds", options.seconds, "--warmup", 0.5]
        interleave(world, http, options.rounds, idle, [*common, "--connections", 16, "--rate", 4000])
        print_table("HTTP/1.1, 1 KB, 4000 requests/s over 16 connections (open loop)", http, columns)
        report["tables"]["http-1024"] = {c.name: c.rounds for c in http}
        interleave(world, http_closed, options.rounds, idle, [*common, "--connections", 64])
        print_table("HTTP/1.1, 1 KB, as many as go over 64 connections (closed loop)", http_closed, ["rate", *columns])
        report["tables"]["http-1024-closed"] = {c.name: c.rounds for c in http_closed}

    if "bulk" in parts:
        bulk = cases(SINK, RELAY_SINK)
        interleave(world, bulk, options.rounds, idle, ["--mode", "bulk", "--seconds", options.seconds, "--warmup", 0.5])
        print_table("bulk, one connection, 64 KB writes", bulk, ["gib_per_s"])
        report["tables"]["bulk"] = {c.name: c.rounds for c in bulk}

    print("\ntargets (95 % confidence intervals of the ratio; held: all of the interval)")
    held = [check(report, f"same node spliced p50 against direct veth TCP, {size} B", group[1], group[0], "p50_us", 0.7)
            for size, group in results.items()]
    if "http" in parts:
        held.append(check(report, "proxy CPU per HTTP/1.1 request against the null relay's", http[1], http[0], "proxy_us", 2.0))
        ratio = ratio_interval(http_closed[1].figures("proxy_us"), http_closed[0].figures("proxy_us"))
        print(f"  no target: the same in the closed loop: {ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]")
    return all(held)


if __name__ == "__main__":
    main()
