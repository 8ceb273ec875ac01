// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/guard.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "control/bpf/netns.h"
#include "control/bpf/probe.h"

namespace weft::bpf {
namespace {

constexpr size_t kListeningBytes = 8192;  // a bit per port

struct Side {
  const char* program;
  const char* link;
  bpf_attach_type type;
};
constexpr Side kSides[] = {{"weft_from_pod", "from", BPF_TCX_INGRESS},
                           {"weft_to_pod", "to", BPF_TCX_EGRESS}};

std::string LinkName(const Side& side, uint64_t netns_cookie, uint32_t ifindex) {
  return absl::StrCat("guard_", side.link, "_", netns_cookie, "_", ifindex);
}

void SetAddresses(const weft_workload& workload, weft_guard* out) {
  out->workload = workload.id;
  out->generation = workload.generation;
  memcpy(out->ipv4, workload.ipv4, sizeof out->ipv4);
  memcpy(out->ipv6, workload.ipv6, sizeof out->ipv6);
}

// What programs count there is not the agent's to compare.
bool Same(const weft_guard& a, const weft_guard& b) {
  return memcmp(&a, &b, offsetof(weft_guard, reports)) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Guard>> Guard::Create(const PinPaths& paths, const MapSizes& sizes) {
  auto guard = std::unique_ptr<Guard>(new Guard());
  guard->paths_ = paths;
  // Nothing would hold the programs.
  if (!HasTcx()) return guard;
  const EmbeddedObject embedded = WorkloadObject();
  WEFT_ASSIGN_OR_RETURN(guard->object_, OpenObject(embedded, paths, sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, guard->object_.get()));
  WEFT_ASSIGN_OR_RETURN(guard->guards_, OpenPinnedMap(paths, "weft_guards"));
  WEFT_RETURN_IF_ERROR(guard->LoadWalk(paths, sizes));
  return guard;
}

absl::Status Guard::LoadWalk(const PinPaths& paths, const MapSizes& sizes) {
  const EmbeddedObject embedded = EnrolObject();
  WEFT_ASSIGN_OR_RETURN(walk_object_, OpenObject(embedded, paths, sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, walk_object_.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(walk_object_.get(), "weft_enrol"));
  const auto variable = [&](const char* name) {
    return FindVariable(walk_object_.get(), ".bss", name);
  };
  walk_ = {static_cast<uint64_t*>(variable("enrol_netns_cookie")),
           static_cast<uint32_t*>(variable("enrol_stamped")),
           static_cast<uint32_t*>(variable("enrol_failed")),
           static_cast<uint8_t*>(variable("enrol_listening"))};
  if (walk_.netns_cookie == nullptr || walk_.stamped == nullptr || walk_.failed == nullptr ||
      walk_.listening == nullptr) {
    return absl::InternalError("enrol.bpf.c lacks one of its variables");
  }
  walk_link_.reset(bpf_program__attach_iter(program, nullptr));
  return walk_link_ ? absl::OkStatus() : ErrnoStatus(errno, "attach iter/tcp");
}

absl::StatusOr<uint32_t> Guard::StampOpenSockets(uint64_t netns_cookie, int netns_fd) {
  *walk_.netns_cookie = netns_cookie;
  *walk_.stamped = 0;
  *walk_.failed = 0;
  memset(walk_.listening, 0, kListeningBytes);
  // The walk covers the namespace in which the iterator was created.
  WEFT_RETURN_IF_ERROR(InNetns(netns_fd, [&] {
    UniqueFd walk(bpf_iter_create(bpf_link__fd(walk_link_.get())));
    if (!walk.ok()) return ErrnoStatus(errno, "create iter/tcp");
    char ignored[64];
    ssize_t got = 0;
    do {
      got = read(walk.get(), ignored, sizeof ignored);
    } while (got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN)));
    return got == 0 ? absl::OkStatus() : ErrnoStatus(errno, "read iter/tcp");
  }));
  if (*walk_.failed != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory to stamp ", *walk_.failed, " open sockets"));
  }
  return *walk_.stamped;
}

std::vector<uint32_t> Guard::GuardedBy(uint64_t netns_cookie) const {
  std::vector<uint32_t> all;
  if (!available()) return all;
  for (const uint32_t ifindex : Keys<uint32_t>(guards_)) {
    weft_guard entry{};
    if (bpf_map_lookup_elem(guards_.get(), &ifindex, &entry) == 0 &&
        entry.netns_cookie == netns_cookie) {
      all.push_back(ifindex);
    }
  }
  return all;
}

// Only what changed: an update hands the old entry's memory to the next one, under a program that
// still reads it (ARCHITECTURE.md, versions of policy).
absl::Status Guard::Write(uint32_t ifindex, const weft_guard& entry) {
  weft_guard before{};
  if (bpf_map_lookup_elem(guards_.get(), &ifindex, &before) == 0 && Same(before, entry)) {
    return absl::OkStatus();
  }
  return Put(guards_, ifindex, entry, absl::StrCat("guard workload ", entry.workload));
}

absl::Status Guard::AttachOne(uint64_t netns_cookie, uint32_t ifindex, int host_netns) {
  for (const Side& side : kSides) {
    WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object_.get(), side.program));
    // First at its hook: what others let through without asking the next one, they would let
    // through without asking us.
    bpf_tcx_opts options{};
    options.sz = sizeof options;
    options.flags = BPF_F_BEFORE;
    WEFT_RETURN_IF_ERROR(InNetns(host_netns, [&] {
      return AttachPinned(
          paths_, LinkName(side, netns_cookie, ifindex), program,
          [&](const bpf_link_info& pinned) {
            return pinned.tcx.ifindex == ifindex && pinned.tcx.attach_type == side.type;
          },
          [&] { return bpf_program__attach_tcx(program, static_cast<int>(ifindex), &options); });
    }));
  }
  return absl::OkStatus();
}

absl::Status Guard::DetachOne(uint64_t netns_cookie, uint32_t ifindex) {
  for (const Side& side : kSides) {
    WEFT_RETURN_IF_ERROR(RemoveLink(paths_.links + "/" + LinkName(side, netns_cookie, ifindex)));
  }
  // After the programs: one that finds no entry drops.
  return Drop(guards_, ifindex, "release guard");
}

bool Guard::Stands(uint64_t netns_cookie, uint32_t ifindex) const {
  const std::string path = paths_.links + "/" + LinkName(kSides[0], netns_cookie, ifindex);
  const UniqueFd link(bpf_obj_get(path.c_str()));
  bpf_link_info info{};
  uint32_t length = sizeof info;
  return link.ok() && bpf_link_get_info_by_fd(link.get(), &info, &length) == 0 &&
         info.tcx.ifindex == ifindex;
}

bool Guard::Holds(uint64_t netns_cookie) const {
  return std::ranges::any_of(GuardedBy(netns_cookie),
                             [&](uint32_t ifindex) { return Stands(netns_cookie, ifindex); });
}

absl::Status Guard::Add(uint64_t netns_cookie, const weft_workload& workload, const HostEnd& end,
                        int host_netns) {
  weft_guard entry{};
  const bool known = bpf_map_lookup_elem(guards_.get(), &end.ifindex, &entry) == 0;
  if (known && entry.netns_cookie != netns_cookie && Stands(entry.netns_cookie, end.ifindex)) {
    return absl::FailedPreconditionError(
        absl::StrCat(end.pod_name, " is guarded as an interface of workload ", entry.workload));
  }
  if (!known || entry.netns_cookie != netns_cookie) {
    entry = weft_guard{};
    entry.netns_cookie = netns_cookie;
    if (end.link_local) {
      memcpy(entry.link_local, end.link_local->bytes.data(), sizeof entry.link_local);
    }
    memcpy(entry.mac, end.mac.data(), sizeof entry.mac);
  }
  SetAddresses(workload, &entry);
  WEFT_RETURN_IF_ERROR(Write(end.ifindex, entry));
  return AttachOne(netns_cookie, end.ifindex, host_netns);
}

absl::Status Guard::Attach(uint64_t netns_cookie, const weft_workload& workload,
                           const std::vector<HostEnd>& ends, int host_netns) {
  for (const uint32_t ifindex : GuardedBy(netns_cookie)) {
    WEFT_RETURN_IF_ERROR(Stands(netns_cookie, ifindex)
                             ? AttachOne(netns_cookie, ifindex, host_netns)
                             : DetachOne(netns_cookie, ifindex));
  }
  for (const HostEnd& end : ends) {
    WEFT_RETURN_IF_ERROR(Add(netns_cookie, workload, end, host_netns));
  }
  return Update(netns_cookie, workload);
}

absl::Status Guard::Update(uint64_t netns_cookie, const weft_workload& workload) {
  for (const uint32_t ifindex : GuardedBy(netns_cookie)) {
    weft_guard entry{};
    if (bpf_map_lookup_elem(guards_.get(), &ifindex, &entry) != 0) continue;
    SetAddresses(workload, &entry);
    WEFT_RETURN_IF_ERROR(Write(ifindex, entry));
  }
  return absl::OkStatus();
}

absl::Status Guard::Detach(uint64_t netns_cookie) {
  for (const uint32_t ifindex : GuardedBy(netns_cookie)) {
    WEFT_RETURN_IF_ERROR(DetachOne(netns_cookie, ifindex));
  }
  return absl::OkStatus();
}

}  // namespace weft::bpf
