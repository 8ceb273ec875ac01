// SPDX-License-Identifier: Apache-2.0
// Agent: weft-sockets, weft-keyd and weft-proxy are started or adopted, and restarted when they
// end.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "control/agent/agent.h"
#include "control/bpf/probe.h"
#include "proxy/base/log.h"
#include "proxy/ipc/keyd_control.h"

namespace weft::agent {
namespace {

constexpr std::chrono::milliseconds kFirstBackoff{50};
constexpr std::chrono::milliseconds kLastBackoff{10000};
constexpr std::chrono::seconds kStableAfter{
    60};  // a child that ran this long starts over with the back-off
constexpr std::chrono::seconds kSocketTimeout{10};

// Calls `connect` until it works or the child has had its time. Start-up only: the loop blocks the
// agent's thread.
template <typename Connect>
auto ConnectWithin(std::chrono::seconds limit, Connect connect) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    auto result = connect();
    if (result.ok() || std::chrono::steady_clock::now() >= end) return result;
    usleep(5000);
  }
}

// Descriptors that a child inherits, closed on our side once it runs.
struct Inherited {
  std::vector<int> fds;
  ~Inherited() {
    for (int fd : fds) close(fd);
  }
};

std::string JoinNumbers(int first, uint32_t count) {
  std::string out;
  for (uint32_t i = 0; i < count; ++i) {
    absl::StrAppend(&out, i == 0 ? "" : ",", first + static_cast<int>(i));
  }
  return out;
}

}  // namespace

absl::Status Agent::StartChildren() {
  WEFT_RETURN_IF_ERROR(StartSockets());
  if (certificates_) WEFT_RETURN_IF_ERROR(StartKeyd());
  return StartProxy();
}

ChildSpec Agent::SpecOf(const Child& child) const {
  ChildSpec spec;
  spec.name = child.name;
  spec.argv = {options_.bin_dir + "/" + child.name};
  return spec;
}

absl::Status Agent::StartOrAdopt(Child& child, absl::StatusOr<ChildSpec> spec) {
  if (!spec.ok()) return spec.status();
  auto process =
      ChildProcess::Start(io_.get_executor(), *spec, options_.Path(child.name + ".pid"),
                          [this, &child](const std::string& how) { OnChildExit(child, how); });
  if (!process.ok()) return process.status();
  child.process = std::move(*process);
  child.adopted = false;
  child.started = std::chrono::steady_clock::now();
  LogInfo("started", {{"process", child.name}, {"pid", std::to_string(child.process->pid())}});
  return absl::OkStatus();
}

absl::Status Agent::StartSockets() {
  const std::string socket = options_.Path("sockets.sock");
  sockets_.process =
      ChildProcess::Adopt(io_.get_executor(), options_.Path("weft-sockets.pid"), "weft-sockets",
                          [this](const std::string& how) { OnChildExit(sockets_, how); });
  sockets_.adopted = sockets_.process != nullptr;
  if (!sockets_.adopted) {
    ChildSpec spec = SpecOf(sockets_);
    std::string cgroup2 = options_.cgroup2;
    if (cgroup2.empty()) {
      WEFT_ASSIGN_OR_RETURN(cgroup2, bpf::FindCgroup2Root());
    }
    spec.argv.insert(spec.argv.end(),
                     {"--control", socket, "--node", options_.instance(), "--bpffs", options_.bpffs,
                      "--cgroup", cgroup2 + "/weft/" + options_.instance()});
    WEFT_RETURN_IF_ERROR(StartOrAdopt(sockets_, std::move(spec)));
  }
  auto control =
      ConnectWithin(kSocketTimeout, [&] { return ipc::SocketsControl::Connect(socket); });
  if (!control.ok()) return Annotate(control.status(), "weft-sockets");
  sockets_control_.emplace(std::move(*control));
  return absl::OkStatus();
}

absl::Status Agent::StartKeyd() {
  const std::string socket = options_.Path("keyd.sock");
  keyd_.process =
      ChildProcess::Adopt(io_.get_executor(), options_.Path("weft-keyd.pid"), "weft-keyd",
                          [this](const std::string& how) { OnChildExit(keyd_, how); });
  keyd_.adopted = keyd_.process != nullptr;
  if (!keyd_.adopted) {
    ChildSpec spec = SpecOf(keyd_);
    spec.argv.insert(spec.argv.end(),
                     {"--control", socket, "--uid", std::to_string(options_.keyd_uid)});
    WEFT_RETURN_IF_ERROR(StartOrAdopt(keyd_, std::move(spec)));
  }
  const absl::Status connected =
      ConnectWithin(kSocketTimeout, [&] { return certificates_->UseKeyd(socket); });
  return connected.ok() ? connected : Annotate(connected, "weft-keyd");
}

absl::Status Agent::StartProxy() {
  proxy_.process =
      ChildProcess::Adopt(io_.get_executor(), options_.Path("weft-proxy.pid"), "weft-proxy",
                          [this](const std::string& how) { OnChildExit(proxy_, how); });
  // A proxy holds channels of the sockets and keyd it was started with; without them it is of no
  // use.
  const bool usable = sockets_.adopted && (keyd_.adopted || !certificates_);
  if (proxy_.process != nullptr && usable) {
    proxy_.adopted = true;
    return absl::OkStatus();
  }
  if (proxy_.process != nullptr) proxy_.process->Stop(std::chrono::seconds(5));
  const std::string admin = options_.Path("proxy.sock");
  if (proxy_admin_fd_ < 0) {
    WEFT_ASSIGN_OR_RETURN(proxy_admin_fd_, net::ListenUnix(admin, 0600));
  }
  ChildSpec spec = SpecOf(proxy_);
  Inherited inherited;
  for (uint32_t i = 0; i < options_.proxy_workers; ++i) {
    WEFT_ASSIGN_OR_RETURN(const int fd, sockets_control_->NewChannel(kNodeTenant));
    inherited.fds.push_back(fd);
  }
  if (certificates_) {
    WEFT_ASSIGN_OR_RETURN(ipc::KeydControl keyd,
                          ipc::KeydControl::Connect(options_.Path("keyd.sock")));
    for (uint32_t i = 0; i < options_.proxy_workers; ++i) {
      WEFT_ASSIGN_OR_RETURN(const int fd, keyd.NewChannel(kNodeTenant));
      inherited.fds.push_back(fd);
    }
  }
  spec.fds = inherited.fds;
  spec.fds.push_back(proxy_admin_fd_);
  // It drops root itself, the bounding set of capabilities included, before it does anything else.
  const std::string uid = std::to_string(options_.proxy_uid);
  spec.argv.insert(spec.argv.end(), {"--sandbox", "--uid", uid, "--gid", uid});
  spec.argv.insert(spec.argv.end(), {"--xds", "unix:" + options_.Path("xds.sock"), "--sockets-fds",
                                     JoinNumbers(3, options_.proxy_workers)});
  int next = 3 + static_cast<int>(options_.proxy_workers);
  if (certificates_) {
    spec.argv.insert(spec.argv.end(), {"--keyd-fds", JoinNumbers(next, options_.proxy_workers)});
    next += static_cast<int>(options_.proxy_workers);
  }
  spec.argv.insert(spec.argv.end(), {"--admin-fd", std::to_string(next), "--workers",
                                     std::to_string(options_.proxy_workers), "--node",
                                     options_.node, "--trust-domain", options_.trust_domain});
  return StartOrAdopt(proxy_, std::move(spec));
}

void Agent::OnChildExit(Child& child, const std::string& how) {
  if (stopping_) return;
  const auto ran = std::chrono::steady_clock::now() - child.started;
  child.process.reset();
  child.last_exit = how;
  // The first restart is immediate: connects wait in the listeners' queues that weft-sockets keeps.
  if (ran > kStableAfter) child.backoff = std::chrono::milliseconds(0);
  LogError(
      "a process ended, starting it again",
      {{"process", child.name}, {"how", how}, {"after_ms", std::to_string(child.backoff.count())}});
  if (&child == &proxy_) proxy_gone_since_ = std::chrono::steady_clock::now();
  for (auto& [key, workload] : workloads_) {
    if (workload.state == State::kReady) workload.state = State::kWaitsForProxy;
  }
  Restart(child);
}

void Agent::Restart(Child& child) {
  child.timer = std::make_unique<asio::steady_timer>(io_);
  child.timer->expires_after(child.backoff);
  child.backoff = std::clamp(child.backoff * 2, kFirstBackoff, kLastBackoff);
  child.timer->async_wait([this, &child](boost::system::error_code error) {
    if (error || stopping_) return;
    ++child.restarts;
    AfterRestart(child);
  });
}

// weft-sockets and weft-keyd take what they held with them, so the proxy, which has channels to
// them, starts anew as well.
void Agent::AfterRestart(Child& child) {
  absl::Status status;
  if (&child == &sockets_) {
    sockets_control_.reset();
    status = StartSockets();
    for (auto& [key, workload] : workloads_) {
      if (!status.ok() || workload.netns_fd < 0 || workload.pod.id == 0) continue;
      status = sockets_control_->AddWorkload(workload.pod.id, workload.pod.generation, kNodeTenant,
                                             workload.netns_fd);
    }
  } else if (&child == &keyd_) {
    status = StartKeyd();
  }
  if (status.ok() && &child != &proxy_ && proxy_.process) {
    proxy_.process->Stop(std::chrono::seconds(5));
    proxy_.process.reset();
    proxy_gone_since_ = std::chrono::steady_clock::now();
    ++proxy_.restarts;
  }
  if (status.ok() && !proxy_.process && sockets_control_) status = StartProxy();
  if (!status.ok()) {
    LogError("cannot start a process",
             {{"process", child.name}, {"error", std::string(status.message())}});
    Restart(child);
    return;
  }
  Reconcile();
  PollProxy();
}

}  // namespace weft::agent
