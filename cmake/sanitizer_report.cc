// SPDX-License-Identifier: Apache-2.0
// Part of every program and test of a sanitizer build, and of no other (cmake/WeftTargets.cmake):
// the runtimes' options, and where their reports go. With WEFT_SANITIZER_REPORTS=DIR
// (tests/sanitized.sh sets it) a process opens DIR/NAME.PID before main(), so that it still can
// write there after it has given up its user, its file system and open(). Without it reports go to
// stderr.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// 86: a report, and nothing else ends with it.
extern "C" {
const char* __asan_default_options();
const char* __lsan_default_options();
const char* __tsan_default_options();
const char* __ubsan_default_options();

const char* __asan_default_options() {
  return "exitcode=86:detect_leaks=1:strict_string_checks=1:check_initialization_order=1";
}
const char* __lsan_default_options() { return "exitcode=86"; }
const char* __tsan_default_options() {
  // Ends at the first race: a report that is followed by an exit code 0 would be overlooked.
  return "exitcode=86:halt_on_error=1:second_deadlock_stack=1";
}
const char* __ubsan_default_options() { return "exitcode=86:print_stacktrace=1"; }
}

namespace {

constexpr int kLowestFd = 400;  // out of the way of descriptors that are passed by number
int g_report_fd = -1;

}  // namespace

extern "C" {
void weft_set_sanitizer_report_fd(int fd);
void __ubsan_on_report();

// Also called by tests (tests/support/sanitizer_child.h). The runtime gets a copy, for it may close
// it.
void weft_set_sanitizer_report_fd(int fd) {
  g_report_fd = fd;
  if (fd < 0) return;
  const intptr_t copy = fcntl(fd, F_DUPFD_CLOEXEC, kLowestFd);
  __sanitizer_set_report_fd(reinterpret_cast<void*>(copy));
}

// Called before a report is printed. The undefined behaviour sanitizer is a library of its own with
// a report file of its own; its first report sets that back to stderr and closes the other one's.
void __ubsan_on_report() {
  weft_set_sanitizer_report_fd(g_report_fd);
  void* const library = dlopen("libubsan.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (g_report_fd < 0 || library == nullptr) return;
  using Setter = void (*)(void*);
  auto set = reinterpret_cast<Setter>(dlsym(library, "__sanitizer_set_report_fd"));
  if (set != nullptr) set(reinterpret_cast<void*>(static_cast<intptr_t>(g_report_fd)));
}
}

namespace {

// The runtimes forget the descriptor in a child that does not exec.
void AfterFork() { weft_set_sanitizer_report_fd(g_report_fd); }

__attribute__((constructor)) void OpenReport() {
  const char* const directory = getenv("WEFT_SANITIZER_REPORTS");
  if (directory == nullptr) return;
  char path[512];
  snprintf(path, sizeof path, "%s/%s.%d", directory, program_invocation_short_name,
           static_cast<int>(getpid()));
  const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, kLowestFd);
  if (high < 0) {
    fprintf(stderr, "cannot open %s for sanitizer reports: %m\n", path);
    _exit(87);
  }
  close(fd);
  weft_set_sanitizer_report_fd(high);
  (void)pthread_atfork(nullptr, nullptr, AfterFork);
}

}  // namespace
