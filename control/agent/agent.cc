// SPDX-License-Identifier: Apache-2.0
#include "control/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "control/bpf/probe.h"
#include "proxy/base/log.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;

// What is missing and what to do about it, one line each.
absl::Status CheckFeatures(const std::string& bpffs) {
  std::string missing;
  for (const bpf::Feature& feature : bpf::ProbeFeatures(bpffs)) {
    if (feature.present || !feature.required) continue;
    absl::StrAppend(&missing, missing.empty() ? "" : "\n", "this kernel lacks ", feature.name, " (",
                    feature.detail, "): ", feature.consequence, ". ", feature.remedy);
  }
  return missing.empty() ? absl::OkStatus() : absl::FailedPreconditionError(missing);
}

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::ifstream in(path);
  if (!in) return ErrnoStatus(errno, "open " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// What outlives the processes and is of no use without the kernel programs.
void RemoveTraces(const Options& options) {
  for (const char* file : {"numbers", "proxy.sock", "keyd.sock", "sockets.sock"}) {
    unlink(options.Path(file).c_str());
  }
  std::string cgroup = options.cgroup2;
  if (cgroup.empty()) cgroup = bpf::FindCgroup2Root().value_or("");
  cgroup += "/weft/" + options.instance();
  if (rmdir(cgroup.c_str()) != 0 && errno != ENOENT) {
    LogWarning("a cgroup is left", {{"path", cgroup}, {"error", strerror(errno)}});
  }
}

}  // namespace

Agent::Agent(asio::io_context& io, Options options)
    : io_(io),
      options_(std::move(options)),
      late_insertion_timer_(io),
      proxy_poll_timer_(io),
      // Grows over restarts of the agent, so that a reused id is told from its predecessor.
      next_generation_(static_cast<uint32_t>(time(nullptr))) {
  sockets_.name = "weft-sockets";
  keyd_.name = "weft-keyd";
  proxy_.name = "weft-proxy";
}

absl::StatusOr<std::unique_ptr<Agent>> Agent::Create(asio::io_context& io, Options options) {
  if (geteuid() != 0) {
    return absl::PermissionDeniedError(
        "weft-agent needs root: it loads kernel programs and enters network namespaces");
  }
  auto agent = std::unique_ptr<Agent>(new Agent(io, std::move(options)));
  const bool plaintext = !agent->options_.xds_plaintext.empty();
  if (!plaintext) {
    WEFT_ASSIGN_OR_RETURN(agent->root_pem_, ReadWhole(agent->options_.control_root));
  }
  WEFT_RETURN_IF_ERROR(agent->LockRunDir());
  WEFT_RETURN_IF_ERROR(CheckFeatures(agent->options_.bpffs));
  agent->LoadNumbers();
  WEFT_RETURN_IF_ERROR(agent->OpenKernel());
  if (!plaintext) {
    Agent* self = agent.get();
    agent->certificates_ = std::make_unique<Certificates>(
        io.get_executor(), agent->options_, agent->root_pem_,
        [self](const model::Certificate& certificate) { self->OnCertificate(certificate); });
  }
  absl::Status started = agent->StartChildren();
  if (started.ok()) started = agent->StartApi();
  if (!started.ok()) {
    agent->StopWhatWeStarted();
    return started;
  }
  agent->StartUpstream();
  agent->ScanWorkloads();
  agent->WatchWorkloads();
  // After the enrolment: requests of the kernel concern workloads that must be known by then.
  agent->WatchEvents();
  return agent;
}

// A start that fails leaves what an earlier agent had running, and nothing else.
void Agent::StopWhatWeStarted() {
  stopping_ = true;
  for (Child* child : {&proxy_, &keyd_, &sockets_}) {
    if (child->process && !child->adopted) child->process->Stop(std::chrono::seconds(2));
  }
}

Agent::~Agent() {
  for (auto& [key, workload] : workloads_) {
    if (workload.netns_fd >= 0) close(workload.netns_fd);
  }
  if (proxy_admin_fd_ >= 0) close(proxy_admin_fd_);
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::Status Agent::LockRunDir() {
  std::error_code error;
  fs::create_directories(options_.run_dir, error);
  if (error) return absl::InternalError("create " + options_.run_dir + ": " + error.message());
  const std::string path = options_.Path("agent.lock");
  lock_fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return ErrnoStatus(errno, "open " + path);
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError("another weft-agent uses " + options_.run_dir +
                                    ": end it first, or choose another directory with --run-dir");
  }
  return absl::OkStatus();
}

absl::Status Agent::OpenKernel() {
  std::string cgroup2 = options_.cgroup2;
  if (cgroup2.empty()) {
    WEFT_ASSIGN_OR_RETURN(cgroup2, bpf::FindCgroup2Root());
  }
  bpf::KernelConfig config;
  config.node = options_.instance();
  config.bpffs_root = options_.bpffs;
  config.cgroup_root = cgroup2;
  config.sockets_cgroup = cgroup2 + "/weft/" + options_.instance();
  config.splice = options_.splice;
  config.self_test = self_test_ =
      bpf::RunSelfTest({.bpffs_root = options_.bpffs, .cgroup_root = cgroup2, .sabotage = {}});
  if (!self_test_.ok()) {
    LogError("the splice is off on this node", {{"because", self_test_.Summary()}});
  } else {
    LogInfo("the splice works on this kernel", {{"self_test", self_test_.Summary()}});
  }
  config.sizes.cells = options_.service_memory_mib * ((1u << 20) / sizeof(weft_cell));
  WEFT_ASSIGN_OR_RETURN(kernel_, bpf::Kernel::Open(config));
  writer_ = std::make_unique<KernelWriter>(*kernel_);
  numbers_.compiler.first_class = kernel_->highest_class();
  for (const std::string& argument : kernel_->Arguments()) {
    numbers_.compiler.arguments.Of(argument);
  }
  if (kernel_->adopted()) LogInfo("adopted the kernel maps of an earlier agent");
  return absl::OkStatus();
}

// The kernel's maps hold our numbers; after a restart they must still mean the same, or an
// identity's verdict would for a moment be another's. Lines "KIND NAME" in the order in which the
// numbers were given.
void Agent::LoadNumbers() {
  std::ifstream in(options_.Path("numbers"));
  std::string line;
  while (std::getline(in, line)) {
    const size_t space = line.find(' ');
    if (space == std::string::npos) continue;
    const std::string name = line.substr(space + 1);
    if (line.starts_with("identity ")) numbers_.identities.Of(name);
    if (line.starts_with("service ")) numbers_.services.Of(name);
    if (line.starts_with("rule ")) numbers_.rules.Of(name);
  }
  numbers_saved_ = numbers_.identities.size() + numbers_.services.size() + numbers_.rules.size();
}

void Agent::SaveNumbers() {
  const size_t total =
      numbers_.identities.size() + numbers_.services.size() + numbers_.rules.size();
  if (total == numbers_saved_) return;
  const std::string path = options_.Path("numbers");
  const std::string temporary = path + ".new";
  std::ofstream out(temporary, std::ios::trunc);
  auto write_all = [&out](const char* kind, const Numbers& numbers) {
    for (uint32_t n = 1; n <= numbers.size(); ++n) out << kind << ' ' << numbers.NameOf(n) << '\n';
  };
  write_all("identity", numbers_.identities);
  write_all("service", numbers_.services);
  write_all("rule", numbers_.rules);
  out.close();
  std::error_code error;
  fs::rename(temporary, path, error);
  if (!out || error) {
    LogError("cannot keep the numbers for the next agent", {{"path", path}});
    return;
  }
  numbers_saved_ = total;
}

void Agent::WatchEvents() {
  // A duplicate: the kernel object owns the other.
  const int fd = fcntl(kernel_->events_fd(), F_DUPFD_CLOEXEC, 3);
  events_watch_ = std::make_unique<asio::posix::stream_descriptor>(io_, fd);
  ConsumeEvents();
  AwaitEvents();
}

void Agent::AwaitEvents() {
  events_watch_->async_wait(asio::posix::stream_descriptor::wait_read,
                            [this](boost::system::error_code error) {
                              if (error || stopping_) return;
                              ConsumeEvents();
                              AwaitEvents();
                            });
}

void Agent::ConsumeEvents() {
  const EventNames names{&numbers_, snapshot_.get(),
                         [this](uint32_t id) { return NameOfWorkload(id); },
                         [this](uint32_t number) { return kernel_->BinaryOf(number); }};
  const int64_t clock_offset = WallMinusMonotonicNs();
  kernel_->Consume(
      [&](const weft_event& event) { events_.Add(FormatEvent(event, names, clock_offset)); },
      [&](const weft_process_event& event) {
        events_.Add(FormatProcessEvent(event, names, clock_offset));
      });
  NoteCut(kernel_->CutDue());
  const std::optional<std::chrono::nanoseconds> again = kernel_->RunDueLateInsertions();
  if (!again) return;
  late_insertion_timer_.expires_after(*again);  // cancels the wait of before
  late_insertion_timer_.async_wait([this](boost::system::error_code error) {
    if (!error && !stopping_) ConsumeEvents();
  });
}

void Agent::Shutdown() {
  if (stopping_) return;
  stopping_ = true;
  LogInfo("shutting down", {{"keep_running", options_.keep_running_on_exit ? "yes" : "no"}});
  if (source_) source_->Stop();
  if (certificates_) certificates_->Stop();
  boost::system::error_code ignored;
  if (events_watch_) events_watch_->close(ignored);
  if (workloads_watch_) workloads_watch_->close(ignored);
  late_insertion_timer_.cancel();
  proxy_poll_timer_.cancel();
  for (Child* child : {&proxy_, &keyd_, &sockets_}) {
    if (child->timer) child->timer->cancel();
    if (options_.keep_running_on_exit || !child->process) continue;
    child->process->Stop(std::chrono::seconds(5));
    unlink(options_.Path(child->name + ".pid").c_str());
  }
  api_.reset();
  if (xds_acceptor_) xds_acceptor_->Stop();
  unlink(options_.Path("agent.sock").c_str());
  unlink(options_.Path("xds.sock").c_str());
  if (!options_.unload_on_exit) return;
  const absl::Status unloaded = kernel_->Unload();
  if (!unloaded.ok()) {
    LogError("unloading the kernel programs", {{"error", std::string(unloaded.message())}});
  }
  RemoveTraces(options_);
}

}  // namespace weft::agent
