# SPDX-License-Identifier: Apache-2.0
"""The benchmark's world: two nodes and their pods as network namespaces, and Weft's processes on them. Everything is named
wb-*; close() ends what was started and removes what was made, also after an error."""
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

CONTROL_IP = "10.95.0.1"
NODES = {"wb-a": ("10.95.0.2", "10.245.1"), "wb-b": ("10.95.0.3", "10.245.2")}
# pod: (node, last byte of its address, enrolled, splice)
PODS = {
    "wb-c0": ("wb-a", 10, False, False),  # plain client
    "wb-s0": ("wb-a", 11, False, False),  # plain server, same node
    "wb-t0": ("wb-b", 11, False, False),  # plain server, other node
    "wb-c1": ("wb-a", 20, True, True),    # the same three in the mesh, splice on
    "wb-s1": ("wb-a", 21, True, True),
    "wb-t1": ("wb-b", 21, True, True),
    "wb-c2": ("wb-a", 30, True, False),   # and with the splice off
    "wb-s2": ("wb-a", 31, True, False),
}


def address(pod):
    node, last, _, _ = PODS[pod]
    return f"{NODES[node][1]}.{last}"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_for(condition, what, seconds=20.0):
    """Polls a condition; the pause only spares the processor."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise RuntimeError(f"waited {seconds:.0f} s for {what}")


class World:
    def __init__(self, binaries, keep_logs=None):
        self.binaries = binaries
        self.directory = tempfile.mkdtemp(prefix="wb-")
        self.logs = keep_logs or self.directory
        self.processes = []
        self.namespaces = []
        self.nodes = []
        self.bpffs = self.cgroup2 = None

    # ---- namespaces -------------------------------------------------------------------------------------------------
    def build_network(self):
        for name in ["wb-fabric", "wb-control", *NODES, *PODS]:
            run("ip", "netns", "add", name)
            self.namespaces.append(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", "wb-fabric", "link", "add", "br0", "type", "bridge")
        run("ip", "-n", "wb-fabric", "link", "set", "br0", "up")
        self._cable("wb-control", "eth0", f"{CONTROL_IP}/24", "wb-fabric", "ctl")
        for number, (node, (ip, prefix)) in enumerate(NODES.items()):
            self._cable(node, "eth0", f"{ip}/24", "wb-fabric", f"node{number}")
            run("ip", "netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            run("ip", "-n", node, "link", "add", "cni0", "type", "bridge")
            run("ip", "-n", node, "addr", "add", f"{prefix}.1/24", "dev", "cni0")
            run("ip", "-n", node, "link", "set", "cni0", "up")
        (a, (a_ip, a_net)), (b, (b_ip, b_net)) = NODES.items()
        run("ip", "-n", a, "route", "add", f"{b_net}.0/24", "via", b_ip)
        run("ip", "-n", b, "route", "add", f"{a_net}.0/24", "via", a_ip)
        for pod, (node, last, _, _) in PODS.items():
            prefix = NODES[node][1]
            run("ip", "-n", node, "link", "add", pod, "type", "veth", "peer", "name", "eth0", "netns", pod)
            run("ip", "-n", node, "link", "set", pod, "master", "cni0")
            run("ip", "-n", node, "link", "set", pod, "up")
            run("ip", "-n", pod, "addr", "add", f"{prefix}.{last}/24", "dev", "eth0")
            run("ip", "-n", pod, "link", "set", "eth0", "up")
            run("ip", "-n", pod, "route", "add", "default", "via", f"{prefix}.1")

    def _cable(self, inside, name, ip, outside, port):
        run("ip", "-n", inside, "link", "add", name, "type", "veth", "peer", "name", port, "netns", outside)
        run("ip", "-n", inside, "addr", "add", ip, "dev", name)
        run("ip", "-n", inside, "link", "set", name, "up")
        run("ip", "-n", outside, "link", "set", port, "master", "br0")
        run("ip", "-n", outside, "link", "set", port, "up")

    # ---- processes --------------------------------------------------------------------------------------------------
    def start(self, namespace, *command, cpu=None):
        full = ["ip", "netns", "exec", namespace]
        if namespace in NODES or namespace == "wb-control":
            # Not `ip netns exec`: it remounts /sys, and the agent needs the cgroup and bpf mounts.
            full = ["nsenter", f"--net=/run/netns/{namespace}"]
        if cpu is not None:
            full += ["taskset", "-c", str(cpu)]
        log = open(os.path.join(self.logs, f"{os.path.basename(command[0])}-{namespace}-{len(self.processes)}.log"), "w")
        process = subprocess.Popen([*full, *command], stdout=log, stderr=subprocess.STDOUT)
        process.log_path = log.name
        self.processes.append(process)
        return process

    def stop(self, process):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.processes.remove(process)

    def load(self, pod, *arguments, cpu=1):
        """Runs weft-load in a pod to its end; its figures as a dict."""
        out = run("ip", "netns", "exec", pod, os.path.join(self.binaries, "weft-load"), "--cpu", str(cpu), *map(str, arguments))
        return json.loads(out)

    def serve(self, pod, mode, port):
        process = self.start(pod, os.path.join(self.binaries, "weft-bench-server"), "--listen", f"0.0.0.0:{port}", "--mode", mode,
                             "--cpu", "1")
        wait_for(lambda: self._listens(pod, port), f"{pod}:{port} to listen")
        return process

    @staticmethod
    def _listens(namespace, port):
        out = run("ip", "netns", "exec", namespace, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in out.splitlines() if ":" in line)

    def relay(self, pod, port, upstream):
        process = self.start(pod, os.path.join(self.binaries, "weft-null-relay"), "--listen", f"0.0.0.0:{port}", "--upstream", upstream,
                             "--cpu", "0")
        wait_for(lambda: self._listens(pod, port), f"the null relay at {pod}:{port}")
        return process

    # ---- Weft -------------------------------------------------------------------------------------------------------
    def start_mesh(self, manifests):
        # A bpf filesystem of our own: no pin survives us, and none of another mesh on this machine is in our way.
        self.bpffs = os.path.join(self.directory, "bpf")
        os.mkdir(self.bpffs)
        run("mount", "-t", "bpf", "bpf", self.bpffs)
        self.cgroup2 = cgroup2_mount()
        state = os.path.join(self.directory, "control")
        os.mkdir(state, 0o700)
        folder = os.path.join(self.directory, "manifests")
        os.mkdir(folder)
        with open(os.path.join(folder, "bench.yaml"), "w", encoding="utf-8") as out:
            for document in manifests:
                out.write("---\n" + json.dumps(document) + "\n")
        tokens = os.path.join(self.directory, "tokens")
        token = {node: secrets.token_hex(16) for node in NODES}
        self._write_secret(tokens, "".join(f"{node} {value}\n" for node, value in token.items()))
        status = os.path.join(state, "status.sock")
        self.start("wb-control", os.path.join(self.binaries, "weft-control"), "--manifests", folder, "--state-dir", state,
                   "--listen", f"{CONTROL_IP}:15012", "--join-tokens", tokens, "--status", f"unix:{status}")
        wait_for(lambda: self._alive() and ask(status, "/healthz/ready"), "weft-control to be ready")
        problems = (ask(status, "/status") or {}).get("problems")
        if problems:
            raise RuntimeError(f"weft-control refuses the benchmark's manifests: {problems}")
        for node in NODES:
            self._start_node(node, token[node], os.path.join(state, "root.pem"))
        for node in NODES:
            wait_for(lambda node=node: self._alive() and ask(self._agent(node), "/healthz"), f"node {node} to serve its workloads", 40)

    @staticmethod
    def _write_secret(path, text):
        with open(path, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(text)

    def _alive(self):
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(process.args[:8])} ended with {process.returncode}")
        return True

    @staticmethod
    def _run_dir(node):
        return f"/run/weft/{node}"

    def _agent(self, node):
        return os.path.join(self._run_dir(node), "agent.sock")

    def _start_node(self, node, token, root):
        workloads = os.path.join(self.directory, f"workloads-{node}")
        os.mkdir(workloads)
        for pod, (where, _, enrolled, splice) in PODS.items():
            if where == node and enrolled:
                with open(os.path.join(workloads, f"{pod}.yaml"), "w", encoding="utf-8") as out:
                    json.dump({"name": pod, "namespace": "bench", "serviceAccount": pod, "netns": f"/run/netns/{pod}",
                               "addresses": [address(pod)], "annotations": {"weft.dev/splice": "on" if splice else "off"}}, out)
        token_file = os.path.join(self.directory, f"token-{node}")
        self._write_secret(token_file, token + "\n")
        # The children (weft-sockets, weft-keyd, weft-proxy) inherit the processor.
        self.start(node, os.path.join(self.binaries, "weft-agent"), "--node", node, "--run-dir", self._run_dir(node),
                   "--bpffs", self.bpffs, "--cgroup2", self.cgroup2, "--control", f"{CONTROL_IP}:15012", "--control-root", root,
                   "--join-token", token_file, "--workloads", workloads, "--bin-dir", self.binaries, "--proxy-workers", "1",
                   "--unload-on-exit", cpu=0)
        self.nodes.append(node)

    def prefer(self):
        """With the kernel's autogroups, nice counts within a session only: puts ours, and those of Weft's processes, first."""
        pids = ["self"] + [str(p["pid"]) for node in NODES for p in self.status(node).get("processes", []) if p["running"]]
        for pid in pids:
            try:
                with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as group:
                    group.write("-20")
            except OSError:
                return  # a kernel without autogroups

    def status(self, node):
        return ask(self._agent(node), "/status") or {}

    def proxy_pid(self, node):
        pids = [p["pid"] for p in self.status(node).get("processes", []) if p["name"] == "weft-proxy" and p["running"]]
        if not pids:
            raise RuntimeError(f"{node} has no weft-proxy")
        return pids[0]

    def spliced_messages(self, node):
        return self.status(node)["splice"]["messages"]

    def close(self):
        """Ends and removes all of it; says what it could not remove."""
        failures = []
        for process in reversed(list(self.processes)):
            self.stop(process)
        for node in self.nodes:
            shutil.rmtree(self._run_dir(node), ignore_errors=True)
            remove_cgroup(os.path.join(self.cgroup2, "weft", node), failures)
        if self.bpffs and os.path.ismount(self.bpffs):
            subprocess.run(["umount", "-l", self.bpffs], check=False)
        for name in reversed(self.namespaces):
            subprocess.run(["ip", "netns", "del", name], check=False)
        if self.bpffs and os.path.ismount(self.bpffs):
            failures.append(f"{self.bpffs} is still mounted")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        for failure in failures:
            print(f"bench: left behind: {failure}", file=sys.stderr)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, target):
    """GET from one of Weft's local interfaces: the JSON of a 200 (True if it is none), else None."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None  # not there yet
    finally:
        connection.close()
    if answer.status != 200:
        return None
    try:
        return json.loads(body) or True
    except ValueError:
        return True


def cgroup2_mount():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == "cgroup2":
                return fields[1]
    raise RuntimeError("no cgroup2 is mounted")


def remove_cgroup(path, failures):
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            wait_for(lambda folder=folder: not _busy(folder), f"{folder} to be empty", 3)
        except RuntimeError as error:
            failures.append(str(error))


def _busy(folder):
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def busy_seconds():
    """Time that any core of the machine was not idle."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
