// SPDX-License-Identifier: Apache-2.0
// Real programs in the pods of a testbed: what they need on disk, starting and stopping them, and
// asking a client for one request after another. programs/README.md has what the clients are told.
// Thread: the test's.
#pragma once
#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/bpf/pins.h"

namespace weft::bpf {

using Command = std::vector<std::string>;

inline constexpr const char* kServerIp = "10.77.0.2";  // pod 1
inline constexpr uint16_t kProgramPort = 8080;

// Payloads, configurations, built programs and a database, made once a process.
class Workshop final {
 public:
  Workshop();
  ~Workshop();
  // What is wrong with it, such as a program that is not installed; empty: nothing.
  const std::string& failure() const { return failure_; }

  // `how`: what the client speaks (post, get, redis); the programs of others ignore it.
  Command Client(const std::string& program, const std::string& to, const std::string& how) const;
  Command Server(const std::string& program) const { return servers_.at(program); }
  Command Forwarder(const std::string& program) const { return forwarders_.at(program); }
  std::string Payload(size_t size) const { return payloads_.at(size).bytes; }
  std::string Hash(size_t size) const { return payloads_.at(size).sha256; }
  std::string Log(const std::string& of) const { return dir_ + "/" + of + ".log"; }
  static const std::vector<size_t>& Sizes();
  // Whom a program must run as; PostgreSQL refuses root.
  static uid_t UidOf(const std::string& program);

 private:
  struct Known {
    std::string bytes, sha256;
  };
  void Find();
  void MakePayloads();
  void Configure();
  void Build(const Command& command, const std::string& in);
  void MakeDatabase();
  std::string Need(const std::string& program);

  std::string dir_, failure_;
  std::map<size_t, Known> payloads_;
  std::map<std::string, std::string> paths_;
  std::map<std::string, Command> clients_, servers_, forwarders_;
};

// A process in a netns, in a group of its own; ends with the test. Its standard error is a file.
class Program final {
 public:
  enum class Stdio { kNone, kPipes };
  Program(const UniqueFd* netns, const Command& command, const std::string& log, Stdio stdio,
          uid_t uid = 0);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  bool Running();
  // Waits until it ends by itself; its wait status.
  int Wait();
  // Waits until something in its netns listens on the port; false: it ended, or 30 s have passed.
  bool Listens(uint16_t port);
  // Device and inode of what it runs, as BinaryVerdict has them.
  std::pair<uint64_t, uint64_t> Binary() const;
  const UniqueFd& in() const { return in_; }
  const UniqueFd& out() const { return out_; }

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
  UniqueFd in_, out_;
};

// A client that is told what to do line by line.
class Asker final {
 public:
  // `serve` does what the agent would do meanwhile, and says after how many ms it wants to again.
  using Serve = std::function<int()>;
  Asker(const Workshop& shop, std::string program, std::string to, Program& process, int events_fd,
        Serve serve);
  // Closes the connection and makes another; false: it could not, or 20 s have passed.
  bool Connect();
  // One request of that size: "SIZE SHA256", or the reply itself of clients that print it.
  std::string Ask(size_t size);
  std::string Expected(size_t size) const;

 private:
  bool Own() const { return program_ != "psql" && program_ != "redis-cli"; }
  bool Tell(const std::string& line);
  std::string Line();

  const Workshop& shop_;
  std::string program_, to_;
  Program& process_;
  int events_fd_;
  Serve serve_;
  std::string got_;
  bool first_ = true;
};

}  // namespace weft::bpf
