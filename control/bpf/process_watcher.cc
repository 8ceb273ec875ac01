// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/process_watcher.h"

#include <unistd.h>

#include <cerrno>

namespace weft::bpf {

absl::StatusOr<std::unique_ptr<ProcessWatcher>> ProcessWatcher::Create(const PinPaths& paths,
                                                                       const MapSizes& sizes) {
  std::unique_ptr<ProcessWatcher> watcher(new ProcessWatcher());
  const EmbeddedObject embedded = ProcessObject();
  WEFT_ASSIGN_OR_RETURN(watcher->object_, OpenObject(embedded, paths, sizes));
  bpf_object* object = watcher->object_.get();
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object));
  watcher->cookie_ = static_cast<uint64_t*>(FindVariable(object, ".bss", "scan_netns_cookie"));
  watcher->found_ = static_cast<uint32_t*>(FindVariable(object, ".bss", "scan_found"));
  if (watcher->cookie_ == nullptr || watcher->found_ == nullptr) {
    return absl::InternalError("process.bpf.c lacks one of its variables");
  }
  // A raw tracepoint's link takes no other program: the new link first, then the old one goes.
  for (const char* name : {"weft_exit", "weft_exec", "weft_fork"}) {
    WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object, name));
    WEFT_RETURN_IF_ERROR(AttachPinned(
        paths, name + 5, program, [](const bpf_link_info&) { return true; },
        [&] {
          return bpf_program__attach_raw_tracepoint(
              program, bpf_program__section_name(program) + sizeof "raw_tp");
        }));
  }
  WEFT_ASSIGN_OR_RETURN(bpf_program * scan, FindProgram(object, "weft_scan"));
  watcher->scan_.reset(bpf_program__attach_iter(scan, nullptr));
  if (!watcher->scan_) return ErrnoStatus(errno, "attach iter/task");
  return watcher;
}

absl::StatusOr<uint32_t> ProcessWatcher::Scan(uint64_t netns_cookie) {
  *cookie_ = netns_cookie;
  *found_ = 0;
  const UniqueFd walk(bpf_iter_create(bpf_link__fd(scan_.get())));
  if (!walk.ok()) return ErrnoStatus(errno, "create iter/task");
  char ignored[64];
  ssize_t got = 0;
  do {
    got = read(walk.get(), ignored, sizeof ignored);
  } while (got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN)));
  if (got != 0) return ErrnoStatus(errno, "read iter/task");
  return *found_;
}

}  // namespace weft::bpf
