// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/programs_bed.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace weft::bpf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{20};
constexpr std::chrono::milliseconds kLook{5};
const std::string kPostgres = "/usr/lib/postgresql/15/bin";
const std::string kSources = WEFT_TEST_PROGRAMS;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream all;
  all << file.rdbuf();
  return all.str();
}

template <typename Done>
bool Within(Clock::duration patience, Done done) {
  for (const auto end = Clock::now() + patience; Clock::now() < end;) {
    if (done()) return true;
    std::this_thread::sleep_for(kLook);
  }
  return done();
}

[[noreturn]] void Become(const UniqueFd* netns, const Command& command, uid_t uid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_DFL);
  setpgid(0, 0);
  if (netns != nullptr && setns(netns->get(), CLONE_NEWNET) != 0) _exit(126);
  if (uid != 0 && (setgid(getpwuid(uid)->pw_gid) != 0 || setuid(uid) != 0)) _exit(126);
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

const std::vector<size_t>& Workshop::Sizes() {
  static const std::vector<size_t> sizes{1, 100, 4096, 65536, 262144, 1048576};
  return sizes;
}

uid_t Workshop::UidOf(const std::string& program) {
  if (program != "postgres") return 0;
  const passwd* user = getpwnam("postgres");
  return user == nullptr ? 0 : user->pw_uid;
}

Workshop::Workshop() : dir_("/tmp/wkern-programs-" + std::to_string(getpid())) {
  signal(SIGPIPE, SIG_IGN);  // a client that ended is an answer
  setenv("LC_ALL", "C", 1);
  setenv("PGGSSENCMODE", "disable", 1);
  setenv("PGSSLMODE", "disable", 1);
  std::filesystem::create_directories(dir_ + "/files");
  std::filesystem::permissions(dir_, std::filesystem::perms{0755});
  Find();
  if (!failure_.empty()) return;
  MakePayloads();
  Build({paths_["go"], "build", "-o", dir_ + "/peer-go", "."}, kSources + "/go");
  Build({paths_["javac"], "-d", dir_, kSources + "/Peer.java"}, dir_);
  MakeDatabase();
  Configure();
}

Workshop::~Workshop() { std::filesystem::remove_all(dir_); }

std::string Workshop::Need(const std::string& program) {
  for (const char* where : {"/usr/bin", "/usr/sbin", "/usr/local/go/bin", "/usr/local/bin"}) {
    const std::string path = std::string(where) + "/" + program;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  failure_ += program + " is not installed (make setup; cmake/deps/apt.txt). ";
  return "";
}

void Workshop::Find() {
  for (const char* program : {"nginx", "redis-server", "redis-cli", "haproxy", "node", "python3",
                              "php", "java", "javac", "go", "sha256sum"}) {
    paths_[program] = Need(program);
  }
  for (const char* program : {"initdb", "postgres", "psql"}) {
    paths_[program] = kPostgres + "/" + program;
    if (access(paths_[program].c_str(), X_OK) != 0) {
      failure_ += paths_[program] + " is not installed (make setup; cmake/deps/apt.txt). ";
    }
  }
}

// Letters and digits, so that every program takes them as they are.
void Workshop::MakePayloads() {
  std::mt19937 random(20261123);
  for (const size_t size : Sizes()) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) {
      byte = "0123456789abcdefghijklmnopqrstuvwxyz"[random() % 36];
    }
    const std::string path = dir_ + "/files/" + std::to_string(size);
    std::ofstream(path) << bytes;
    const std::string out = dir_ + "/sum";
    Build({"/bin/sh", "-c", paths_["sha256sum"] + " <" + path + " >" + out}, dir_);
    payloads_[size] = {bytes, ReadAll(out).substr(0, 64)};
  }
}

void Workshop::Build(const Command& command, const std::string& in) {
  Command all{"/usr/bin/env", "-C", in};
  all.insert(all.end(), command.begin(), command.end());
  const std::string log = Log("build");
  Program builder(nullptr, all, log, Program::Stdio::kNone, 0);
  if (builder.Wait() != 0) failure_ += command[0] + ": " + ReadAll(log);
}

void Workshop::MakeDatabase() {
  const uid_t uid = UidOf("postgres");
  const std::string data = dir_ + "/data";
  std::filesystem::create_directory(data);
  if (uid == 0 || chown(data.c_str(), uid, getpwuid(uid)->pw_gid) != 0) {
    failure_ += "no user postgres. ";
    return;
  }
  const Command make{paths_["initdb"], "-N", "-A", "trust", "-U", "postgres", "-D", data};
  Program init(nullptr, make, Log("initdb"), Program::Stdio::kNone, uid);
  if (init.Wait() != 0) failure_ += "initdb: " + ReadAll(Log("initdb"));
  std::ofstream(data + "/pg_hba.conf", std::ios::app) << "host all all 10.77.0.0/24 trust\n";
}

void Workshop::Configure() {
  const std::string port = std::to_string(kProgramPort), server = kServerIp + (":" + port);
  const std::string nginx_head =
      "daemon off; worker_processes 1; user root; error_log stderr;\n"
      "events { worker_connections 256; }\nhttp { access_log off; "
      "sendfile on; client_max_body_size 8m;\n";
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
    return dir_ + "/" + name;
  };
  const std::string files =
      write("nginx.conf", "pid " + dir_ + "/nginx.pid; " + nginx_head + "server { listen " + port +
                              "; root " + dir_ + "/files; } }\n");
  const std::string passes =
      write("nginx-proxy.conf",
            "pid " + dir_ + "/nginx-proxy.pid; " + nginx_head + "upstream next { server " + server +
                "; keepalive 8; }\nserver { listen " + port +
                "; location / { proxy_pass http://next; proxy_http_version 1.1;\n"
                "proxy_set_header Connection \"\"; } } }\n");
  const auto haproxy = [&](const std::string& name, const std::string& options) {
    return write(name,
                 "global\n maxconn 256\ndefaults\n timeout connect 5s\n timeout client 1m\n"
                 " timeout server 1m\n" +
                     options + "listen all\n bind 0.0.0.0:" + port + "\n server next " + server +
                     "\n");
  };
  const std::string& node = paths_["node"];
  const std::string& python = paths_["python3"];
  const std::string& java = paths_["java"];
  const std::string js = kSources + "/peer.js", py = kSources + "/peer.py";
  const std::string php = kSources + "/peer.php", go = dir_ + "/peer-go";
  clients_ = {{"go", {go, "client"}},
              {"node", {node, js, "client"}},
              {"python", {python, py, "client"}},
              {"asyncio", {python, py, "asyncio-client"}},
              {"php", {paths_["php"], php, "client"}},
              {"java", {java, "-cp", dir_, "Peer", "client"}},
              {"nio", {java, "-cp", dir_, "Peer", "nio-client"}}};
  servers_ = {{"go", {go, "server", port}},
              {"node", {node, js, "server", port}},
              {"python", {python, py, "server", port}},
              {"asyncio", {python, py, "asyncio-server", port}},
              {"php", {paths_["php"], php, "server", port}},
              {"java", {java, "-cp", dir_, "Peer", "server", port}},
              {"nio", {java, "-cp", dir_, "Peer", "nio-server", port}},
              {"nginx", {paths_["nginx"], "-c", files}},
              {"redis-server",
               {paths_["redis-server"], "--port", port, "--save", "", "--appendonly", "no",
                "--protected-mode", "no", "--dir", dir_}},
              {"postgres",
               {paths_["postgres"], "-D", dir_ + "/data", "-p", port, "-h", "0.0.0.0", "-k", "",
                "-c", "fsync=off", "-c", "autovacuum=off"}}};
  forwarders_ = {
      {"go-copy", {go, "forward", port, kServerIp, port}},
      {"nginx", {paths_["nginx"], "-c", passes}},
      {"haproxy", {paths_["haproxy"], "-db", "-f", haproxy("haproxy.cfg", " mode http\n")}},
      {"haproxy-splice",
       {paths_["haproxy"], "-db", "-f",
        haproxy("haproxy-splice.cfg",
                " mode tcp\n option splice-auto\n option splice-request\n option "
                "splice-response\n")}}};
}

Command Workshop::Client(const std::string& program, const std::string& to,
                         const std::string& how) const {
  const std::string port = std::to_string(kProgramPort);
  if (program == "psql") {
    return {paths_.at("psql"), "-XAtq", "-h", to, "-p", port, "-U", "postgres"};
  }
  if (program == "redis-cli") return {paths_.at("redis-cli"), "-h", to, "-p", port};
  Command command = clients_.at(program);
  for (const std::string& argument : {to, port, how, dir_ + "/files"}) command.push_back(argument);
  return command;
}

Program::Program(const UniqueFd* netns, const Command& command, const std::string& log, Stdio stdio,
                 uid_t uid) {
  int to[2] = {-1, -1}, from[2] = {-1, -1};
  if (stdio == Stdio::kPipes && (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)) return;
  const UniqueFd child_in(stdio == Stdio::kPipes ? to[0] : open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueFd err(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  const UniqueFd child_out(from[1]);
  in_ = UniqueFd(to[1]);
  out_ = UniqueFd(from[0]);
  pid_ = fork();
  if (pid_ != 0) return;
  dup2(child_in.get(), 0);
  dup2(child_out.ok() ? child_out.get() : err.get(), 1);
  dup2(err.get(), 2);
  Become(netns, command, uid);
}

Program::~Program() {
  if (!Running()) return;
  in_ = UniqueFd();
  kill(pid_, SIGTERM);
  if (!Within(std::chrono::seconds(5), [&] { return !Running(); })) kill(-pid_, SIGKILL);
  Wait();
}

bool Program::Running() {
  int status = 0;
  if (pid_ > 0 && !status_ && waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return pid_ > 0 && !status_;
}

int Program::Wait() {
  int status = -1;
  if (pid_ > 0 && !status_ && waitpid(pid_, &status, 0) == pid_) status_ = status;
  return status_.value_or(-1);
}

bool Program::Listens(uint16_t port) {
  char pattern[32];
  snprintf(pattern, sizeof pattern, ":%04X ", port);
  const auto listed = [&](const std::string& table) {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/net/" + table);
    for (std::string line; std::getline(file, line);) {
      if (line.find(pattern) < line.find(" 0A ") && line.find(" 0A ") != std::string::npos) {
        return true;
      }
    }
    return false;
  };
  bool listens = false;
  Within(std::chrono::seconds(30), [&] {
    listens = listed("tcp") || listed("tcp6");
    return listens || !Running();
  });
  return listens;
}

std::pair<uint64_t, uint64_t> Program::Binary() const {
  struct stat info{};
  if (stat(("/proc/" + std::to_string(pid_) + "/exe").c_str(), &info) != 0) return {0, 0};
  return {info.st_dev, info.st_ino};
}

Asker::Asker(const Workshop& shop, std::string program, std::string to, Program& process,
             int events_fd, Serve serve)
    : shop_(shop),
      program_(std::move(program)),
      to_(std::move(to)),
      process_(process),
      events_fd_(events_fd),
      serve_(std::move(serve)) {}

bool Asker::Connect() {
  std::string line = "new\n";
  if (program_ == "psql") {
    line = first_ ? "\\echo new\n" : "\\c\n\\echo new\n";  // it has connected by itself
  } else if (program_ == "redis-cli") {
    const std::string again = "connect " + to_ + " " + std::to_string(kProgramPort) + "\n";
    line = (first_ ? "" : again) + "ECHO new\n";
  }
  first_ = false;
  return Tell(line) && Line() == "new";
}

std::string Asker::Ask(size_t size) {
  std::string line = "ask " + std::to_string(size) + "\n";
  if (program_ == "psql") line = "SELECT '" + shop_.Payload(size) + "';\n";
  if (program_ == "redis-cli") line = "ECHO " + shop_.Payload(size) + "\n";
  if (!Tell(line)) return "(does not read its commands)";
  return Line();
}

std::string Asker::Expected(size_t size) const {
  return Own() ? std::to_string(size) + " " + shop_.Hash(size) : shop_.Payload(size);
}

bool Asker::Tell(const std::string& line) {
  const auto end = Clock::now() + kPatience;
  fcntl(process_.in().get(), F_SETFL, O_NONBLOCK);
  for (size_t told = 0; told < line.size();) {
    const ssize_t n = write(process_.in().get(), line.data() + told, line.size() - told);
    if (n > 0) {
      told += static_cast<size_t>(n);
      continue;
    }
    if (Clock::now() > end || !process_.Running()) return false;
    pollfd fds[2] = {{process_.in().get(), POLLOUT, 0}, {events_fd_, POLLIN, 0}};
    poll(fds, 2, serve_());
  }
  return true;
}

std::string Asker::Line() {
  static char part[256 * 1024];
  const auto end = Clock::now() + kPatience;
  for (size_t looked = 0; Clock::now() < end;) {
    if (const size_t at = got_.find('\n', looked); at != std::string::npos) {
      std::string line = got_.substr(0, at);
      got_.erase(0, at + 1);
      return line;
    }
    looked = got_.size();
    pollfd fds[2] = {{process_.out().get(), POLLIN, 0}, {events_fd_, POLLIN, 0}};
    poll(fds, 2, serve_());
    if (fds[0].revents == 0) continue;
    const ssize_t n = read(process_.out().get(), part, sizeof part);
    if (n <= 0) return "(ended after: " + got_.substr(0, 200) + ")";
    got_.append(part, static_cast<size_t>(n));
  }
  return "(no answer within 20 s, " + std::to_string(got_.size()) + " bytes of one)";
}

}  // namespace weft::bpf
