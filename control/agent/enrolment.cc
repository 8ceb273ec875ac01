// SPDX-License-Identifier: Apache-2.0
// Agent: workloads come under the mesh, step by step, and leave it.
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "control/agent/agent.h"
#include "control/agent/proxy_status.h"
#include "proxy/base/log.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::milliseconds kProxyPoll{20};
// How long connects may queue in the listeners of a proxy that ended before they are refused
// (DESIGN.md 3).
constexpr std::chrono::seconds kProxyGrace{2};

}  // namespace

std::string Agent::NameOfWorkload(uint32_t id) const {
  for (const auto& [key, workload] : workloads_) {
    if (workload.pod.id == id) return key;
  }
  return "";
}

// A namespace that an earlier agent enrolled keeps its id and generation: its sockets carry them.
void Agent::ChooseNumbers(Enrolled& workload, uint64_t netns_cookie) {
  uint32_t highest = 0;
  for (const auto& [cookie, known] : kernel_->Workloads()) {
    if (cookie == netns_cookie) {
      workload.pod.id = known.id;
      workload.pod.generation = known.generation;
      workload.pod.proxy_ready = proxy_.adopted && (known.flags & WEFT_WL_PROXY_READY) != 0;
      return;
    }
    highest = std::max(highest, known.id);
  }
  for (const auto& [key, other] : workloads_) highest = std::max(highest, other.pod.id);
  workload.pod.id = highest + 1;
  workload.pod.generation = next_generation_++;
}

absl::Status Agent::EnrolSteps(Enrolled& workload, bpf::UniqueFd netns, uint64_t cookie) {
  for (const auto& [key, other] : workloads_) {
    if (&other != &workload && other.pod.netns_cookie == cookie) {
      return absl::AlreadyExistsError(workload.entry.Key() + ": its network namespace is that of " +
                                      key);
    }
  }
  if (workload.netns_fd >= 0) close(workload.netns_fd);
  workload.netns_fd = netns.release();
  const bool in_place = workload.pod.netns_cookie == cookie;
  const bool proxy_ready = workload.pod.proxy_ready;
  workload.pod.netns_cookie = cookie;
  workload.pod.identity = workload.identity;
  workload.pod.addresses = workload.entry.addresses;
  workload.pod.splice = workload.entry.splice;
  workload.pod.resolvers = workload.entry.resolvers;
  ChooseNumbers(workload, cookie);
  if (in_place) workload.pod.proxy_ready = proxy_ready;
  // Until the control plane has spoken there is no policy of it in the kernel, so it may do
  // nothing; what an earlier agent had decided stays.
  uint32_t flags = 0;
  bool adopted = false;
  for (const auto& [known_cookie, known] : kernel_->Workloads()) {
    if (known_cookie != cookie) continue;
    adopted = true;
    flags = known.flags & ~WEFT_WL_ENROLLING;
  }
  KernelWorkload entry{.id = workload.pod.id,
                       .generation = workload.pod.generation,
                       .identity = numbers_.identities.Of(workload.identity),
                       .flags = flags,
                       .addresses = workload.pod.addresses,
                       .resolvers = workload.pod.resolvers};
  SaveNumbers();
  auto attached = kernel_->AttachWorkload(workload.netns_fd, ToConfig(entry));
  if (!attached.ok()) return Annotate(attached.status(), workload.entry.Key());
  writer_->NoteWorkload(cookie, entry);
  synced_ = {};
  WEFT_RETURN_IF_ERROR(GuardStep(workload, adopted));
  if (!sockets_control_) return absl::UnavailableError("weft-sockets is not running");
  WEFT_RETURN_IF_ERROR(sockets_control_->AddWorkload(workload.pod.id, workload.pod.generation,
                                                     kNodeTenant, workload.netns_fd));
  if (certificates_) certificates_->Want(workload.identity);
  return absl::OkStatus();
}

// A workload that could leave the mesh is refused, unless it, or this kernel, leaves no choice.
// Not one that was enrolled before: whoever rules the pod could show another link and be rid of all
// policy. What it has stays, and its status says so.
absl::Status Agent::GuardStep(Enrolled& workload, bool adopted) {
  const auto guard = kernel_->GuardWorkload(workload.pod.netns_cookie);
  workload.bypass = guard.ok() ? guard->problem : std::string(guard.status().message());
  if (workload.bypass.empty()) return absl::OkStatus();
  if (guard.ok() || adopted) {
    LogError("a workload stays enrolled, but may have a way round its guard",
             {{"workload", workload.entry.Key()}, {"why", workload.bypass}});
    return absl::OkStatus();
  }
  const bool cooperative = workload.entry.cooperative && absl::IsFailedPrecondition(guard.status());
  if (cooperative || absl::IsUnimplemented(guard.status())) {
    LogWarning("a workload is enrolled without a guard",
               {{"workload", workload.entry.Key()}, {"why", workload.bypass}});
    return absl::OkStatus();
  }
  absl::Status refused = Annotate(guard.status(), workload.entry.Key());
  if (absl::IsFailedPrecondition(refused)) {
    refused = absl::FailedPreconditionError(
        absl::StrCat(refused.message(), "; weft.dev/guard: cooperative accepts that"));
  }
  refused.Update(kernel_->DetachWorkload(workload.pod.netns_cookie));
  writer_->ForgetWorkload(workload.pod.netns_cookie);
  workload.pod.netns_cookie = 0;
  return refused;
}

absl::Status Agent::Enrol(const WorkloadEntry& entry, const std::string& source) {
  const std::string key = entry.Key();
  auto found = workloads_.find(key);
  if (found != workloads_.end()) {
    if (found->second.entry == entry && found->second.error.empty()) return absl::OkStatus();
    if (found->second.source != source) {
      return absl::AlreadyExistsError(
          key + " is already enrolled by " +
          (found->second.source.empty() ? "POST /workloads" : found->second.source));
    }
  }
  // What cannot be enrolled as it says now leaves what was enrolled before as it is.
  absl::StatusOr<int> netns = OpenNetns(entry);
  bpf::UniqueFd netns_fd(netns.ok() ? *netns : -1);
  absl::StatusOr<uint64_t> cookie =
      netns.ok() ? bpf::NetnsCookie(netns_fd.get()) : absl::StatusOr<uint64_t>(netns.status());
  if (found != workloads_.end()) {
    const bool enrolled = found->second.pod.netns_cookie != 0;
    if (enrolled && !cookie.ok()) return cookie.status();
    // The same namespace is changed in place: without a moment in which it is not in the mesh.
    if (!enrolled || found->second.pod.netns_cookie != *cookie) WEFT_RETURN_IF_ERROR(Remove(key));
  }
  Enrolled& workload = workloads_[key];
  const std::string identity_before =
      std::exchange(workload.identity, entry.Identity(options_.trust_domain));
  workload.entry = entry;
  workload.source = source;
  const absl::Status status =
      cookie.ok() ? EnrolSteps(workload, std::move(netns_fd), *cookie) : cookie.status();
  if (!identity_before.empty()) ReleaseIdentity(identity_before);
  if (!status.ok()) {
    workload.error = std::string(status.message());
    LogError("a workload was not enrolled", {{"workload", key}, {"error", workload.error}});
    return status;
  }
  if (workload.published) Publish(workload);
  LogInfo("enrolled", {{"workload", key},
                       {"id", std::to_string(workload.pod.id)},
                       {"identity", workload.identity},
                       {"splice", std::string(SpliceModeName(entry.splice))}});
  Reconcile();
  return absl::OkStatus();
}

// Its certificate goes once no workload has it.
void Agent::ReleaseIdentity(const std::string& identity) {
  const bool still_used = std::ranges::any_of(
      workloads_, [&](const auto& item) { return item.second.identity == identity; });
  if (!certificates_ || still_used) return;
  certificates_->Unwant(identity);
  xds::CacheBatch batch;
  batch.Remove(xds::kCertificateType, identity);
  cache_.Apply(std::move(batch));
}

absl::Status Agent::Remove(const std::string& key) {
  auto found = workloads_.find(key);
  if (found == workloads_.end()) return absl::NotFoundError(key + " is not enrolled");
  Enrolled workload = std::move(found->second);
  workloads_.erase(found);
  Unpublish(workload);
  absl::Status status;
  if (workload.pod.netns_cookie != 0) {
    if (sockets_control_) status = sockets_control_->RemoveWorkload(workload.pod.id);
    status.Update(kernel_->DetachWorkload(workload.pod.netns_cookie));
    writer_->ForgetWorkload(workload.pod.netns_cookie);
    synced_ = {};
  }
  if (workload.netns_fd >= 0) close(workload.netns_fd);
  ReleaseIdentity(workload.identity);
  LogInfo("released", {{"workload", key}});
  Reconcile();
  return status;
}

void Agent::ScanWorkloads() {
  if (options_.workloads_dir.empty()) return;
  std::set<std::string> files;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(options_.workloads_dir, error)) {
    const std::string extension = item.path().extension();
    if (extension == ".yaml" || extension == ".yml") files.insert(item.path());
  }
  if (error) {
    LogError("cannot read the folder of workloads",
             {{"folder", options_.workloads_dir}, {"error", error.message()}});
    return;  // nothing is released because a folder cannot be read
  }
  file_errors_.clear();
  for (const std::string& file : files) {
    std::ifstream in(file);
    const std::string text(std::istreambuf_iterator<char>(in), {});
    auto entry = ParseWorkloadEntry(text, file);
    if (!entry.ok()) {
      file_errors_[file] = std::string(entry.status().message());
      LogError("a workload entry was refused", {{"error", file_errors_[file]}});
      continue;
    }
    const absl::Status enrolled = Enrol(*entry, file);
    if (!enrolled.ok()) file_errors_[file] = std::string(enrolled.message());
  }
  std::vector<std::string> gone;
  for (const auto& [key, workload] : workloads_) {
    if (!workload.source.empty() && !files.contains(workload.source)) gone.push_back(key);
  }
  for (const std::string& key : gone) {
    const absl::Status removed = Remove(key);
    if (!removed.ok()) LogError("release", {{"error", std::string(removed.message())}});
  }
}

void Agent::WatchWorkloads() {
  if (options_.workloads_dir.empty()) return;
  if (!workloads_watch_) {
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, options_.workloads_dir.c_str(),
                                    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE) < 0) {
      LogError("cannot watch the folder of workloads",
               {{"folder", options_.workloads_dir}, {"error", strerror(errno)}});
      if (fd >= 0) close(fd);
      return;
    }
    workloads_watch_ = std::make_unique<asio::posix::stream_descriptor>(io_, fd);
  }
  workloads_watch_->async_wait(
      asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code error) {
        if (error || stopping_) return;
        std::array<char, 8192> events;
        while (read(workloads_watch_->native_handle(), events.data(), events.size()) > 0) {
        }
        ScanWorkloads();
        WatchWorkloads();
      });
}

void Agent::Publish(Enrolled& workload) {
  model::LocalWorkload out;
  out.uid = workload.pod.uid;
  out.id = workload.pod.id;
  out.generation = workload.pod.generation;
  out.identity = workload.identity;
  out.addresses = workload.pod.addresses;
  out.resolvers = workload.pod.resolvers;
  out.namespace_name = workload.entry.namespace_name;
  out.name = workload.entry.name;
  out.tenant = "node";
  out.policy_epoch = std::max<uint64_t>(workload.policy_epoch, 1);
  xds::CacheBatch batch;
  batch.Put(xds::Encode(out));
  cache_.Apply(std::move(batch));
  workload.published = true;
}

void Agent::Unpublish(Enrolled& workload) {
  if (!workload.published) return;
  xds::CacheBatch batch;
  batch.Remove(xds::kLocalWorkloadType, workload.pod.uid);
  cache_.Apply(std::move(batch));
  workload.published = false;
  workload.pod.proxy_ready = false;
}

void Agent::Advance(Enrolled& workload) {
  if (workload.pod.netns_cookie == 0 || !snapshot_) return;
  const model::Workload* known = nullptr;
  for (const IpAddress& address : workload.entry.addresses) {
    if (known == nullptr) known = snapshot_->FindWorkload(address);
  }
  const bool same = known != nullptr && known->name == workload.entry.name &&
                    known->namespace_name == workload.entry.namespace_name;
  if (!same || known->Identity() != workload.identity) {
    workload.error = known == nullptr ? "the control plane does not know its address"
                     : !same ? "the control plane has its address as " + known->namespace_name +
                                   "/" + known->name
                             : "the control plane has it as " + known->Identity();
    workload.state = State::kWaitsForControl;
    Unpublish(workload);
    workload.pod.uid.clear();
    return;
  }
  workload.error.clear();
  if (workload.pod.uid != known->uid) Unpublish(workload);
  workload.pod.uid = known->uid;
  if (certificates_ && !certificates_->Has(workload.identity)) {
    workload.state = State::kWaitsForCertificate;
    return;
  }
  if (!workload.published) Publish(workload);
  workload.state = workload.pod.proxy_ready ? State::kReady : State::kWaitsForProxy;
}

void Agent::Reconcile() {
  for (auto& [key, workload] : workloads_) Advance(workload);
  SyncKernel();
  MaybeServeProxies();
  const bool waiting = std::ranges::any_of(
      workloads_, [](const auto& item) { return item.second.state == State::kWaitsForProxy; });
  if (!waiting || stopping_) return;
  proxy_poll_timer_.expires_after(kProxyPoll);
  proxy_poll_timer_.async_wait([this](boost::system::error_code error) {
    if (!error && !stopping_) PollProxy();
  });
}

void Agent::SyncKernel() {
  if (!snapshot_) return;  // before the first word of the control plane, what is in the maps stays
  std::vector<LocalPod> pods;
  for (const auto& [key, workload] : workloads_) {
    if (workload.pod.netns_cookie != 0) pods.push_back(workload.pod);
  }
  // Most calls come from waiting for something else: thousands of rules are not compiled for them.
  const bool same = synced_.snapshot == snapshot_ && synced_.pods == pods;
  if (same && kernel_error_.empty()) return;
  const KernelState want = CompileKernelState(
      *snapshot_, pods, {.node = options_.node, .zone = options_.zone}, numbers_);
  SaveNumbers();
  const absl::Status status = writer_->Apply(want);
  synced_ = {snapshot_, std::move(pods)};
  policy_problems_ = want.problems;
  kernel_error_ = std::string(status.message());
  if (!status.ok()) LogError("kernel maps are not up to date", {{"error", kernel_error_}});
  if (status.ok() && synced_.pods.size() == workloads_.size()) kernel_->Settle();
  const std::set<uint32_t> changed = writer_->TakeChanged();
  if (changed.empty()) return;
  NoteCut(kernel_->CutDenied(changed));
  // Streams of tunnels are no connections of the kernel's: the proxy asks for them again.
  for (auto& [key, workload] : workloads_) {
    if (!changed.contains(workload.pod.id)) continue;
    workload.policy_epoch = kernel_->policy_epoch();
    if (workload.published) Publish(workload);
  }
}

void Agent::NoteCut(const absl::StatusOr<bpf::CutReport>& cut) {
  if (!cut.ok()) {
    LogError("connections were not asked again after a change of policy",
             {{"error", std::string(cut.status().message())}});
  } else {
    cut_connections_ += cut->destroyed;
  }
}

void Agent::PollProxy() {
  if (!proxy_.process) return OnProxyStatus("");
  if (polling_proxy_) return;  // what follows its answer looks at everything anew
  polling_proxy_ = true;
  asio::co_spawn(io_, AskProxy(), OnTaskEnd);
}

Task<void> Agent::AskProxy() {
  const pid_t asked = proxy_.process->pid();
  const std::string status =
      co_await StatusOfProxy(io_.get_executor(), options_.Path("proxy.sock"));
  polling_proxy_ = false;
  if (stopping_) co_return;
  // What a proxy said that has been replaced meanwhile counts for nothing.
  const bool same = proxy_.process && proxy_.process->pid() == asked;
  if (same) {
    OnProxyStatus(status);
  } else {
    Reconcile();
  }
}

void Agent::OnProxyStatus(const std::string& status) {
  const std::set<uint32_t> listening = ListeningWorkloads(status);
  const bool in_grace =
      proxy_gone_since_ && std::chrono::steady_clock::now() - *proxy_gone_since_ < kProxyGrace;
  bool all = true;
  for (auto& [key, workload] : workloads_) {
    if (!workload.published) continue;
    const bool up = listening.contains(workload.pod.id);
    all = all && up;
    if (up) workload.state = State::kReady;
    // Within the grace connects still queue at listeners that weft-sockets holds.
    if (up || !in_grace) workload.pod.proxy_ready = up;
  }
  if (all) proxy_gone_since_.reset();
  Reconcile();
}

}  // namespace weft::agent
