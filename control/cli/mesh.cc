// SPDX-License-Identifier: Apache-2.0
#include "control/cli/mesh.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "absl/strings/str_join.h"
#include "proxy/ipc/local_http.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFabric = "fabric";
constexpr const char* kControl = "control";
constexpr const char* kControlAddress = "172.30.0.10";
constexpr const char* kControlPort = "15012";
constexpr const char* kAsIpv6 = "fd00:$1:$2:$3::$4";  // format of std::regex_replace

// Addresses of node N (0-based) on the fabric and of its pods' bridge.
std::string NodeAddress(size_t n) { return absl::StrCat("172.30.0.", n + 1); }
std::string PodNetwork(size_t n) { return absl::StrCat("10.244.", n + 1, ".0"); }
std::string PodGateway(size_t n) { return absl::StrCat("10.244.", n + 1, ".1"); }

size_t NodeIndex(const std::string& node) {
  for (size_t i = 0; i < kDemoNodes.size(); ++i) {
    if (kDemoNodes[i] == node) return i;
  }
  return 0;
}

// nginx as anyone would run it, with an answer that names the pod, a switch to fail, and something
// slow for the breaker.
std::string NginxConfig(const Pod& pod, const std::string& address, const std::string& dir) {
  return absl::StrCat(
      "daemon off;\nmaster_process off;\nworker_processes 1;\nuser root;\npid ", dir,
      "/nginx.pid;\nerror_log ", dir, "/error.log warn;\nevents { worker_connections 1024; }\n",
      "http {\n  log_format weft '$remote_addr $status \"$request\" $server_addr';\n  access_log ",
      dir, "/access.log weft;\n", "  client_body_temp_path ", dir, "/body;\n  proxy_temp_path ",
      dir, "/proxy;\n  fastcgi_temp_path ", dir, "/fastcgi;\n  uwsgi_temp_path ", dir,
      "/uwsgi;\n  scgi_temp_path ", dir, "/scgi;\n  keepalive_requests 1000000;\n",
      "  server {\n    listen ", address, ":8080 backlog=1024;\n    root ", dir,
      "/www;\n    add_header x-pod ", pod.name, " always;\n    if (-f ", dir,
      "/fail) { return 503 \"", pod.name,
      " fails on demand\\n\"; }\n    location /slow { limit_rate 8k; }\n",
      "    location / { return 200 \"hello from ", pod.name, "\\n\"; }\n  }\n}\n");
}

absl::StatusOr<std::string> RandomHex(size_t bytes) {
  std::vector<uint8_t> random(bytes);
  if (getrandom(random.data(), bytes, 0) != static_cast<ssize_t>(bytes)) {
    return ErrnoStatus(errno, "getrandom");
  }
  std::string out;
  for (uint8_t byte : random) absl::StrAppend(&out, absl::Hex(byte, absl::kZeroPad2));
  return out;
}

bool Connects(const std::string& netns, const std::string& address, int port) {
  RunOptions options;
  options.netns = netns;
  options.timeout = std::chrono::seconds(2);
  auto result = Run({"bash", "-c", absl::StrCat("exec 3<>/dev/tcp/", address, "/", port)}, options);
  return result.ok() && result->ok();
}

}  // namespace

const std::vector<Pod>& DemoPods() {
  static const std::vector<Pod> pods = {
      {"client", "node-a", "10.244.1.10", "client"},
      {"web-1", "node-a", "10.244.1.11", "web", Pod::App::kNginx},
      {"redis-a", "node-a", "10.244.1.20", "redis", Pod::App::kRedis},
      {"intruder", "node-a", "10.244.1.66", "intruder"},
      {"web-2", "node-b", "10.244.2.12", "web", Pod::App::kNginx},
      {"web-3", "node-b", "10.244.2.13", "web", Pod::App::kNginx},
      {"redis-b", "node-b", "10.244.2.20", "redis", Pod::App::kRedis},
      {"bare-client", "node-a", "10.244.1.30", "", Pod::App::kNone, false},
      {"bare-redis", "node-a", "10.244.1.31", "", Pod::App::kRedis, false},
  };
  return pods;
}

absl::StatusOr<std::unique_ptr<Mesh>> Mesh::Create(MeshOptions options) {
  auto mesh = std::unique_ptr<Mesh>(new Mesh(std::move(options)));
  const MeshOptions& o = mesh->options_;
  for (const char* program :
       {"weft-agent", "weft-sockets", "weft-keyd", "weft-proxy", "weft-control"}) {
    const std::string path = o.bin_dir + "/" + program;
    if (access(path.c_str(), X_OK) != 0) return ErrnoStatus(errno, path);
  }
  WEFT_ASSIGN_OR_RETURN(mesh->topology_, Topology::Create(o.prefix, o.dir));
  WEFT_RETURN_IF_ERROR(mesh->CopyManifests());
  return mesh;
}

absl::Status Mesh::CopyManifests() {
  std::error_code error;
  fs::copy(options_.manifests, ManifestDir(), fs::copy_options::recursive, error);
  if (error) return absl::InternalError("copy " + options_.manifests + ": " + error.message());
  if (!options_.ipv6) return absl::OkStatus();
  static const std::regex v4("\\b(\\d+)\\.(\\d+)\\.(\\d+)\\.(\\d+)\\b");
  for (const auto& file : fs::directory_iterator(ManifestDir(), error)) {
    WEFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(file.path()));
    WEFT_RETURN_IF_ERROR(WriteFile(file.path(), std::regex_replace(text, v4, kAsIpv6)));
  }
  return absl::OkStatus();
}

std::string Mesh::Address(const std::string& v4) const {
  static const std::regex parts("(\\d+)\\.(\\d+)\\.(\\d+)\\.(\\d+)");
  return options_.ipv6 ? std::regex_replace(v4, parts, kAsIpv6) : v4;
}

std::string Mesh::UrlAddress(const std::string& v4) const {
  return options_.ipv6 ? "[" + Address(v4) + "]" : v4;
}

std::string Mesh::ControlTarget() const {
  return absl::StrCat(UrlAddress(kControlAddress), ":", kControlPort);
}

std::string Mesh::RunDir(const std::string& node) const {
  return "/run/weft/" + topology_->Name(node);
}
std::string Mesh::AgentSocket(const std::string& node) const {
  return RunDir(node) + "/agent.sock";
}

absl::Status Mesh::BuildNetwork() {
  Topology& t = *topology_;
  const std::string bits = options_.ipv6 ? "/64" : "/24";
  const auto cidr = [&](const std::string& v4) { return Address(v4) + bits; };
  WEFT_ASSIGN_OR_RETURN(bpffs_, t.MountBpf());
  WEFT_RETURN_IF_ERROR(t.AddNamespace(Netns(kFabric)));
  WEFT_RETURN_IF_ERROR(t.AddBridge(Netns(kFabric), "fabric", ""));
  WEFT_RETURN_IF_ERROR(t.AddNamespace(Netns(kControl)));
  WEFT_RETURN_IF_ERROR(t.AddVeth({Netns(kControl), kFabricDevice, cidr(kControlAddress), ""},
                                 {Netns(kFabric), "control", "", "fabric"}));
  for (size_t n = 0; n < kDemoNodes.size(); ++n) {
    const std::string node = Netns(kDemoNodes[n]);
    WEFT_RETURN_IF_ERROR(t.AddNamespace(node, /*forwarding=*/true));
    WEFT_RETURN_IF_ERROR(t.AddBridge(node, "pods", cidr(PodGateway(n))));
    WEFT_RETURN_IF_ERROR(t.AddVeth({node, kFabricDevice, cidr(NodeAddress(n)), ""},
                                   {Netns(kFabric), kDemoNodes[n], "", "fabric"}));
    WEFT_RETURN_IF_ERROR(t.AddRoute(Netns(kControl), cidr(PodNetwork(n)), Address(NodeAddress(n))));
  }
  for (size_t n = 0; n < kDemoNodes.size(); ++n) {
    for (size_t other = 0; other < kDemoNodes.size(); ++other) {
      if (other == n) continue;
      WEFT_RETURN_IF_ERROR(
          t.AddRoute(Netns(kDemoNodes[n]), cidr(PodNetwork(other)), Address(NodeAddress(other))));
    }
  }
  for (const Pod& pod : DemoPods()) {
    WEFT_RETURN_IF_ERROR(t.AddNamespace(Netns(pod.name)));
    WEFT_RETURN_IF_ERROR(t.AddVeth({Netns(pod.name), "eth0", cidr(pod.address), ""},
                                   {Netns(pod.node), pod.name, "", "pods"}));
    WEFT_RETURN_IF_ERROR(
        t.AddRoute(Netns(pod.name), "default", Address(PodGateway(NodeIndex(pod.node)))));
  }
  return absl::OkStatus();
}

absl::Status Mesh::StartNginx(const Pod& pod) {
  const std::string dir = AppDir(pod.name);
  std::error_code error;
  fs::create_directories(dir + "/www/slow", error);
  WEFT_RETURN_IF_ERROR(WriteFile(dir + "/www/slow/page", std::string(16 << 10, 'x')));
  WEFT_RETURN_IF_ERROR(
      WriteFile(dir + "/nginx.conf", NginxConfig(pod, UrlAddress(pod.address), dir)));
  return topology_
      ->Start(pod.name, {"nginx", "-p", dir, "-c", dir + "/nginx.conf", "-e", dir + "/error.log"},
              Netns(pod.name))
      .status();
}

absl::Status Mesh::StartRedis(const Pod& pod) {
  const std::string dir = AppDir(pod.name);
  std::error_code error;
  fs::create_directories(dir, error);
  return topology_
      ->Start(pod.name,
              {"redis-server", "--bind", Address(pod.address), "--port", "6379", "--protected-mode",
               "no", "--save", "", "--appendonly", "no", "--dir", dir, "--daemonize", "no"},
              Netns(pod.name))
      .status();
}

absl::Status Mesh::StartApps() {
  for (const Pod& pod : DemoPods()) {
    if (pod.app == Pod::App::kNginx) WEFT_RETURN_IF_ERROR(StartNginx(pod));
    if (pod.app == Pod::App::kRedis) WEFT_RETURN_IF_ERROR(StartRedis(pod));
  }
  for (const Pod& pod : DemoPods()) {
    if (pod.app == Pod::App::kNone) continue;
    const int port = pod.app == Pod::App::kNginx ? 8080 : 6379;
    const bool up = WaitFor(std::chrono::seconds(10),
                            [&] { return Connects(Netns(pod.name), Address(pod.address), port); });
    if (!up) {
      return absl::DeadlineExceededError(pod.name + " did not come up; see " +
                                         topology_->LogFile(pod.name));
    }
  }
  return absl::OkStatus();
}

absl::Status Mesh::WriteTokens(const std::string& file) {
  std::string tokens;
  for (const std::string& node : kDemoNodes) {
    WEFT_ASSIGN_OR_RETURN(const std::string token, RandomHex(16));
    absl::StrAppend(&tokens, node, " ", token, "\n");
    WEFT_RETURN_IF_ERROR(WriteFile(TokenFile(node), token + "\n", 0600));
  }
  return WriteFile(file, tokens, 0600);
}

absl::Status Mesh::StartControl() {
  const std::string state = options_.dir + "/control";
  std::error_code error;
  fs::create_directories(state, error);
  fs::permissions(state, fs::perms::owner_all, error);
  if (!fs::exists(state + "/tokens", error)) WEFT_RETURN_IF_ERROR(WriteTokens(state + "/tokens"));
  std::vector<std::string> argv = {options_.bin_dir + "/weft-control",
                                   "--manifests",
                                   ManifestDir(),
                                   "--state-dir",
                                   state,
                                   "--join-tokens",
                                   state + "/tokens",
                                   "--status",
                                   "unix:" + ControlSocket(),
                                   "--listen",
                                   ControlTarget()};
  if (!options_.cert_ttl.empty()) argv.insert(argv.end(), {"--cert-ttl", options_.cert_ttl});
  WEFT_ASSIGN_OR_RETURN(control_,
                        topology_->Start("weft-control", std::move(argv), Netns(kControl)));
  std::string why;
  const bool up = WaitFor(std::chrono::seconds(20), [&] {
    auto ready = ipc::HttpRequest(ControlSocket(), "GET", "/healthz/ready");
    why = ready.ok() ? ready->body : std::string(ready.status().message());
    return ready.ok() && ready->status == 200;
  });
  if (!up) {
    return absl::DeadlineExceededError(absl::StrCat("weft-control did not come up: ", why, "; see ",
                                                    topology_->LogFile("weft-control")));
  }
  return absl::OkStatus();
}

absl::Status Mesh::WriteWorkloads(const std::string& node) {
  const std::string dir = options_.dir + "/workloads-" + node;
  std::error_code error;
  fs::create_directories(dir, error);
  for (const Pod& pod : DemoPods()) {
    if (pod.node != node || !pod.enrolled) continue;
    const std::string resolvers =
        options_.resolver.empty() ? "" : "resolvers: [" + Address(options_.resolver) + "]\n";
    WEFT_RETURN_IF_ERROR(WriteFile(
        dir + "/" + pod.name + ".yaml",
        absl::StrCat("name: ", pod.name, "\nnamespace: demo\nserviceAccount: ", pod.account,
                     "\nnetns: ", Topology::NetnsPath(Netns(pod.name)), "\naddresses: [",
                     Address(pod.address), "]\n", resolvers, "annotations:\n  weft.dev/splice: \"",
                     options_.splice ? "on" : "off", "\"\n")));
  }
  return absl::OkStatus();
}

absl::Status Mesh::StartAgent(const std::string& node) {
  const std::string name = topology_->Name(node);
  const std::string state = options_.dir + "/control";
  WEFT_ASSIGN_OR_RETURN(agents_[node], topology_->Start("agent-" + node,
                                                        {options_.bin_dir + "/weft-agent",
                                                         "--node",
                                                         node,
                                                         "--run-dir",
                                                         RunDir(node),
                                                         "--bpffs",
                                                         bpffs_,
                                                         "--cgroup2",
                                                         FindCgroup2(),
                                                         "--control",
                                                         ControlTarget(),
                                                         "--control-root",
                                                         state + "/root.pem",
                                                         "--join-token",
                                                         TokenFile(node),
                                                         options_.agent_exit,
                                                         "--workloads",
                                                         options_.dir + "/workloads-" + node,
                                                         "--bin-dir",
                                                         options_.bin_dir},
                                                        Netns(node)));
  return absl::OkStatus();
}

absl::Status Mesh::StartAgents() {
  for (const std::string& node : kDemoNodes) {
    WEFT_RETURN_IF_ERROR(topology_->WillRemove(RunDir(node)));
    WEFT_RETURN_IF_ERROR(
        topology_->WillRemoveCgroup(FindCgroup2() + "/weft/" + topology_->Name(node)));
    WEFT_RETURN_IF_ERROR(WriteWorkloads(node));
    WEFT_RETURN_IF_ERROR(StartAgent(node));
  }
  return absl::OkStatus();
}

ProcessId Mesh::agent(const std::string& node) const {
  auto found = agents_.find(node);
  return found == agents_.end() ? ProcessId{} : found->second;
}

absl::StatusOr<std::string> Mesh::AskAgent(const std::string& node,
                                           const std::string& target) const {
  WEFT_ASSIGN_OR_RETURN(ipc::LocalResponse response,
                        ipc::HttpRequest(AgentSocket(node), "GET", target));
  if (response.status != 200) {
    return absl::UnavailableError(
        absl::StrCat("agent of ", node, ": ", target, ": ", response.status, " ", response.body));
  }
  return response.body;
}

absl::Status Mesh::WaitReady(std::chrono::seconds limit) {
  for (const std::string& node : kDemoNodes) {
    std::string why;
    const bool ready = WaitFor(limit, [&] {
      auto answer = AskAgent(node, "/healthz");
      if (!answer.ok()) why = std::string(answer.status().message());
      const bool ended = ProcessStartTime(agent(node).pid) != agent(node).start_time;
      if (ended) why = "weft-agent ended";
      return answer.ok() || ended;
    });
    if (!ready || ProcessStartTime(agent(node).pid) != agent(node).start_time) {
      return absl::DeadlineExceededError(absl::StrCat(node, " is not ready: ", why, "; see ",
                                                      topology_->LogFile("agent-" + node)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RunResult> Mesh::In(const std::string& pod, std::vector<std::string> argv,
                                   std::chrono::milliseconds timeout) const {
  RunOptions options;
  options.netns = Netns(pod);
  options.timeout = timeout;
  return Run(std::move(argv), std::move(options));
}

}  // namespace weft::cli
