// SPDX-License-Identifier: Apache-2.0
// Takes from this process what it does not need: first its privileges, then, once everything is set
// up, system calls. Main thread, at start.
#pragma once
#include <cstdint>

#include "proxy/base/status.h"

namespace weft::server {

struct Privileges {
  int64_t uid = -1, gid = -1;  // -1: stay
};
// Before any other thread runs: group, user, every capability (the bounding set too, where it may),
// no_new_privs, no core dumps, not dumpable.
absl::Status DropPrivileges(const Privileges& privileges);

struct SyscallFilter {
  bool may_make_sockets = false;  // a proxy that runs alone binds and connects by itself
};
// For all threads. A call that is not on the list fails with EPERM: no new program, no socket, no
// file opened for writing, no ptrace, no namespace, no bpf, no executable memory.
absl::Status FilterSyscalls(const SyscallFilter& filter);

}  // namespace weft::server
