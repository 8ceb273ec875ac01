// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/process_world.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

namespace weft::bpf {

Child::Child(const Pod& pod, const std::vector<std::string>& arguments,
             const std::vector<int>& inherited) {
  std::vector<char*> words;
  for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_ = fork();
  if (pid_ != 0) return;
  for (const int fd : inherited) fcntl(fd, F_SETFD, 0);
  if (setns(pod.netns.get(), CLONE_NEWNET) != 0) _exit(210);
  execv(words[0], words.data());
  _exit(211);
}

Child::~Child() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

int Child::Wait() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return 212;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int RunIn(const Pod& pod, const std::vector<std::string>& arguments,
          const std::vector<int>& inherited) {
  return Child(pod, arguments, inherited).Wait();
}

ProcessTest::ProcessTest()
    : folder_("/tmp/wprc-" + std::to_string(getpid())),
      policy_(std::make_shared<model::ProcessPolicy>()) {
  std::filesystem::create_directory(folder_);
}

ProcessTest::~ProcessTest() { std::filesystem::remove_all(folder_); }

void ProcessTest::SetUp() {
  for (int i = 0; i < 3; ++i) {
    Pod& pod = network_.pod(i);
    auto workload = std::make_shared<model::Workload>();
    workload->uid = Uid(pod);
    workload->namespace_name = "demo";
    workload->service_account = "sa" + std::to_string(pod.id);
    workload->trust_domain = "td";
    workload->addresses = {pod.v4, pod.v6};
    snapshot_.workloads[workload->uid] = workload;
    subjects_.push_back({pod.id, workload->uid, workload->Identity(), workload->addresses});
    node_.Enrol(pod, WEFT_WL_PROXY_READY);
  }
  server_ = Listener(server_pod_, kServerPort);
  policy_->namespace_name = "demo";
  policy_->name = "programs";
  Events();
}

std::string ProcessTest::Program(const std::string& name) {
  const std::filesystem::path path = folder_ / name;
  std::filesystem::create_directories(path.parent_path());
  std::filesystem::copy_file("/proc/self/exe", path,
                             std::filesystem::copy_options::overwrite_existing);
  return path;
}

model::ProcessPolicy& ProcessTest::Policy(const Pod& subject) {
  policy_->subjects = {Uid(subject)};
  snapshot_.process_policies[policy_->Key()] = policy_;
  return *policy_;
}

model::ProcessPolicy::Rule& ProcessTest::Only(const std::vector<std::string>& binaries) {
  Policy(client_pod_).rules = {{.name = "only",
                                .not_binaries = binaries,
                                .destinations = {Uid(server_pod_)},
                                .connects = true,
                                .action = model::ProcessPolicy::Action::kDeny}};
  Apply();
  return policy_->rules[0];
}

PolicyReport ProcessTest::Apply() {
  PolicyReport report = node_.kernel().ApplyPolicy(Compiled());
  EXPECT_TRUE(report.status.ok()) << report.status;
  return report;
}

int ProcessTest::Connects(const std::string& path, const std::vector<std::string>& more) {
  std::vector<std::string> words = {path, "--helper"};
  words.insert(words.end(), more.begin(), more.end());
  words.insert(words.end(), {"connect", server_pod_.v4.ToString(), std::to_string(kServerPort)});
  return RunIn(client_pod_, words);
}

ProcessTest::Seen ProcessTest::Events() {
  Seen seen;
  node_.kernel().Consume([&](const weft_event& event) { seen.flows.push_back(event); },
                         [&](const weft_process_event& event) { seen.processes.push_back(event); });
  return seen;
}

weft_process_event ProcessTest::WaitProcess(uint32_t kind, pid_t pid) {
  for (int i = 0; i < 100; ++i) {
    for (const weft_process_event& event : Events().processes) {
      if (event.kind == kind && event.pid == static_cast<uint32_t>(pid)) return event;
    }
    pollfd waiting{node_.kernel().events_fd(), POLLIN, 0};
    poll(&waiting, 1, 50);
  }
  ADD_FAILURE() << "no event of process " << pid;
  return {};
}

std::string ProcessTest::PathOf(uint32_t binary) {
  const std::optional<Binary> found = node_.kernel().BinaryOf(binary);
  return found ? found->path : "?";
}

}  // namespace weft::bpf
