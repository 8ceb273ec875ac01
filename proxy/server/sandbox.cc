// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "proxy/base/sanitizer.h"

namespace weft::server {
namespace {

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

// What the data path, the admin interface and the C++ runtime use once everything is open. Calls
// with conditions: below.
constexpr int kAllowed[] = {
    // bytes
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    // sockets that exist already
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(connect),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    // waiting
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    // memory (mmap and mprotect: below)
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    // looking at files and at itself
    SCMP_SYS(fstat),
    SCMP_SYS(stat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(lseek),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(uname),
    // signals and the end
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(membarrier),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

// A call that depends on one argument: (argument & mask) == value.
struct Conditional {
  int call;
  unsigned argument;
  uint64_t mask, value;
};
constexpr uint64_t kAll = UINT64_MAX;
constexpr uint64_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;
const Conditional kConditional[] = {
    {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
    {SCMP_SYS(open), 1, kWriting, 0},
    {SCMP_SYS(openat), 2, kWriting, 0},
    {SCMP_SYS(fcntl), 1, kAll, F_GETFL},
    {SCMP_SYS(fcntl), 1, kAll, F_SETFL},
    {SCMP_SYS(fcntl), 1, kAll, F_GETFD},
    {SCMP_SYS(fcntl), 1, kAll, F_SETFD},
    {SCMP_SYS(fcntl), 1, kAll, F_DUPFD_CLOEXEC},
    {SCMP_SYS(ioctl), 1, kAll, FIONBIO},
    {SCMP_SYS(ioctl), 1, kAll, FIONREAD},
    {SCMP_SYS(prctl), 0, kAll, PR_SET_NAME},
};
// A proxy that runs alone: sockets of its own, and the resolver's thread. Name resolution also
// binds netlink sockets.
constexpr int kAloneAllowed[] = {SCMP_SYS(socket), SCMP_SYS(bind), SCMP_SYS(listen),
                                 SCMP_SYS(socketpair), SCMP_SYS(sendmmsg)};

absl::Status Failed(const char* what, int error) { return ErrnoStatus(error, what); }

// Without CAP_SETPCAP it stays, and no_new_privs makes it meaningless.
absl::Status DropBoundingSet() {
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM)
      return Failed("PR_CAPBSET_DROP", errno);
  }
  return absl::OkStatus();
}

absl::Status DropCapabilities() {
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);  // absent before 4.3: nothing to clear
  std::unique_ptr<std::remove_pointer_t<cap_t>, decltype(&cap_free)> none(cap_init(), &cap_free);
  if (none == nullptr || cap_set_proc(none.get()) != 0) return Failed("cap_set_proc", errno);
  return absl::OkStatus();
}

}  // namespace

absl::Status DropPrivileges(const Privileges& privileges) {
  if (privileges.gid >= 0) {
    auto gid = static_cast<gid_t>(privileges.gid);
    if (geteuid() == 0 && setgroups(0, nullptr) != 0) return Failed("setgroups", errno);
    if (setresgid(gid, gid, gid) != 0) return Failed("--gid (needs root)", errno);
  }
  // The bounding set first: it needs a capability that the change of user takes away.
  WEFT_RETURN_IF_ERROR(DropBoundingSet());
  if (privileges.uid >= 0) {
    auto uid = static_cast<uid_t>(privileges.uid);
    if (setresuid(uid, uid, uid) != 0) return Failed("--uid (needs root)", errno);
  }
  WEFT_RETURN_IF_ERROR(DropCapabilities());
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("PR_SET_NO_NEW_PRIVS", errno);
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return Failed("PR_SET_DUMPABLE", errno);
  rlimit no_core = {};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) return Failed("RLIMIT_CORE", errno);
  return absl::OkStatus();
}

absl::Status FilterSyscalls(const SyscallFilter& wanted) {
  Filter filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)), &seccomp_release);
  if (filter == nullptr) return absl::InternalError("seccomp_init");
  int error = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  auto allow = [&](int call) {
    if (error == 0) error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
  };
  auto allow_if = [&](const Conditional& c) {
    if (error != 0) return;
    error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, c.call, 1,
                             SCMP_CMP(c.argument, SCMP_CMP_MASKED_EQ, c.mask, c.value));
  };
  for (int call : kAllowed) allow(call);
  for (const Conditional& conditional : kConditional) allow_if(conditional);
  // abort() signals its own thread.
  allow_if({SCMP_SYS(tgkill), 0, kAll, static_cast<uint64_t>(getpid())});
  if (wanted.may_make_sockets) {
    for (int call : kAloneAllowed) allow(call);
    allow_if({SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD});
    // Its flags are behind a pointer: glibc falls back to clone.
    if (error == 0)
      error = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  }
#ifdef WEFT_SANITIZED
  PrepareSanitizersForSandbox();
  if (error == 0) error = AllowSanitizers(filter.get());
#endif
  if (error == 0) error = seccomp_load(filter.get());
  return error == 0 ? absl::OkStatus() : Failed("seccomp", -error);
}

}  // namespace weft::server
