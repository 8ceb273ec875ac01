// SPDX-License-Identifier: Apache-2.0
// fork, setns, exec. Between fork and exec only async-signal-safe calls: the caller may have
// threads.
#include "control/cli/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>

extern char** environ;

namespace weft::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMaxOutputBytes =
    8u << 20;  // a program that prints without end must not eat our memory

struct Fd {
  int value = -1;
  ~Fd() { Close(); }
  void Close() {
    if (value >= 0) close(value);
    value = -1;
  }
};

// What the child needs, prepared before fork.
struct Prepared {
  std::vector<char*> argv;
  std::vector<char*> envp;
  Fd netns;
  std::string directory;
  uint32_t uid = 0;
};

absl::Status Prepare(std::vector<std::string>& argv, std::vector<std::string>& environment,
                     const std::string& netns, Prepared* out) {
  for (std::string& a : argv) out->argv.push_back(a.data());
  out->argv.push_back(nullptr);
  for (char** e = environ; *e != nullptr; ++e) out->envp.push_back(*e);
  for (std::string& e : environment) out->envp.push_back(e.data());
  out->envp.push_back(nullptr);
  if (!netns.empty()) {
    const std::string path = "/run/netns/" + netns;
    out->netns.value = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (out->netns.value < 0) return ErrnoStatus(errno, "open " + path);
  }
  return absl::OkStatus();
}

[[noreturn]] void ChildFails(int report_fd) {
  const int error = errno;
  if (write(report_fd, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

// Runs in the child: standard descriptors `in`, `out`, `err`; errors go to `report_fd`
// (close-on-exec).
[[noreturn]] void ExecChild(const Prepared& p, std::array<int, 3> standard, int report_fd) {
  for (int i = 0; i < 3; ++i) {
    if (dup2(standard[i], i) < 0) ChildFails(report_fd);
  }
  if (setsid() < 0 && errno != EPERM) ChildFails(report_fd);
  if (p.netns.value >= 0 && setns(p.netns.value, CLONE_NEWNET) != 0) ChildFails(report_fd);
  if (!p.directory.empty() && chdir(p.directory.c_str()) != 0) ChildFails(report_fd);
  if (p.uid != 0 && (setgid(p.uid) != 0 || setuid(p.uid) != 0)) ChildFails(report_fd);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  execvpe(p.argv[0], p.argv.data(), p.envp.data());
  ChildFails(report_fd);
}

// 0 if the child reached exec, else its errno.
int WaitForExec(int report_fd) {
  int error = 0;
  const ssize_t n = read(report_fd, &error, sizeof error);
  return n == static_cast<ssize_t>(sizeof error) ? error : 0;
}

// Moves bytes until both outputs are closed or the time is up; false: time is up.
bool Collect(Fd* in, Fd* out, Fd* err, const RunOptions& options, Clock::time_point end,
             RunResult* result) {
  size_t written = 0;
  if (options.input.empty()) in->Close();
  while (out->value >= 0 || err->value >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0) return false;
    pollfd fds[3] = {{out->value, POLLIN, 0}, {err->value, POLLIN, 0}, {in->value, POLLOUT, 0}};
    if (poll(fds, 3, static_cast<int>(left.count())) < 0 && errno != EINTR) return false;
    Fd* sources[2] = {out, err};
    std::string* sinks[2] = {&result->out, &result->err};
    for (int i = 0; i < 2; ++i) {
      if (sources[i]->value < 0 || fds[i].revents == 0) continue;
      char buffer[65536];
      const ssize_t n = read(sources[i]->value, buffer, sizeof buffer);
      if (n <= 0 && errno != EINTR) sources[i]->Close();
      if (n > 0 && sinks[i]->size() < kMaxOutputBytes) sinks[i]->append(buffer, n);
    }
    if (in->value >= 0 && fds[2].revents != 0) {
      const ssize_t n =
          write(in->value, options.input.data() + written, options.input.size() - written);
      if (n > 0) written += n;
      if (n <= 0 || written == options.input.size()) in->Close();
    }
  }
  return true;
}

absl::Status MakePipe(Fd* read_end, Fd* write_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  read_end->value = fds[0];
  write_end->value = fds[1];
  return absl::OkStatus();
}

void Reap(pid_t pid, Clock::time_point end, RunResult* result) {
  int status = 0;
  for (;;) {
    const pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) break;
    if (done < 0 && errno != EINTR) return;
    if (Clock::now() >= end && !result->timed_out) {
      result->timed_out = true;
      kill(-pid, SIGKILL);
      kill(pid, SIGKILL);
    }
    PauseBetweenPolls();
  }
  result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

void PauseBetweenPolls() {
  const timespec pause{0, 2'000'000};
  nanosleep(&pause, nullptr);
}

absl::StatusOr<RunResult> Run(std::vector<std::string> argv, RunOptions options) {
  Prepared prepared;
  WEFT_RETURN_IF_ERROR(Prepare(argv, options.environment, options.netns, &prepared));
  Fd in_read, in_write, out_read, out_write, err_read, err_write, report_read, report_write;
  WEFT_RETURN_IF_ERROR(MakePipe(&in_read, &in_write));
  WEFT_RETURN_IF_ERROR(MakePipe(&out_read, &out_write));
  WEFT_RETURN_IF_ERROR(MakePipe(&err_read, &err_write));
  WEFT_RETURN_IF_ERROR(MakePipe(&report_read, &report_write));
  signal(SIGPIPE, SIG_IGN);
  const auto start = Clock::now();
  const auto end = start + options.timeout;
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus(errno, "fork");
  if (pid == 0) {
    ExecChild(prepared, {in_read.value, out_write.value, err_write.value}, report_write.value);
  }
  in_read.Close();
  out_write.Close();
  err_write.Close();
  report_write.Close();
  RunResult result;
  if (const int error = WaitForExec(report_read.value); error != 0) {
    waitpid(pid, nullptr, 0);
    return ErrnoStatus(error, "run " + argv[0]);
  }
  if (!Collect(&in_write, &out_read, &err_read, options, end, &result)) {
    result.timed_out = true;
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
  }
  Reap(pid, end, &result);
  result.took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start);
  return result;
}

absl::StatusOr<pid_t> Spawn(std::vector<std::string> argv, SpawnOptions options) {
  Prepared prepared;
  std::vector<std::string> environment;
  WEFT_RETURN_IF_ERROR(Prepare(argv, environment, options.netns, &prepared));
  prepared.directory = options.directory;
  prepared.uid = options.uid;
  Fd input, log, report_read, report_write, pid_read, pid_write;
  input.value = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const std::string log_file = options.log_file.empty() ? "/dev/null" : options.log_file;
  log.value = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log.value < 0) return ErrnoStatus(errno, "open " + log_file);
  WEFT_RETURN_IF_ERROR(MakePipe(&report_read, &report_write));
  WEFT_RETURN_IF_ERROR(MakePipe(&pid_read, &pid_write));
  // Twice, so that init adopts it and it never becomes our zombie.
  const pid_t middle = fork();
  if (middle < 0) return ErrnoStatus(errno, "fork");
  if (middle == 0) {
    const pid_t child = fork();
    if (child == 0) ExecChild(prepared, {input.value, log.value, log.value}, report_write.value);
    if (write(pid_write.value, &child, sizeof child) != sizeof child) _exit(126);
    _exit(0);
  }
  report_write.Close();
  pid_write.Close();
  pid_t child = -1;
  if (read(pid_read.value, &child, sizeof child) != sizeof child) child = -1;
  waitpid(middle, nullptr, 0);
  if (child < 0) return absl::InternalError("fork failed for " + argv[0]);
  if (const int error = WaitForExec(report_read.value); error != 0) {
    return ErrnoStatus(error, "run " + argv[0]);
  }
  return child;
}

uint64_t ProcessStartTime(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return 0;
  const size_t name_end = line.rfind(')');  // the name may hold spaces and parentheses
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 2));
  std::string field;
  for (int number = 3; number <= 22 && fields >> field; ++number) {
    if (number == 3 && (field == "Z" || field == "X")) return 0;
    if (number == 22) return strtoull(field.c_str(), nullptr, 10);
  }
  return 0;
}

void EndProcesses(const std::vector<ProcessId>& processes, std::chrono::milliseconds grace) {
  auto alive = [](const ProcessId& p) {
    const uint64_t start = ProcessStartTime(p.pid);
    return start != 0 && start == p.start_time;
  };
  for (const ProcessId& p : processes) {
    if (alive(p)) kill(p.pid, SIGTERM);
  }
  auto none_left = [&] {
    for (const ProcessId& p : processes) {
      if (alive(p)) return false;
    }
    return true;
  };
  if (WaitFor(grace, none_left)) return;
  for (const ProcessId& p : processes) {
    if (alive(p)) kill(p.pid, SIGKILL);
  }
  WaitFor(std::chrono::milliseconds(2000), none_left);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoStatus(errno, "open " + path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

absl::Status WriteFile(const std::string& path, const std::string& content, unsigned mode) {
  const std::string temporary = path + ".new~";
  Fd fd;
  fd.value = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd.value < 0) return ErrnoStatus(errno, "open " + temporary);
  if (fchmod(fd.value, mode) != 0) return ErrnoStatus(errno, "fchmod " + temporary);
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = write(fd.value, content.data() + done, content.size() - done);
    if (n < 0) return ErrnoStatus(errno, "write " + temporary);
    done += n;
  }
  fd.Close();
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename " + path);
  return absl::OkStatus();
}

}  // namespace weft::cli
