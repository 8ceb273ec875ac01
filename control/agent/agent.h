// SPDX-License-Identifier: Apache-2.0
// One node of the mesh: what weft-agent does, wired together. Loads the kernel programs, enrols
// workloads, keeps weft-sockets, weft-keyd and weft-proxy running, takes configuration from
// weft-control and hands it on. Never parses a byte that a pod sent. Thread: the io_context's one.
// Split by concern: agent.cc (start, stop), children.cc, enrolment.cc, upstream.cc, api.cc, why.cc.
#pragma once
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/agent/certificates.h"
#include "control/agent/child_process.h"
#include "control/agent/event_log.h"
#include "control/agent/kernel_sync.h"
#include "control/agent/kernel_writer.h"
#include "control/agent/options.h"
#include "control/agent/why.h"
#include "control/agent/workload_entry.h"
#include "control/bpf/loader.h"
#include "control/bpf/pins.h"
#include "proxy/ipc/local_http.h"
#include "proxy/ipc/sockets_control.h"
#include "proxy/net/listen.h"
#include "xds/client/snapshot_source.h"
#include "xds/server/server.h"

namespace weft::agent {

class Agent final {
 public:
  // Checks what must hold before anything is touched (root, kernel features, no other agent in the
  // run directory), opens the kernel, starts or adopts the processes. The error is for people:
  // cause, consequence, remedy.
  static absl::StatusOr<std::unique_ptr<Agent>> Create(asio::io_context& io, Options options);
  ~Agent();

  // Ends what SIGTERM should end, in order: proxy, keyd, sockets. Then the io_context may be
  // stopped.
  void Shutdown();

 private:
  enum class State : uint8_t { kWaitsForControl, kWaitsForCertificate, kWaitsForProxy, kReady };
  // An enrolled workload, or one that could not be enrolled (`error`).
  struct Enrolled {
    WorkloadEntry entry;
    std::string identity;
    std::string source;  // file it came from; empty: the API
    LocalPod pod;
    int netns_fd = -1;
    bool published = false;     // LocalWorkload is in the cache
    uint64_t policy_epoch = 0;  // see there
    State state = State::kWaitsForControl;
    std::string error;
    std::string bypass;  // why it is not guarded; empty: it is
  };
  // A supervised program.
  struct Child {
    std::string name;
    std::unique_ptr<ChildProcess> process;
    bool adopted = false;
    uint64_t restarts = 0;
    std::chrono::milliseconds backoff{0};
    std::chrono::steady_clock::time_point started{};
    std::string last_exit;
    std::unique_ptr<asio::steady_timer> timer;
  };

  Agent(asio::io_context& io, Options options);
  // A task of the agent must not end by an exception; one that does is a bug.
  static void OnTaskEnd(std::exception_ptr failure);
  // agent.cc
  absl::Status LockRunDir();
  void StopWhatWeStarted();
  absl::Status OpenKernel();
  void LoadNumbers();
  void SaveNumbers();
  void WatchEvents();
  void ConsumeEvents();
  void AwaitEvents();

  // children.cc
  absl::Status StartChildren();
  absl::Status StartSockets();
  absl::Status StartKeyd();
  absl::Status StartProxy();
  absl::Status StartOrAdopt(Child& child, absl::StatusOr<ChildSpec> spec);
  ChildSpec SpecOf(const Child& child) const;
  void OnChildExit(Child& child, const std::string& how);
  void Restart(Child& child);
  void AfterRestart(Child& child);

  // enrolment.cc
  absl::Status Enrol(const WorkloadEntry& entry, const std::string& source);
  // Also of what is enrolled already, with an entry that has changed. Takes `netns`.
  absl::Status EnrolSteps(Enrolled& workload, bpf::UniqueFd netns, uint64_t netns_cookie);
  void ReleaseIdentity(const std::string& identity);
  absl::Status GuardStep(Enrolled& workload, bool adopted);
  absl::Status Remove(const std::string& key);
  void ChooseNumbers(Enrolled& workload, uint64_t netns_cookie);
  void ScanWorkloads();
  void WatchWorkloads();
  // Moves every workload as far as it can go, then brings the kernel's maps in line. Call after any
  // change.
  void Reconcile();
  void Advance(Enrolled& workload);
  void Publish(Enrolled& workload);
  void Unpublish(Enrolled& workload);
  void SyncKernel();
  void NoteCut(const absl::StatusOr<bpf::CutReport>& cut);
  void PollProxy();
  Task<void> AskProxy();
  void OnProxyStatus(const std::string& status);
  std::string NameOfWorkload(uint32_t id) const;

  // upstream.cc
  void StartUpstream();
  void Mirror(const xds::Update& update);
  void OnSnapshot(std::shared_ptr<const model::Snapshot> snapshot);
  void OnCertificate(const model::Certificate& certificate);
  void MaybeServeProxies();
  absl::Status ServeProxies();

  // api.cc
  absl::Status StartApi();
  void HandleApi(ipc::LocalRequest request, ipc::Responder responder);
  // why.cc
  absl::StatusOr<std::string> ExplainWhy(const WhyRequest& request);
  // api.cc
  void AnswerWhy(const ipc::LocalRequest& request, const ipc::Responder& responder);
  Task<void> AnswerStatus(ipc::Responder responder);
  std::string StatusJson(const std::string& of_proxy);
  std::string NotReadyBecause();

  asio::io_context& io_;
  const Options options_;
  int lock_fd_ = -1;
  bool stopping_ = false;

  std::unique_ptr<bpf::Kernel> kernel_;
  std::unique_ptr<KernelWriter> writer_;
  KernelNumbers numbers_;
  size_t numbers_saved_ = 0;
  EventLog events_;
  std::unique_ptr<asio::posix::stream_descriptor> events_watch_;
  asio::steady_timer late_insertion_timer_;
  uint64_t cut_connections_ = 0;
  std::string kernel_error_;
  // What the kernel's maps were last brought in line with.
  struct Synced {
    std::shared_ptr<const model::Snapshot> snapshot;
    std::vector<LocalPod> pods;
  };
  Synced synced_;
  std::vector<std::string> policy_problems_;  // rules that are not in force as written
  bpf::SelfTestReport self_test_;

  Child sockets_, keyd_, proxy_;
  int proxy_admin_fd_ = -1;
  std::optional<ipc::SocketsControl> sockets_control_;

  std::map<std::string, Enrolled> workloads_;  // by "namespace/name"
  std::unique_ptr<asio::posix::stream_descriptor> workloads_watch_;
  asio::steady_timer proxy_poll_timer_;
  bool polling_proxy_ = false;
  std::optional<std::chrono::steady_clock::time_point> proxy_gone_since_;
  uint32_t next_generation_ = 1;
  std::map<std::string, std::string> file_errors_;  // workload files that could not be read

  std::string root_pem_;
  std::unique_ptr<Certificates> certificates_;
  std::unique_ptr<xds::SnapshotSource> source_;
  std::shared_ptr<const model::Snapshot> snapshot_;
  struct LastNack {
    std::string resource, reason, who, time;
  };
  std::optional<LastNack> last_nack_;
  xds::ResourceCache cache_;
  std::shared_ptr<xds::ServerOptions> server_options_;
  std::unique_ptr<net::Acceptor> xds_acceptor_;
  std::unique_ptr<ipc::LocalHttpServer> api_;
};

}  // namespace weft::agent
