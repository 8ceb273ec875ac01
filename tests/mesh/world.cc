// SPDX-License-Identifier: Apache-2.0
#include "tests/mesh/world.h"

#include <stdlib.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace weft::mesh_test {
namespace {

// Ends the world after the last suite, whatever happened in them.
class Environment final : public testing::Environment {
 public:
  void TearDown() override { MeshTest::TearDownWorld(); }
};

const testing::Environment* const g_environment =
    testing::AddGlobalTestEnvironment(new Environment);

absl::Status BuildWorld(cli::Mesh& mesh, std::unique_ptr<cli::Capture>* capture) {
  WEFT_RETURN_IF_ERROR(mesh.BuildNetwork());
  WEFT_ASSIGN_OR_RETURN(
      *capture, cli::Capture::Start(mesh.Netns("node-a"), cli::Mesh::kFabricDevice, kCanary));
  WEFT_RETURN_IF_ERROR(mesh.StartApps());
  WEFT_RETURN_IF_ERROR(mesh.StartControl());
  WEFT_RETURN_IF_ERROR(mesh.StartAgents());
  return mesh.WaitReady(std::chrono::seconds(60));
}

}  // namespace

std::unique_ptr<cli::Mesh> MeshTest::mesh_;
std::unique_ptr<cli::Capture> MeshTest::capture_;
std::unique_ptr<cli::Story> MeshTest::story_;
std::string MeshTest::failure_;

bool SpliceIsOn() {
  const char* value = getenv("WEFT_MESH_SPLICE");
  return value == nullptr || std::string(value) != "off";
}

void MeshTest::SetUpTestSuite() {
  if (mesh_ || !failure_.empty()) return;
  if (geteuid() != 0) {
    failure_ = "mesh tests need root";
    return;
  }
  // What a crashed run left is in the way of this one.
  if (auto old = cli::Topology::Open(kPrefix, kDir); old.ok()) {
    EXPECT_TRUE((*old)->Down().ok());
  }
  cli::MeshOptions options = WorldOptions();
  options.prefix = kPrefix;
  options.dir = kDir;
  options.bin_dir = WEFT_BIN_DIR;
  options.manifests = WEFT_MANIFESTS;
  auto mesh = cli::Mesh::Create(options);
  if (!mesh.ok()) {
    failure_ = std::string(mesh.status().message());
    return;
  }
  mesh_ = std::move(*mesh);
  const absl::Status built = BuildWorld(*mesh_, &capture_);
  if (!built.ok()) {
    failure_ = std::string(built.message());
    return;
  }
  story_ = std::make_unique<cli::Story>(*mesh_, *capture_, kCanary, /*quiet=*/true);
}

void MeshTest::SetUp() {
  if (!failure_.empty()) FAIL() << "no world: " << failure_;
}

void MeshTest::TearDownWorld() {
  story_.reset();
  capture_.reset();
  if (!mesh_) return;
  if (testing::UnitTest::GetInstance()->Failed()) {
    const cli::RunOptions options;
    for (const char* name : {"agent-node-a", "agent-node-b", "weft-control"}) {
      auto tail = cli::Run({"tail", "-n", "40", mesh_->topology().LogFile(name)}, options);
      if (tail.ok()) printf("--- %s\n%s\n", name, tail->out.c_str());
    }
  }
  const absl::Status down = mesh_->topology().Down();
  EXPECT_TRUE(down.ok()) << down;
  for (const std::string& left : cli::Topology::Leftovers(kPrefix, kDir)) {
    ADD_FAILURE() << "left behind: " << left;
  }
  mesh_.reset();
}

std::unique_ptr<cli::Capture> MeshTest::CaptureFabric() {
  auto capture = cli::Capture::Start(mesh_->Netns("node-a"), cli::Mesh::kFabricDevice, kCanary);
  EXPECT_TRUE(capture.ok()) << capture.status();
  return capture.ok() ? std::move(*capture) : nullptr;
}

pid_t MeshTest::PidOf(const std::string& node, const std::string& program) {
  auto status = story().Agent(node, "/status");
  if (!status.ok()) return 0;
  for (const auto& process : (*status)["processes"]) {
    if (process.value("name", "") == program) return process.value("pid", 0);
  }
  return 0;
}

uint64_t MeshTest::SpliceCount(const std::string& name) {
  auto status = story().Agent("node-a", "/status");
  EXPECT_TRUE(status.ok()) << status.status();
  if (!status.ok()) return 0;
  const nlohmann::json& splice = (*status)["splice"];
  const nlohmann::json& counts = splice.contains(name) ? splice : splice["by_tcp"];
  EXPECT_TRUE(counts.contains(name)) << name;
  return counts.value(name, uint64_t{0});
}

absl::StatusOr<cli::ProcessId> MeshTest::StartRedisTraffic(int connections) {
  return mesh().topology().Start("redis-traffic",
                                 {"redis-benchmark", "-h", "10.244.1.20", "-c",
                                  absl::StrCat(connections), "-t", "set,get", "-q", "-l"},
                                 mesh().Netns("client"));
}

int MeshTest::Answered200(const std::string& pod, const std::string& url, int n) {
  auto answers = story().Fetch({.pod = pod, .url = absl::StrCat(url, "[1-", n, "]")});
  return answers.ok() ? cli::CountByStatus(*answers)[200] : 0;
}

std::string MeshTest::Redis(const std::string& pod, std::vector<std::string> arguments,
                            const std::string& input) {
  arguments.insert(arguments.begin(), "redis-cli");
  cli::RunOptions options;
  options.netns = mesh().Netns(pod);
  options.input = input;
  auto result = cli::Run(std::move(arguments), options);
  return result.ok() ? result->out + result->err : std::string(result.status().message());
}

}  // namespace weft::mesh_test
