// SPDX-License-Identifier: Apache-2.0
#include "control/agent/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "proxy/base/log.h"
#include "proxy/base/task.h"

namespace weft::agent {
namespace {

int PidfdOpen(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

std::string HowItEnded(int status) {
  if (WIFEXITED(status)) return absl::StrCat("exit code ", WEXITSTATUS(status));
  return absl::StrCat("signal ", WTERMSIG(status));
}

[[noreturn]] void Fail(int report_fd) {
  const int error = errno;
  if (write(report_fd, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

// Everything the child needs, made before fork: between fork and exec nothing allocates.
struct Prepared {
  std::vector<char*> argv;
  std::vector<int> fds;  // copies above the range that is overwritten
  int cgroup_fd = -1;
  uint32_t uid = 0;
  bool no_new_privs = false;
};

[[noreturn]] void RunChild(const Prepared& p, int report_fd) {
  if (setsid() < 0) Fail(report_fd);
  if (p.cgroup_fd >= 0 && write(p.cgroup_fd, "0", 1) != 1) Fail(report_fd);
  const int first_free = 3 + static_cast<int>(p.fds.size());
  // The report descriptor must not be in the way of the ones that move.
  report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, first_free + 64);
  for (size_t i = 0; i < p.fds.size(); ++i) {
    if (dup2(p.fds[i], static_cast<int>(i) + 3) < 0) Fail(report_fd);
  }
  if (close_range(first_free, ~0u, CLOSE_RANGE_CLOEXEC) != 0) Fail(report_fd);
  if (p.uid != 0) {
    if (setgroups(0, nullptr) != 0 || setresgid(p.uid, p.uid, p.uid) != 0) Fail(report_fd);
    if (setresuid(p.uid, p.uid, p.uid) != 0) Fail(report_fd);
  }
  if (p.no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail(report_fd);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(p.argv[0], p.argv.data());
  Fail(report_fd);
}

absl::StatusOr<pid_t> ForkExec(const ChildSpec& spec) {
  Prepared prepared;
  std::vector<std::string> argv = spec.argv;
  for (std::string& a : argv) prepared.argv.push_back(a.data());
  prepared.argv.push_back(nullptr);
  prepared.uid = spec.uid;
  prepared.no_new_privs = spec.no_new_privs;
  if (!spec.cgroup.empty()) {
    const std::string procs = spec.cgroup + "/cgroup.procs";
    prepared.cgroup_fd = open(procs.c_str(), O_WRONLY | O_CLOEXEC);
    if (prepared.cgroup_fd < 0) return ErrnoStatus(errno, "open " + procs);
  }
  const int above = 3 + static_cast<int>(spec.fds.size());
  for (int fd : spec.fds) prepared.fds.push_back(fcntl(fd, F_DUPFD_CLOEXEC, above));
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  const pid_t pid = fork();
  if (pid == 0) RunChild(prepared, report[1]);
  const int fork_error = errno;
  close(report[1]);
  if (prepared.cgroup_fd >= 0) close(prepared.cgroup_fd);
  for (int fd : prepared.fds) close(fd);
  int error = 0;
  const bool failed =
      pid > 0 && read(report[0], &error, sizeof error) == static_cast<ssize_t>(sizeof error);
  close(report[0]);
  if (pid < 0) return ErrnoStatus(fork_error, "fork");
  if (failed) {
    waitpid(pid, nullptr, 0);
    return ErrnoStatus(error, "start " + spec.argv[0]);
  }
  return pid;
}

std::string ProgramOf(pid_t pid) {
  std::error_code error;
  std::string target =
      std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error).filename();
  // A program that was rebuilt meanwhile.
  if (target.ends_with(" (deleted)")) target.resize(target.size() - 10);
  return target;
}

}  // namespace

uint64_t ProcessStartTime(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return 0;
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 2));
  std::string field;
  for (int number = 3; number <= 22 && fields >> field; ++number) {
    if (number == 3 && (field == "Z" || field == "X")) return 0;
    if (number == 22) return strtoull(field.c_str(), nullptr, 10);
  }
  return 0;
}

struct ChildProcess::State : std::enable_shared_from_this<State> {
  State(boost::asio::any_io_executor executor, int pidfd) : watch(executor, pidfd) {}

  void Watch() {
    watch.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](boost::system::error_code error) {
                       if (error || self->stopped) return;
                       self->ended = true;
                       int status = 0;
                       const bool ours = waitpid(self->pid, &status, WNOHANG) == self->pid;
                       OnExit on_exit = std::move(self->on_exit);
                       self->on_exit = nullptr;
                       if (on_exit) on_exit(ours ? HowItEnded(status) : "gone");
                     });
  }

  pid_t pid = 0;
  bool stopped = false, ended = false;
  OnExit on_exit;
  asio::posix::stream_descriptor watch;
};

std::unique_ptr<ChildProcess> ChildProcess::Adopt(boost::asio::any_io_executor executor,
                                                  const std::string& pid_file,
                                                  const std::string& program, OnExit on_exit) {
  std::ifstream in(pid_file);
  pid_t pid = 0;
  uint64_t start_time = 0;
  if (!(in >> pid >> start_time) || pid <= 1) return nullptr;
  const int pidfd = PidfdOpen(pid);
  if (pidfd < 0) return nullptr;
  if (ProcessStartTime(pid) != start_time || ProgramOf(pid) != program) {
    close(pidfd);
    return nullptr;
  }
  auto state = std::make_shared<State>(executor, pidfd);
  state->pid = pid;
  state->on_exit = std::move(on_exit);
  state->Watch();
  return std::unique_ptr<ChildProcess>(new ChildProcess(std::move(state)));
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    boost::asio::any_io_executor executor, const ChildSpec& spec, const std::string& pid_file,
    OnExit on_exit) {
  WEFT_ASSIGN_OR_RETURN(const pid_t pid, ForkExec(spec));
  std::ofstream(pid_file) << pid << ' ' << ProcessStartTime(pid) << '\n';
  const int pidfd = PidfdOpen(pid);
  if (pidfd < 0) return ErrnoStatus(errno, "pidfd_open " + spec.name);
  auto state = std::make_shared<State>(executor, pidfd);
  state->pid = pid;
  state->on_exit = std::move(on_exit);
  state->Watch();
  return std::unique_ptr<ChildProcess>(new ChildProcess(std::move(state)));
}

ChildProcess::~ChildProcess() {
  state_->stopped = true;
  boost::system::error_code ignored;
  state_->watch.close(ignored);
}

pid_t ChildProcess::pid() const { return state_->pid; }

void ChildProcess::Stop(std::chrono::milliseconds grace) {
  state_->stopped = true;
  if (state_->ended) return;
  const int pidfd = state_->watch.native_handle();
  auto gone_within = [&](std::chrono::milliseconds limit) {
    pollfd p{pidfd, POLLIN, 0};
    const bool gone = poll(&p, 1, static_cast<int>(limit.count())) == 1;
    if (gone) waitpid(state_->pid, nullptr, WNOHANG);
    return gone;
  };
  syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, nullptr, 0);
  if (gone_within(grace)) return;
  syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
  if (!gone_within(std::chrono::seconds(5))) {
    LogError("a process does not end", {{"pid", std::to_string(state_->pid)}});
  }
}

}  // namespace weft::agent
