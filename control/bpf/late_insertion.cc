// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/late_insertion.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "control/bpf/kernel_maps.h"
#include "control/bpf/netns.h"

namespace weft::bpf {
namespace {

// Ports of which nothing was learned: their next connection asks again.
void ForgetAsked(const UniqueFd& servers, uint32_t workload) {
  for (const weft_server_key& key : Keys<weft_server_key>(servers)) {
    uint32_t state = 0;
    if (key.workload != workload) continue;
    if (bpf_map_lookup_elem(servers.get(), &key, &state) == 0 && state == WEFT_SERVER_ASKED) {
      bpf_map_delete_elem(servers.get(), &key);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<LateInserter>> LateInserter::Create(const PinPaths& paths,
                                                                   const MapSizes& sizes) {
  const EmbeddedObject embedded = LateObject();
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, paths, sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object.get(), "weft_late"));
  auto* inserted = static_cast<uint32_t*>(FindVariable(object.get(), ".bss", "late_inserted"));
  auto* waiting = static_cast<uint32_t*>(FindVariable(object.get(), ".bss", "late_waiting"));
  if (inserted == nullptr || waiting == nullptr) {
    return absl::InternalError("late.bpf.c has no late_inserted or late_waiting");
  }
  LinkPtr link(bpf_program__attach_iter(program, nullptr));
  if (!link) return ErrnoStatus(errno, "attach iter/tcp");
  return std::unique_ptr<LateInserter>(
      new LateInserter(std::move(object), std::move(link), inserted, waiting));
}

void LateInserter::Add(uint64_t netns_cookie, int netns_fd, uint32_t workload) {
  known_[netns_cookie].netns_fd = netns_fd;
  known_[netns_cookie].workload = workload;
}

void LateInserter::Remove(uint64_t netns_cookie) { known_.erase(netns_cookie); }

void LateInserter::Request(uint64_t netns_cookie) {
  if (const auto found = known_.find(netns_cookie); found != known_.end()) {
    found->second.schedule.Ask(WalkSchedule::Clock::now());
  }
}

std::optional<std::chrono::nanoseconds> LateInserter::RunDue(const UniqueFd& servers) {
  std::optional<WalkSchedule::Clock::time_point> next;
  for (auto& [cookie, known] : known_) {
    WalkSchedule& schedule = known.schedule;
    if (schedule.next() && *schedule.next() <= WalkSchedule::Clock::now()) {
      const absl::StatusOr<LateInsertion> run = Run(known.netns_fd);
      schedule.Walked(WalkSchedule::Clock::now(), run.ok() ? std::optional(*run) : std::nullopt);
      // The connections that asked may have ended before the walk, or before this agent started:
      // nothing was learned of their server, and nobody would ask again.
      if (!schedule.next()) ForgetAsked(servers, known.workload);
    }
    if (schedule.next() && (!next || *schedule.next() < *next)) next = schedule.next();
  }
  if (!next) return std::nullopt;
  return std::max<std::chrono::nanoseconds>(*next - WalkSchedule::Clock::now(),
                                            std::chrono::nanoseconds(0));
}

absl::StatusOr<LateInsertion> LateInserter::Run(int netns_fd) {
  *inserted_ = 0;
  *waiting_ = 0;
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
  return LateInsertion{*inserted_, *waiting_};
}

}  // namespace weft::bpf
