// SPDX-License-Identifier: Apache-2.0
// Programs for process_test: this test's own executable under other names, which do what they are
// told inside a pod (process_helper.cc), and a node with process policy compiled as the agent does.
#pragma once
#include <sys/types.h>

#include <filesystem>

#include "control/policy/compile.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {

// A child that runs `arguments` (the first is the path) in a pod.
class Child {
 public:
  Child(const Pod& pod, const std::vector<std::string>& arguments,
        const std::vector<int>& inherited = {});
  ~Child();  // killed and waited for, if it still runs
  pid_t pid() const { return pid_; }
  // Its exit code, or -SIGNAL.
  int Wait();

 private:
  pid_t pid_ = -1;
};

int RunIn(const Pod& pod, const std::vector<std::string>& arguments,
          const std::vector<int>& inherited = {});

class ProcessTest : public testing::Test {
 protected:
  ProcessTest();
  ~ProcessTest() override;
  void SetUp() override;

  // A copy of the helper; its path.
  std::string Program(const std::string& name);
  model::ProcessPolicy& Policy(const Pod& subject);
  // Denies connects to the server to all but these.
  model::ProcessPolicy::Rule& Only(const std::vector<std::string>& binaries);
  PolicyState Compiled() { return rules::Compile(snapshot_, subjects_, numbers_).state; }
  PolicyReport Apply();
  std::string RuleOf(uint32_t number) { return std::string(rule_numbers_.NameOf(number)); }
  // What the program gets when it connects to the server: an errno, or -SIGNAL.
  int Connects(const std::string& path, const std::vector<std::string>& more = {});
  // Also drains; the flow events of the past.
  struct Seen {
    std::vector<weft_event> flows;
    std::vector<weft_process_event> processes;
  };
  Seen Events();
  // Of the pod's process: waits for it.
  weft_process_event WaitProcess(uint32_t kind, pid_t pid);
  std::string PathOf(uint32_t binary);
  static std::string Uid(const Pod& pod) { return "pod" + std::to_string(pod.id); }

  std::filesystem::path folder_;
  Network network_;
  Pod& client_pod_ = network_.pod(0);
  Pod& server_pod_ = network_.pod(1);
  Pod& other_pod_ = network_.pod(2);
  Node node_{"process"};
  UniqueFd server_;
  model::Snapshot snapshot_;
  std::vector<rules::Subject> subjects_;
  rules::Numbers rule_numbers_;
  rules::CompilerNumbers numbers_{.rules = rule_numbers_};
  std::shared_ptr<model::ProcessPolicy> policy_;
};

constexpr uint16_t kServerPort = 8080;

}  // namespace weft::bpf
