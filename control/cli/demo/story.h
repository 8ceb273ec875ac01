// SPDX-License-Identifier: Apache-2.0
// What the steps of `weft demo` share: telling as they go, figures, and requests from inside pods.
// Thread: the only one (the capture has its own).
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "control/cli/capture.h"
#include "control/cli/mesh.h"
#include "proxy/base/status.h"

namespace weft::cli {

// One answer as curl saw it.
struct HttpAnswer {
  int status = 0;      // 0: no answer
  std::string pod;     // x-pod: which replica
  std::string reason;  // x-weft-reason
  std::string policy;  // x-weft-policy
};

class Story final {
 public:
  Story(Mesh& mesh, Capture& capture, std::string canary, bool quiet)
      : mesh_(mesh), capture_(capture), canary_(std::move(canary)), quiet_(quiet) {}

  Mesh& mesh() { return mesh_; }
  Capture& capture() { return capture_; }
  // 32 bytes that must never cross the fabric in the clear.
  const std::string& canary() const { return canary_; }

  // A line of the story; `text` is a sentence with its figures.
  void Say(const std::string& text);
  // For --json.
  void Figure(const std::string& name, nlohmann::json value) { figures_[name] = std::move(value); }
  nlohmann::json TakeFigures();

  struct Get {
    std::string pod = "client";
    std::string url;  // curl's globs: http://10.96.0.10/x[1-200]
    std::vector<std::string> headers;
    int parallel = 1;
    std::chrono::seconds timeout{60};
  };
  // One entry an answer, in the order of completion.
  absl::StatusOr<std::vector<HttpAnswer>> Fetch(const Get& get);
  // GET on a node's agent, or on its proxy's admin interface, as JSON.
  absl::StatusOr<nlohmann::json> Agent(const std::string& node, const std::string& target);
  absl::StatusOr<nlohmann::json> Proxy(const std::string& node, const std::string& target);
  absl::StatusOr<nlohmann::json> Control(const std::string& target);
  // The node's events, oldest first.
  absl::StatusOr<std::vector<nlohmann::json>> Events(const std::string& node);
  // Lines of a web pod's access log.
  std::vector<std::string> AccessLines(const std::string& pod);
  // The part of step 1 that later steps repeat: nothing but TLS between the nodes, no canary. Says
  // what was seen.
  absl::Status CheckWire();

 private:
  Mesh& mesh_;
  Capture& capture_;
  const std::string canary_;
  const bool quiet_;
  nlohmann::json figures_ = nlohmann::json::object();
};

std::map<std::string, int> CountByPod(const std::vector<HttpAnswer>& answers);
std::map<int, int> CountByStatus(const std::vector<HttpAnswer>& answers);
// "web-1 33, web-2 34"
std::string CountText(const std::map<std::string, int>& counts);
// FailedPrecondition with the text: a step does not hold.
absl::Status DoesNotHold(const std::string& text);

struct Step {
  const char* title;
  absl::Status (*run)(Story& story);
};
// One function a file: step_*.cc.
absl::Status StepWire(Story& story);
absl::Status StepIdentities(Story& story);
absl::Status StepRoutes(Story& story);
absl::Status StepFailingReplica(Story& story);
absl::Status StepBreaker(Story& story);
absl::Status StepRedis(Story& story);
absl::Status StepPolicy(Story& story);
absl::Status StepLatency(Story& story);
absl::Status StepConfiguration(Story& story);

}  // namespace weft::cli
