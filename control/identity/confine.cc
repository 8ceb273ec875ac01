// SPDX-License-Identifier: Apache-2.0
#include "control/identity/confine.h"

#include <grp.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "proxy/base/sanitizer.h"

namespace weft::identity {
namespace {

// Heap that exists before the set-up, so that it is locked and marked: 16384 keys of some 1.5 KiB
// do not fill it.
constexpr size_t kHeapBytes = 32 << 20;

void RaiseLockLimit() {
  const rlimit all{.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &all) == 0) return;
  rlimit own{};  // without CAP_SYS_RESOURCE: what there is
  if (getrlimit(RLIMIT_MEMLOCK, &own) != 0) return;
  own.rlim_cur = own.rlim_max;
  (void)setrlimit(RLIMIT_MEMLOCK, &own);
}

// Before the change of uid: root may lock beyond the limit.
absl::Status LockMemory() {
  RaiseLockLimit();
  // Everything comes from one heap that never shrinks.
  (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
  (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
  void* heap = malloc(kHeapBytes);
  if (heap == nullptr) return absl::ResourceExhaustedError("no memory for the heap");
  free(heap);
  rlimit limit{};
  (void)getrlimit(RLIMIT_MEMLOCK, &limit);
  // With a small limit, MCL_FUTURE would make later allocations fail once we are no longer root.
  const int future = limit.rlim_cur == RLIM_INFINITY ? MCL_FUTURE : 0;
  if (mlockall(MCL_CURRENT | MCL_ONFAULT | future) == 0) return absl::OkStatus();
  return ErrnoStatus(
      errno, "mlockall (does RLIMIT_MEMLOCK allow " + std::to_string(kHeapBytes >> 20) + " MiB?)");
}

// Writable private memory is left out of core dumps, should one ever be made.
absl::Status MarkDontDump() {
  const std::unique_ptr<FILE, int (*)(FILE*)> maps(fopen("/proc/self/maps", "re"), fclose);
  if (!maps) return ErrnoStatus(errno, "open /proc/self/maps");
  char line[512];
  while (fgets(line, sizeof line, maps.get()) != nullptr) {
    uintptr_t start = 0;
    uintptr_t end = 0;
    char mode[5] = {};
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, mode) != 3 || mode[1] != 'w')
      continue;
    (void)madvise(reinterpret_cast<void*>(start), end - start,
                  MADV_DONTDUMP);  // not possible for [vvar] and the like
  }
  return absl::OkStatus();
}

absl::Status DropPrivileges(uint32_t uid) {
  if (geteuid() == 0) {
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; ++cap) {
      if (prctl(PR_CAPBSET_DROP, cap) != 0) return ErrnoStatus(errno, "PR_CAPBSET_DROP");
    }
  }
  if (uid != 0) {
    const gid_t gid = uid;
    if (setgroups(0, nullptr) != 0 || setresgid(gid, gid, gid) != 0 ||
        setresuid(uid, uid, uid) != 0) {
      return ErrnoStatus(errno, "become uid " + std::to_string(uid));
    }
  }
  const std::unique_ptr<std::remove_pointer_t<cap_t>, int (*)(void*)> none(cap_init(), cap_free);
  if (!none || cap_set_proc(none.get()) != 0) return ErrnoStatus(errno, "drop capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "no_new_privs");
  // After the change of uid, which resets it.
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return ErrnoStatus(errno, "PR_SET_DUMPABLE");
  return absl::OkStatus();
}

absl::Status SetLimits() {
  const rlimit none{.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return ErrnoStatus(errno, "RLIMIT_CORE");
  return absl::OkStatus();
}

constexpr int kAllowed[] = {
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(accept4),
    SCMP_SYS(getsockopt),
    SCMP_SYS(close),
    SCMP_SYS(fcntl),
    SCMP_SYS(write),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(futex),
    SCMP_SYS(getrandom),
    SCMP_SYS(madvise),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(tgkill),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(sched_yield),
};

absl::Status FilterSystemCalls() {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                      seccomp_release);
  if (!filter) return absl::ResourceExhaustedError("seccomp_init");
  for (const int call : kAllowed) {
    if (const int error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0); error != 0) {
      return ErrnoStatus(-error, "seccomp rule " + std::to_string(call));
    }
  }
  // Pairs for signer channels; memory that is not executable.
  const scmp_arg_cmp unix_only = SCMP_A0(SCMP_CMP_EQ, AF_UNIX);
  const scmp_arg_cmp not_executable = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
  int error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, unix_only);
  if (error == 0)
    error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, not_executable);
  if (error == 0)
    error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, not_executable);
#ifdef WEFT_SANITIZED
  PrepareSanitizersForSandbox();
  if (error == 0) error = AllowSanitizers(filter.get());
#endif
  if (error == 0) error = seccomp_load(filter.get());
  return error == 0 ? absl::OkStatus() : ErrnoStatus(-error, "seccomp");
}

}  // namespace

absl::Status Confine(uint32_t uid) {
  WEFT_RETURN_IF_ERROR(SetLimits());
  WEFT_RETURN_IF_ERROR(LockMemory());
  WEFT_RETURN_IF_ERROR(MarkDontDump());
  WEFT_RETURN_IF_ERROR(DropPrivileges(uid));
  return FilterSystemCalls();
}

}  // namespace weft::identity
