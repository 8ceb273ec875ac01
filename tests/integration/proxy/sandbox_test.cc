// SPDX-License-Identifier: Apache-2.0
// What a sandboxed process can no longer do: each attempt is made in a child of its own.
#include "proxy/server/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "tests/support/sanitizer_child.h"

namespace weft::server {
namespace {

// What `attempt` returned in a sandboxed child: 0 for success, its errno otherwise; -signal if it
// was killed.
int Attempt(const std::function<long()>& attempt) {
  pid_t child = fork();
  if (child == 0) {
    if (!DropPrivileges({}).ok()) _exit(254);
    if (!FilterSyscalls({}).ok()) _exit(253);
    errno = 0;
    _exit(attempt() >= 0 ? 0 : errno);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Sandbox, RefusesWhatAnAttackerWants) {
  struct Case {
    const char* name;
    std::function<long()> call;
  };
  const Case cases[] = {
      {"execve", [] { return static_cast<long>(execl("/bin/true", "true", nullptr)); }},
      {"socket inet", [] { return static_cast<long>(socket(AF_INET, SOCK_STREAM, 0)); }},
      {"socket unix", [] { return static_cast<long>(socket(AF_UNIX, SOCK_STREAM, 0)); }},
      {"socket netlink", [] { return static_cast<long>(socket(AF_NETLINK, SOCK_RAW, 0)); }},
      {"open for writing", [] { return static_cast<long>(open("/dev/null", O_WRONLY)); }},
      {"open read and write", [] { return static_cast<long>(open("/dev/null", O_RDWR)); }},
      {"create",
       [] { return static_cast<long>(open("/tmp/weft-l4-sandbox", O_RDONLY | O_CREAT, 0600)); }},
      {"openat2", [] { return syscall(SYS_openat2, AT_FDCWD, "/dev/null", nullptr, 0); }},
      {"ptrace", [] { return static_cast<long>(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
      {"process_vm_readv",
       [] { return syscall(SYS_process_vm_readv, getppid(), nullptr, 0, nullptr, 0, 0); }},
      {"bpf", [] { return syscall(SYS_bpf, BPF_MAP_CREATE, nullptr, 0); }},
      {"setns", [] { return static_cast<long>(setns(0, 0)); }},
      {"unshare", [] { return static_cast<long>(unshare(CLONE_NEWUSER)); }},
      {"mount", [] { return static_cast<long>(mount("none", "/mnt", "tmpfs", 0, nullptr)); }},
      {"fork", [] { return static_cast<long>(syscall(SYS_fork)); }},
      {"clone3", [] { return syscall(SYS_clone3, nullptr, 0); }},
      {"kill", [] { return static_cast<long>(kill(getppid(), 0)); }},
      {"executable memory",
       [] {
         void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return page == MAP_FAILED ? -1L : 0L;
       }},
      {"mprotect exec",
       [] {
         void* page =
             mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return static_cast<long>(mprotect(page, 4096, PROT_READ | PROT_EXEC));
       }},
      {"io_uring", [] { return syscall(SYS_io_uring_setup, 1, nullptr); }},
      {"unlink", [] { return static_cast<long>(unlink("/tmp/weft-l4-sandbox")); }},
      {"setrlimit",
       [] {
         rlimit limit{1, 1};
         return static_cast<long>(setrlimit(RLIMIT_CORE, &limit));
       }},
  };
  for (const Case& c : cases) EXPECT_EQ(Attempt(c.call), EPERM) << c.name;
}

TEST(Sandbox, LeavesWhatTheProxyNeeds) {
  EXPECT_EQ(Attempt([] { return static_cast<long>(open("/dev/null", O_RDONLY | O_CLOEXEC)); }), 0);
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  EXPECT_EQ(Attempt([&] { return static_cast<long>(write(fds[0], "x", 1)); }), 0);
  EXPECT_EQ(Attempt([&] { return static_cast<long>(fcntl(fds[0], F_DUPFD_CLOEXEC, 0)); }), 0);
  EXPECT_EQ(Attempt([] {
              void* page = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              return page == MAP_FAILED ? -1L : 0L;
            }),
            0);
  close(fds[0]);
  close(fds[1]);
}

TEST(Sandbox, HoldsForThreadsThatRanBefore) {
  pid_t child = fork();
  if (child == 0) {
    if (!DropPrivileges({}).ok()) _exit(254);
    int ready[2], result[2];
    if (pipe(ready) != 0 || pipe(result) != 0) _exit(252);
    std::thread thread([&] {
      char byte;
      if (read(ready[0], &byte, 1) != 1) _exit(251);
      int fd = socket(AF_INET, SOCK_STREAM, 0);
      int error = fd >= 0 ? 0 : errno;
      if (write(result[1], &error, sizeof error) != sizeof error) _exit(250);
    });
    if (!FilterSyscalls({}).ok()) _exit(253);
    int error = 0;
    if (write(ready[1], "x", 1) != 1 || read(result[0], &error, sizeof error) != sizeof error)
      _exit(249);
    thread.join();
    _exit(error);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), EPERM);
}

#ifdef WEFT_SANITIZED
bool Confined() {
  return DropPrivileges({.uid = 64997, .gid = 64997}).ok() && FilterSyscalls({}).ok();
}
#endif

#ifdef __SANITIZE_ADDRESS__
TEST(Sandbox, LetsSanitizersReport) {
  struct Case {
    void (*wrong)();
    const char* said;
    const char* function;
  };
  const Case cases[] = {
      {test::WriteBehindTheHeap, "heap-buffer-overflow", "WriteBehindTheHeap"},
      {test::OverflowAnInteger, "signed integer overflow", "OverflowAnInteger"},
      {test::Leak, "4711 byte(s) in 1 object(s)", "Leak"},
  };
  for (const Case& c : cases) {
    const test::ChildReport report = test::ReportOfConfined(Confined, c.wrong);
    EXPECT_NE(report.text.find(c.said), std::string::npos) << report.text;
    EXPECT_NE(report.text.find(c.function), std::string::npos) << report.text;
    EXPECT_EQ(report.exit_code, test::kSanitizerExit) << c.said;
  }
}
#endif

#ifdef __SANITIZE_THREAD__
TEST(Sandbox, LetsSanitizersReport) {
  static volatile int shared = 0;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const test::ChildReport report = test::ReportOfConfined(
      [&] {
        std::thread([ready] {
          char byte;
          if (read(ready[0], &byte, 1) == 1) shared = shared + 1;
        }).detach();
        return Confined();
      },
      [&] {
        if (write(ready[1], "x", 1) != 1) _exit(3);
        for (int i = 0; i < 1000; ++i) {
          shared = shared + 1;
          sched_yield();
        }
      });
  EXPECT_NE(report.text.find("data race"), std::string::npos) << report.text;
  EXPECT_EQ(report.exit_code, test::kSanitizerExit);
}
#endif

}  // namespace
}  // namespace weft::server
