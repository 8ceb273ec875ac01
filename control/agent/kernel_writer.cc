// SPDX-License-Identifier: Apache-2.0
#include "control/agent/kernel_writer.h"

#include <utility>

namespace weft::agent {

bpf::WorkloadConfig ToConfig(const KernelWorkload& workload) {
  bpf::WorkloadConfig out{.id = workload.id,
                          .generation = workload.generation,
                          .identity = workload.identity,
                          .flags = workload.flags,
                          .resolvers = workload.resolvers};
  for (const IpAddress& address : workload.addresses) {
    auto& slot = address.is_v4() ? out.ipv4 : out.ipv6;
    if (!slot) slot = address;
  }
  return out;
}

bool KernelWriter::Note(const absl::Status& status, absl::Status* first) {
  ++updates_;
  if (!status.ok() && first->ok()) *first = status;
  return status.ok();
}

void KernelWriter::NoteWorkload(uint64_t netns_cookie, const KernelWorkload& workload) {
  have_.workloads[netns_cookie] = workload;
}

void KernelWriter::ForgetWorkload(uint64_t netns_cookie) { have_.workloads.erase(netns_cookie); }

void KernelWriter::RemoveStrangers(const KernelState& want, absl::Status* first) {
  for (const IpAddress& address : kernel_.Peers()) {
    if (!want.peers.contains(address)) Note(kernel_.RemovePeer(address), first);
  }
  for (uint32_t service : kernel_.Services()) {
    if (!want.services.contains(service)) Note(kernel_.RemoveService(service), first);
  }
}

// The change takes effect as a whole; what could not be written denies, and is tried again.
void KernelWriter::WritePolicy(const KernelState& want, absl::Status* first) {
  const bpf::PolicyReport report = kernel_.ApplyPolicy(want.policy);
  updates_ += report.touched;
  if (!report.status.ok() && first->ok()) *first = report.status;
  closed_ = report.closed;
  policy_entries_ = want.policy.entries.size();
  changed_.insert(report.changed.begin(), report.changed.end());
}

std::set<uint32_t> KernelWriter::TakeChanged() { return std::exchange(changed_, {}); }

void KernelWriter::WritePeers(const KernelState& want, const KernelChanges& changes,
                              absl::Status* first) {
  for (const IpAddress& address : changes.set_peers) {
    const KernelPeer& peer = want.peers.at(address);
    const bpf::PeerConfig config{.netns_cookie = peer.netns_cookie,
                                 .workload = peer.workload,
                                 .identity = peer.identity,
                                 .flags = peer.flags,
                                 .workload_flags = peer.workload_flags};
    if (Note(kernel_.SetPeer(address, config), first)) have_.peers[address] = peer;
  }
}

absl::Status KernelWriter::WriteService(uint32_t id, const KernelService& service) {
  bpf::ServiceConfig config{.id = id,
                            .flags = service.flags,
                            .maglev = service.maglev,
                            .affinity_s = service.affinity_s,
                            .vips = service.vips};
  // The proxy picks behind an L7 service: the kernel needs no ring.
  if ((service.flags & WEFT_SVC_L7) == 0) config.backends = service.backends;
  const absl::Status status = kernel_.SetService(config);
  if (status.ok()) have_.services[id] = service;
  return status;
}

void KernelWriter::WriteServices(const KernelState& want, const KernelChanges& changes,
                                 absl::Status* first) {
  std::vector<uint32_t> again;  // the others and the removals may make room
  for (uint32_t id : changes.set_services) {
    const absl::Status status = WriteService(id, want.services.at(id));
    if (absl::IsResourceExhausted(status)) {
      again.push_back(id);
    } else {
      Note(status, first);
    }
  }
  for (uint32_t id : changes.remove_services) {
    if (Note(kernel_.RemoveService(id), first)) have_.services.erase(id);
  }
  kept_.clear();
  for (uint32_t id : again) {
    const absl::Status status = WriteService(id, want.services.at(id));
    if (absl::IsResourceExhausted(status)) kept_.insert(id);
    Note(status, first);
  }
}

absl::Status KernelWriter::Apply(const KernelState& want) {
  const KernelChanges changes = DiffKernelState(have_, want);
  absl::Status first;
  WritePolicy(want, &first);
  for (uint64_t cookie : changes.workloads) {
    const KernelWorkload& workload = want.workloads.at(cookie);
    if (Note(kernel_.SetWorkload(cookie, ToConfig(workload)), &first)) {
      have_.workloads[cookie] = workload;
    }
  }
  WritePeers(want, changes, &first);
  WriteServices(want, changes, &first);
  for (const IpAddress& address : changes.remove_peers) {
    if (Note(kernel_.RemovePeer(address), &first)) have_.peers.erase(address);
  }
  if (!started_) {
    RemoveStrangers(want, &first);
    started_ = first.ok();
  }
  return first;
}

}  // namespace weft::agent
