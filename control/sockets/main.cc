// SPDX-License-Identifier: Apache-2.0
// weft-sockets: makes and stamps every socket a proxy uses. Root, one thread, outlives the agent.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "control/bpf/sockets_maps.h"
#include "control/sockets/server.h"
#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/packet_server.h"

namespace weft::sockets {
namespace {

constexpr char kUsage[] =
    "usage: weft-sockets --control PATH --node NAME [--bpffs DIR] [--cgroup DIR] [--log-json]\n"
    "Makes and stamps the sockets of a node's proxies. Started by weft-agent.\n"
    "  --control PATH  its socket (/run/weft/NAME/sockets.sock)\n"
    "  --node NAME     names the node's pinned maps\n"
    "  --bpffs DIR     the BPF file system (/sys/fs/bpf)\n"
    "  --cgroup DIR    entered before the first socket, made if missing; without it the caller has "
    "put us into the cgroup\n"
    "                  whose programs know our sockets\n";

struct Flags {
  std::string node, control, bpffs = "/sys/fs/bpf", cgroup;
  bool log_json = false;
};

// "--name value" or "--name=value"; nullopt after a message.
std::optional<Flags> Parse(int argc, char** argv) {
  Flags flags;
  const std::pair<std::string_view, std::string*> known[] = {{"--node", &flags.node},
                                                             {"--control", &flags.control},
                                                             {"--bpffs", &flags.bpffs},
                                                             {"--cgroup", &flags.cgroup}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    if (argument == "--log-json") {
      flags.log_json = true;
      continue;
    }
    const size_t equals = argument.find('=');
    std::string* target = nullptr;
    for (const auto& [name, value] : known) {
      if (argument.substr(0, equals) == name) target = value;
    }
    if (target == nullptr || (equals == std::string_view::npos && i + 1 == argc)) {
      fprintf(stderr, "weft-sockets: unknown flag or missing value: %s\n%s", argv[i], kUsage);
      return std::nullopt;
    }
    *target =
        equals == std::string_view::npos ? argv[++i] : std::string(argument.substr(equals + 1));
  }
  if (flags.node.empty() || flags.control.empty()) {
    fprintf(stderr, "weft-sockets: --node and --control are required\n%s", kUsage);
    return std::nullopt;
  }
  return flags;
}

absl::Status EnterCgroup(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return ErrnoStatus(errno, "mkdir " + path);
  const std::string procs = path + "/cgroup.procs";
  const int fd = open(procs.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open " + procs);
  const bool written = write(fd, "0", 1) == 1;
  const int error = errno;
  (void)close(fd);
  return written ? absl::OkStatus() : ErrnoStatus(error, "write " + procs);
}

// Opens the maps when they are first needed: the agent may still be loading them.
class MapStamper final : public Stamper {
 public:
  MapStamper(std::string bpffs, std::string node)
      : bpffs_(std::move(bpffs)), node_(std::move(node)) {}

  absl::Status Stamp(int fd, weft_role role, uint32_t workload, uint32_t generation) override {
    WEFT_RETURN_IF_ERROR(Open());
    return maps_->Stamp(fd, {.role = role, .workload = workload, .generation = generation});
  }
  absl::Status PutListener(uint32_t workload, uint16_t port, int fd) override {
    WEFT_RETURN_IF_ERROR(Open());
    return maps_->PutListener(workload, port, fd);
  }
  absl::Status RemoveListener(uint32_t workload, uint16_t port) override {
    WEFT_RETURN_IF_ERROR(Open());
    return maps_->RemoveListener(workload, port);
  }

 private:
  absl::Status Open() {
    if (maps_) return absl::OkStatus();
    auto maps = bpf::SocketMaps::Open(bpffs_, node_);
    if (!maps.ok()) return maps.status();
    maps_.emplace(std::move(*maps));
    return absl::OkStatus();
  }
  std::string bpffs_, node_;
  std::optional<bpf::SocketMaps> maps_;
};

void RaiseFdLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  const std::optional<Flags> flags = Parse(argc, argv);
  if (!flags) return 64;
  ConfigureLog({.json = flags->log_json, .process = "weft-sockets"});
  ipc::WatchStopSignals();
  (void)prctl(PR_SET_DUMPABLE, 0);
  RaiseFdLimit();

  if (geteuid() != 0) {
    LogError("weft-sockets needs root: it makes sockets in other network namespaces");
    return 1;
  }
  if (const absl::Status entered = EnterCgroup(flags->cgroup); !entered.ok()) {
    LogError("cannot enter the cgroup", {{"error", entered.ToString()}});
    return 1;
  }
  auto netns = NetnsSockets::Create();
  if (!netns.ok()) {
    LogError("no home namespace", {{"error", netns.status().ToString()}});
    return 1;
  }
  const std::string& path = flags->control;
  const int listener = ipc::ListenPackets(path, 0600);
  if (listener < 0) {
    LogError("cannot listen", {{"path", path}, {"error", strerror(-listener)}});
    return 1;
  }
  MapStamper stamper(flags->bpffs, flags->node);
  Server server(std::move(*netns), stamper, listener, 0);
  LogInfo("ready", {{"path", path}, {"cgroup", flags->cgroup}});
  while (!ipc::StopRequested()) server.Turn(-1);
  (void)unlink(path.c_str());
  LogInfo("stopped", {{"workloads", std::to_string(server.workload_count())}});
  return 0;
}

}  // namespace
}  // namespace weft::sockets

int main(int argc, char** argv) { return weft::sockets::Main(argc, argv); }
