// SPDX-License-Identifier: Apache-2.0
// The world of the mesh tests: the demo's, under a prefix of its own, built once a process and
// taken down with a check that nothing is left. Thread: the test's.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "control/cli/capture.h"
#include "control/cli/demo/story.h"
#include "control/cli/mesh.h"

namespace weft::mesh_test {

inline constexpr const char* kPrefix = "weft-mt-";
inline constexpr const char* kDir = "/run/weft-mt";
inline constexpr const char* kCanary = "weft-canary-mesh-test-0123456789";

// WEFT_MESH_SPLICE=off turns the splice of every workload off.
bool SpliceIsOn();

// What the world of this program is like; each test program defines it. Prefix, directory, programs
// and manifests are filled in here.
cli::MeshOptions WorldOptions();

class MeshTest : public testing::Test {
 protected:
  static void SetUpTestSuite();
  void SetUp() override;

  cli::Mesh& mesh() { return *mesh_; }
  cli::Story& story() { return *story_; }
  // A capture of the fabric with the canary, from now on. Streams that are already open count as
  // unknown.
  static std::unique_ptr<cli::Capture> CaptureFabric();
  // An address of the demo in this world's family, for a URL and for other programs.
  std::string Url(const std::string& v4, const std::string& path = "/") {
    return "http://" + mesh_->UrlAddress(v4) + path;
  }
  std::string Ip(const std::string& v4) { return mesh_->Address(v4); }
  // The pid of a process that the node's agent supervises; 0: not running.
  pid_t PidOf(const std::string& node, const std::string& program);
  // How often curl gets 200 out of n requests to url.
  int Answered200(const std::string& pod, const std::string& url, int n);
  std::string Redis(const std::string& pod, std::vector<std::string> arguments,
                    const std::string& input = "");
  // One of node-a's counts of the splice, as /status names it ("messages", or one of "by_tcp").
  uint64_t SpliceCount(const std::string& name);
  // redis-benchmark without end between two pods of node-a, over `connections`.
  absl::StatusOr<cli::ProcessId> StartRedisTraffic(int connections);

 public:
  static void TearDownWorld();

 private:
  static std::unique_ptr<cli::Mesh> mesh_;
  static std::unique_ptr<cli::Capture> capture_;
  static std::unique_ptr<cli::Story> story_;
  static std::string failure_;
};

}  // namespace weft::mesh_test
