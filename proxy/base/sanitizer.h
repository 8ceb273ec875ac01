// SPDX-License-Identifier: Apache-2.0
// Sanitizer builds only (CONTRIBUTING.md, "Sanitizers"): what a process that confines itself must
// do and may keep so that a report still gets out. Empty in every other build. Included by the two
// sandboxes (proxy/server, control/identity) and their tests.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WEFT_SANITIZED 1
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include <cstdint>

namespace weft {

// Before the filter: the runtimes remember the memory map.
inline void PrepareSanitizersForSandbox() { __sanitizer_sandbox_on_notify(nullptr); }

// What the reports and the leak check at the end need beyond a sandbox's own list. The leak check
// starts a task that shares our memory, stops our threads by ptrace and looks at their registers;
// names in a report come from reading the program's own file.
// Nothing here creates or writes a file, makes a socket, or starts a program: the sandboxes' tests
// hold in these builds too. Returns 0 or a negative errno, as seccomp_rule_add does.
inline int AllowSanitizers(scmp_filter_ctx filter) {
  constexpr int kCalls[] = {
      SCMP_SYS(read),           SCMP_SYS(pread64),     SCMP_SYS(close),
      SCMP_SYS(getdents),       SCMP_SYS(getdents64),  SCMP_SYS(readlink),
      SCMP_SYS(lseek),          SCMP_SYS(fstat),       SCMP_SYS(newfstatat),
      SCMP_SYS(stat),           SCMP_SYS(madvise),     SCMP_SYS(munmap),
      SCMP_SYS(mremap),         SCMP_SYS(wait4),       SCMP_SYS(getppid),
      SCMP_SYS(sched_yield),    SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigaction),
      SCMP_SYS(rt_sigprocmask), SCMP_SYS(nanosleep),   SCMP_SYS(clock_nanosleep),
      SCMP_SYS(clock_gettime),  SCMP_SYS(futex),       SCMP_SYS(sched_getaffinity),
      SCMP_SYS(gettid),         SCMP_SYS(getpid),      SCMP_SYS(getuid),
      SCMP_SYS(pipe),  // to ask whether memory can be read, before a look at a vtable
      SCMP_SYS(pipe2),          SCMP_SYS(write),       SCMP_SYS(exit),
      SCMP_SYS(exit_group),
  };
  for (const int call : kCalls) {
    if (const int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0); error != 0)
      return error;
  }
  struct Conditional {
    int call;
    unsigned argument;
    uint64_t mask, value;
  };
  constexpr uint64_t kAll = UINT64_MAX;
  constexpr uint64_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;
  constexpr uint64_t kTracer = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED;
  constexpr Conditional kConditional[] = {
      {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
      {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
      {SCMP_SYS(open), 1, kWriting, 0},
      {SCMP_SYS(openat), 2, kWriting, 0},
      {SCMP_SYS(prlimit64), 2, kAll, 0},  // to ask only
      {SCMP_SYS(prctl), 0, kAll, PR_GET_DUMPABLE},
      {SCMP_SYS(prctl), 0, kAll, PR_SET_DUMPABLE},
      {SCMP_SYS(prctl), 0, kAll, PR_SET_PTRACER},
      {SCMP_SYS(prctl), 0, kAll, PR_SET_PDEATHSIG},
      {SCMP_SYS(prctl), 0, kAll, PR_SET_VMA},
      {SCMP_SYS(clone), 0, kAll, kTracer},
      {SCMP_SYS(ptrace), 0, kAll, PTRACE_ATTACH},
      {SCMP_SYS(ptrace), 0, kAll, PTRACE_CONT},
      {SCMP_SYS(ptrace), 0, kAll, PTRACE_GETREGS},
      {SCMP_SYS(ptrace), 0, kAll, PTRACE_GETREGSET},
      {SCMP_SYS(ptrace), 0, kAll, PTRACE_DETACH},
  };
  for (const Conditional& c : kConditional) {
    const int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, c.call, 1,
                                       SCMP_CMP(c.argument, SCMP_CMP_MASKED_EQ, c.mask, c.value));
    if (error != 0) return error;
  }
  return 0;
}

}  // namespace weft
#endif
