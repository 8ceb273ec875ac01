// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/cutter.h"

#include <unistd.h>

#include <cerrno>

#include "control/bpf/netns.h"

namespace weft::bpf {

absl::StatusOr<std::unique_ptr<Cutter>> Cutter::Create(const PinPaths& paths,
                                                       const MapSizes& sizes) {
  const EmbeddedObject embedded = CutObject();
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, paths, sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object.get(), "weft_cut"));
  const Variables variables{
      static_cast<uint64_t*>(FindVariable(object.get(), ".bss", "cut_netns_cookie")),
      static_cast<uint32_t*>(FindVariable(object.get(), ".bss", "cut_asked")),
      static_cast<uint32_t*>(FindVariable(object.get(), ".bss", "cut_destroyed"))};
  if (variables.netns_cookie == nullptr || variables.asked == nullptr ||
      variables.destroyed == nullptr) {
    return absl::InternalError("cut.bpf.c lacks one of its variables");
  }
  LinkPtr link(bpf_program__attach_iter(program, nullptr));
  if (!link) return ErrnoStatus(errno, "attach iter/tcp");
  return std::unique_ptr<Cutter>(new Cutter(std::move(object), std::move(link), variables));
}

absl::StatusOr<CutReport> Cutter::Run(uint64_t netns_cookie, int netns_fd) {
  *variables_.netns_cookie = netns_cookie;
  *variables_.asked = 0;
  *variables_.destroyed = 0;
  // The walk covers the namespace in which the iterator was created.
  WEFT_RETURN_IF_ERROR(InNetns(netns_fd, [&] {
    UniqueFd walk(bpf_iter_create(bpf_link__fd(link_.get())));
    if (!walk.ok()) return ErrnoStatus(errno, "create iter/tcp");
    char ignored[64];
    ssize_t got = 0;
    do {
      got = read(walk.get(), ignored, sizeof ignored);
    } while (got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN)));
    return got == 0 ? absl::OkStatus() : ErrnoStatus(errno, "read iter/tcp");
  }));
  return CutReport{*variables_.asked, *variables_.destroyed};
}

}  // namespace weft::bpf
