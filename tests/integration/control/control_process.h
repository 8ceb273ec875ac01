// SPDX-License-Identifier: Apache-2.0
// A weft-control process of a test: its own folders, ports chosen by the kernel, ended with the
// test.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/ipc/local_http.h"

namespace weft::test {

inline std::string ReadFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Polls `condition` for at most 20 s.
inline bool WaitUntil(const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    const timespec pause{0, 5'000'000};
    nanosleep(&pause, nullptr);
  }
  return true;
}

class ControlProcess {
 public:
  // A copy of the demo's manifests in a new folder.
  ControlProcess() {
    std::string path = (std::filesystem::temp_directory_path() / "plane-it-XXXXXX").string();
    dir_ = mkdtemp(path.data());
    std::filesystem::copy(std::string(WEFT_SOURCE_DIR) + "/deploy/demo/manifests", manifests());
  }
  ~ControlProcess() {
    if (pid_ > 0) Stop(SIGKILL);
    std::filesystem::remove_all(dir_);
  }
  ControlProcess(const ControlProcess&) = delete;
  ControlProcess& operator=(const ControlProcess&) = delete;

  std::string manifests() const { return dir_ + "/manifests"; }
  std::string state() const { return dir_ + "/state"; }
  std::string tokens() const { return dir_ + "/tokens"; }
  const std::string& dir() const { return dir_; }
  std::string Log() const { return ReadFile(dir_ + "/log"); }

  void Write(const std::string& file, const std::string& text) {
    std::ofstream(manifests() + "/" + file) << text;
  }
  void Replace(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = ReadFile(manifests() + "/" + file);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    Write(file, text.replace(at, from.size(), to));
  }

  // Starts with the usual flags and waits until it is ready.
  void Start() {
    std::ofstream(tokens()) << "node-a 0123456789abcdef-a\nnode-b 0123456789abcdef-b\n";
    chmod(tokens().c_str(), 0600);
    Spawn({"--manifests", manifests(), "--state-dir", state(), "--listen", "127.0.0.1:0",
           "--plaintext", "127.0.0.1:0", "--status", "unix:" + dir_ + "/status.sock",
           "--join-tokens", tokens()});
    ASSERT_TRUE(WaitUntil([&] {
      const auto answer = ipc::HttpRequest(dir_ + "/status.sock", "GET", "/healthz/ready");
      return (answer.ok() && answer->status == 200) || waitpid(pid_, nullptr, WNOHANG) != 0;
    })) << Log();
    const nlohmann::json status = Status();
    tls_ = *SocketAddress::Parse(status.at("tlsAddress").get<std::string>());
    plaintext_ = *SocketAddress::Parse(status.at("plaintextAddress").get<std::string>());
  }

  void Spawn(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {std::string(WEFT_BIN_DIR) + "/weft-control"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& each : all) argv.push_back(each.data());
    argv.push_back(nullptr);
    const std::string log = dir_ + "/log";
    pid_ = fork();
    if (pid_ != 0) return;
    const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  // Runs to its end and returns the exit code; the output is in Log().
  int Run(const std::vector<std::string>& arguments) {
    Spawn(arguments);
    return Wait();
  }
  int Stop(int signal = SIGTERM) {
    kill(pid_, signal);
    return Wait();
  }
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  nlohmann::json Status() const {
    const auto answer = ipc::HttpRequest(dir_ + "/status.sock", "GET", "/status");
    if (!answer.ok()) return {};
    return nlohmann::json::parse(answer->body);
  }
  SocketAddress tls() const { return tls_; }
  SocketAddress plaintext() const { return plaintext_; }

 private:
  std::string dir_;
  pid_t pid_ = -1;
  SocketAddress tls_, plaintext_;
};

}  // namespace weft::test
