// SPDX-License-Identifier: Apache-2.0
// The demo's world (deploy/demo/README.md) on top of Topology: two nodes, the fabric between them,
// weft-control, the pods with their real programs, and an agent per node. `weft demo` and
// tests/mesh build the same one under different prefixes. Thread: one.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/cli/process.h"
#include "control/cli/topology.h"
#include "proxy/base/status.h"

namespace weft::cli {

struct Pod {
  std::string name, node, address, account;
  enum class App { kNone, kNginx, kRedis } app = App::kNone;
  bool enrolled = true;
};
// The pods of deploy/demo/README.md, and two outside the mesh on node-a (bare-client, bare-redis)
// for comparison.
const std::vector<Pod>& DemoPods();
inline const std::vector<std::string> kDemoNodes = {"node-a", "node-b"};

struct MeshOptions {
  std::string prefix = "weft-demo-";
  std::string dir = "/run/weft-demo";
  std::string bin_dir;    // weft-agent and its siblings
  std::string manifests;  // copied to DIR/manifests
  bool splice = true;     // weft.dev/splice of every workload
  bool ipv6 = false;      // every address is Mesh::Address of the IPv4 one
  std::string resolver;   // of every workload, whose DNS then goes to the mesh; empty: left alone
  std::string cert_ttl;   // weft-control's --cert-ttl; empty: its default
  // What SIGTERM makes of an agent's node.
  std::string agent_exit = "--unload-on-exit";
};

class Mesh final {
 public:
  static absl::StatusOr<std::unique_ptr<Mesh>> Create(MeshOptions options);

  // In this order. Each waits until what it started answers.
  absl::Status BuildNetwork();
  absl::Status StartApps();
  absl::Status StartControl();  // again after StopControl: with the same authority and tokens
  absl::Status StartAgents();
  absl::Status WaitReady(std::chrono::seconds limit);

  Topology& topology() { return *topology_; }
  const MeshOptions& options() const { return options_; }
  std::string ManifestDir() const { return options_.dir + "/manifests"; }
  // Namespace of a pod, a node or "control".
  std::string Netns(const std::string& name) const { return topology_->Name(name); }
  std::string AgentSocket(const std::string& node) const;
  std::string RunDir(const std::string& node) const;
  std::string TokenFile(const std::string& node) const { return options_.dir + "/token-" + node; }
  // weft-control's status interface.
  std::string ControlSocket() const { return options_.dir + "/control/status.sock"; }
  std::string AppDir(const std::string& pod) const { return options_.dir + "/apps/" + pod; }
  std::string AccessLog(const std::string& pod) const { return AppDir(pod) + "/access.log"; }
  // web pods answer 503 while this file exists.
  std::string FailFile(const std::string& pod) const { return AppDir(pod) + "/fail"; }
  // Where the two nodes meet: node-a's device on the fabric.
  static constexpr const char* kFabricDevice = "fabric0";

  // Runs a program in a pod's namespace.
  absl::StatusOr<RunResult> In(const std::string& pod, std::vector<std::string> argv,
                               std::chrono::milliseconds timeout = std::chrono::seconds(20)) const;
  // GET on the node's agent; the body of a 200.
  absl::StatusOr<std::string> AskAgent(const std::string& node, const std::string& target) const;

  absl::Status StartAgent(const std::string& node);
  void StopControl() { topology_->Stop(control_); }
  // The address that takes the place of a demo IPv4 address in this mesh's family: itself, or
  // 10.244.1.10 as fd00:10:244:1::10 (10.96.0.10 as fd00:10:96:0::10).
  std::string Address(const std::string& v4) const;
  // As in a URL or before ":PORT": IPv6 in brackets.
  std::string UrlAddress(const std::string& v4) const;
  std::string ControlTarget() const;  // weft-control's ADDRESS:PORT
  ProcessId agent(const std::string& node) const;
  // For agents that are started from now on.
  void set_agent_exit(std::string flag) { options_.agent_exit = std::move(flag); }

 private:
  explicit Mesh(MeshOptions options) : options_(std::move(options)) {}
  absl::Status CopyManifests();
  absl::Status WriteTokens(const std::string& file);
  absl::Status WriteWorkloads(const std::string& node);
  absl::Status StartNginx(const Pod& pod);
  absl::Status StartRedis(const Pod& pod);

  MeshOptions options_;
  std::unique_ptr<Topology> topology_;
  std::map<std::string, ProcessId> agents_;
  ProcessId control_;
  std::string bpffs_;
};

}  // namespace weft::cli
