// SPDX-License-Identifier: Apache-2.0
// Sanitizer builds only: does a report of a process that has confined itself get out? A child
// confines itself and then does something wrong; what its runtime says comes back by a pipe instead
// of the file that would make the test fail (tests/sanitized.sh).
#pragma once
#include "proxy/base/sanitizer.h"

#ifdef WEFT_SANITIZED
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <thread>

// cmake/sanitizer_report.cc
extern "C" void weft_set_sanitizer_report_fd(int fd);

namespace weft::test {

inline constexpr int kSanitizerExit = 86;  // cmake/sanitizer_report.cc

struct ChildReport {
  int exit_code = -1;
  std::string text;
};

// `wrong` returns if nothing stops it; then the child ends with exit(0), as programs do.
inline ChildReport ReportOfConfined(const std::function<bool()>& confine,
                                    const std::function<void()>& wrong) {
  int fds[2];
  if (pipe(fds) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    close(fds[0]);
    weft_set_sanitizer_report_fd(fds[1]);
    if (!confine()) _exit(2);
    wrong();
    exit(0);
  }
  close(fds[1]);
  ChildReport report;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fds[0], buffer, sizeof buffer)) > 0;) {
    report.text.append(buffer, static_cast<size_t>(n));
  }
  close(fds[0]);
  int status = 0;
  waitpid(child, &status, 0);
  report.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return report;
}

#ifdef __SANITIZE_ADDRESS__
inline void WriteBehindTheHeap() {
  auto* bytes = new char[32];
  volatile char* volatile behind = bytes + 32;
  *behind = 1;
  delete[] bytes;
}
inline void OverflowAnInteger() {
  volatile int large = std::numeric_limits<int>::max();
  large = large + 1;
}
inline void* volatile leaked;  // NOLINT
__attribute__((noinline)) inline void Leak() {
  leaked = malloc(4711);
  leaked = nullptr;
}
#endif

}  // namespace weft::test
#endif
