// SPDX-License-Identifier: Apache-2.0
// `weft demo`: builds the world, tells the story, cleans up and checks that nothing is left.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "control/cli/command.h"
#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

volatile sig_atomic_t g_interrupted = 0;

const Step kSteps[] = {
    {"client to service by its VIP, TLS only on the wire", StepWire},
    {"identities, from both ends", StepIdentities},
    {"a header route and a 90/10 split", StepRoutes},
    {"the failing replica: retries, ejection, return", StepFailingReplica},
    {"the circuit breaker under load", StepBreaker},
    {"redis over the mesh, data checked", StepRedis},
    {"policy: who is denied, and how one learns why", StepPolicy},
    {"same-node latency: without the mesh, and spliced with it", StepLatency},
    {"configuration: a change, and a mistake", StepConfiguration},
};

// The 32 bytes that are looked for on the wire.
std::string MakeCanary() {
  std::random_device random;
  return absl::StrFormat("weft-canary-%08x%08x-xyz", random(), random());
}

std::string FindManifests(const Options& options) {
  if (!options.manifests.empty()) return options.manifests;
  // build/PRESET/bin/weft -> deploy/demo/manifests
  fs::path at = OwnDirectory();
  std::error_code error;
  for (int up = 0; up < 5; ++up, at = at.parent_path()) {
    if (fs::is_directory(at / "deploy/demo/manifests", error)) return at / "deploy/demo/manifests";
  }
  return "/usr/share/weft/demo/manifests";
}

absl::Status CheckPrograms() {
  std::string missing;
  for (const char* program :
       {"ip", "nginx", "redis-server", "redis-cli", "redis-benchmark", "curl", "bash"}) {
    auto found = Run({"sh", "-c", std::string("command -v ") + program});
    if (!found.ok() || !found->ok())
      absl::StrAppend(&missing, missing.empty() ? "" : ", ", program);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the demo runs real programs; missing: " + missing +
      " (apt-get install iproute2 nginx-light redis-server redis-tools curl)");
}

MeshOptions MakeMeshOptions(const Options& options) {
  MeshOptions out;
  out.bin_dir = options.bin_dir.empty() ? OwnDirectory() : options.bin_dir;
  out.manifests = FindManifests(options);
  return out;
}

// Removes everything; true if nothing is left. Says so.
bool CleanUp(const MeshOptions& options, bool quiet, json* report) {
  const Colors& c = TerminalColors();
  absl::Status status;
  auto topology = Topology::Open(options.prefix, options.dir);
  if (topology.ok()) status = (*topology)->Down();
  const std::vector<std::string> left = Topology::Leftovers(options.prefix, options.dir);
  (*report)["clean"] = left.empty() && status.ok();
  (*report)["left"] = left;
  if (left.empty() && status.ok()) {
    if (!quiet) {
      printf(
          "%sNothing is left behind%s: no namespace, link, map, pin, process, mount or cgroup.\n",
          c.green.data(), c.reset.data());
    }
    return true;
  }
  fprintf(stderr, "weft demo: clean-up: %s\n", std::string(status.message()).c_str());
  for (const std::string& item : left) fprintf(stderr, "  left: %s\n", item.c_str());
  return false;
}

absl::Status Build(Mesh& mesh, std::unique_ptr<Capture>* capture, const std::string& canary,
                   bool quiet) {
  const auto start = Clock::now();
  WEFT_RETURN_IF_ERROR(mesh.BuildNetwork());
  // Before anything speaks, so that every stream is seen from its first byte.
  WEFT_ASSIGN_OR_RETURN(*capture,
                        Capture::Start(mesh.Netns("node-a"), Mesh::kFabricDevice, canary));
  WEFT_RETURN_IF_ERROR(mesh.StartApps());
  WEFT_RETURN_IF_ERROR(mesh.StartControl());
  WEFT_RETURN_IF_ERROR(mesh.StartAgents());
  WEFT_RETURN_IF_ERROR(mesh.WaitReady(std::chrono::seconds(60)));
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (!quiet) {
    printf("Two nodes, weft-control, %zu pods with real programs: up in %.1f s\n\n",
           DemoPods().size(), seconds);
  }
  return absl::OkStatus();
}

// Runs one step; its outcome goes into the report.
bool RunStep(Story& story, size_t number, const Step& step, bool quiet, json* report) {
  const Colors& c = TerminalColors();
  if (!quiet) printf("%s%zu. %s%s\n", c.bold.data(), number, step.title, c.reset.data());
  const auto start = Clock::now();
  const absl::Status status = step.run(story);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  json entry = {{"step", number},
                {"title", step.title},
                {"ok", status.ok()},
                {"seconds", seconds},
                {"figures", story.TakeFigures()}};
  if (!status.ok()) entry["error"] = std::string(status.message());
  (*report)["steps"].push_back(std::move(entry));
  if (!quiet) {
    printf("   %s%s%s %.1f s\n\n", status.ok() ? c.green.data() : c.red.data(),
           status.ok() ? "holds" : "DOES NOT HOLD:", c.reset.data(), seconds);
  }
  if (!status.ok()) {
    fprintf(stderr, "weft demo: step %zu: %s\n", number, std::string(status.message()).c_str());
  }
  return status.ok();
}

void PrintWhatToTry(const MeshOptions& o) {
  printf(
      "It is still there. Try:\n"
      "  weft status\n"
      "  weft events --node %snode-a --follow\n"
      "  ip netns exec %sclient curl -i http://10.96.0.10/\n"
      "  ip netns exec %sclient curl -i -H 'x-version: canary' http://10.96.0.10/\n"
      "  ip netns exec %sintruder redis-cli -h 10.244.1.20 ping      # denied by policy\n"
      "  touch %s/apps/web-3/fail                                    # web-3 answers 503\n"
      "  $EDITOR %s/manifests/30-routes.yaml                         # takes effect when saved\n"
      "  tcpdump -ni %s -A port 15008   (in: nsenter --net=/run/netns/%snode-a)\n"
      "Logs are in %s/logs. When done: weft demo --down\n",
      o.prefix.c_str(), o.prefix.c_str(), o.prefix.c_str(), o.prefix.c_str(), o.dir.c_str(),
      o.dir.c_str(), Mesh::kFabricDevice, o.prefix.c_str(), o.dir.c_str());
}

// Builds and tells; true if every step holds.
bool Tell(const MeshOptions& mesh_options, bool quiet, json* report) {
  (*report)["steps"] = json::array();
  auto mesh = Mesh::Create(mesh_options);
  if (!mesh.ok()) {
    fprintf(stderr, "weft demo: %s\n", std::string(mesh.status().message()).c_str());
    (*report)["error"] = std::string(mesh.status().message());
    return false;
  }
  const std::string canary = MakeCanary();
  std::unique_ptr<Capture> capture;
  const absl::Status built = Build(**mesh, &capture, canary, quiet);
  if (!built.ok()) {
    fprintf(stderr, "weft demo: %s\n", std::string(built.message()).c_str());
    (*report)["error"] = std::string(built.message());
    return false;
  }
  Story story(**mesh, *capture, canary, quiet);
  bool all = true;
  size_t number = 0;
  for (const Step& step : kSteps) {
    if (g_interrupted != 0) {
      fprintf(stderr, "weft demo: interrupted\n");
      return false;
    }
    all = RunStep(story, ++number, step, quiet, report) && all;
  }
  return all;
}

int Down(const Options& options) {
  json report;
  const bool clean = CleanUp(MakeMeshOptions(options), options.json, &report);
  if (options.json) printf("%s\n", report.dump(2).c_str());
  return clean ? kExitOk : kExitFailure;
}

}  // namespace

int RunDemo(const Options& options) {
  if (geteuid() != 0) {
    fprintf(stderr, "weft demo: needs root, for network namespaces and kernel programs\n");
    return kExitFailure;
  }
  if (options.down) return Down(options);
  const absl::Status programs = CheckPrograms();
  if (!programs.ok()) {
    fprintf(stderr, "weft demo: %s\n", std::string(programs.message()).c_str());
    return kExitFailure;
  }
  const MeshOptions mesh_options = MakeMeshOptions(options);
  if (Topology::Open(mesh_options.prefix, mesh_options.dir).ok()) {
    fprintf(stderr,
            "weft demo: a demo is there already (kept, running, or left by a crash): %s\n"
            "Remove it with: weft demo --down\n",
            mesh_options.dir.c_str());
    return kExitFailure;
  }
  struct sigaction interrupt{};
  interrupt.sa_handler = [](int) { g_interrupted = 1; };
  sigaction(SIGINT, &interrupt, nullptr);
  sigaction(SIGTERM, &interrupt, nullptr);
  json report;
  bool good = Tell(mesh_options, options.json, &report);
  if (options.keep && g_interrupted == 0) {
    if (!options.json) PrintWhatToTry(mesh_options);
  } else {
    good = CleanUp(mesh_options, options.json, &report) && good;
  }
  report["ok"] = good;
  if (options.json) printf("%s\n", report.dump(2).c_str());
  return good ? kExitOk : kExitFailure;
}

}  // namespace weft::cli
