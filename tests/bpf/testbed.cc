// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/testbed.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <thread>

#include "control/bpf/netns.h"
#include "control/bpf/probe.h"

namespace weft::bpf {
namespace {

constexpr int kPatienceMs = 5000;

UniqueFd NewNetns() {
  UniqueFd fd;
  std::thread thread([&] {
    if (unshare(CLONE_NEWNET) != 0) return;
    fd = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY));  // inherited by ip, hence no CLOEXEC
  });
  thread.join();
  EXPECT_TRUE(fd.ok()) << "unshare(CLONE_NEWNET): these tests need root";
  return fd;
}

std::string Bpffs() { return "/tmp/wkern-bpf-" + std::to_string(getpid()); }

void MoveTo(const std::string& cgroup) {
  std::ofstream procs(cgroup + "/cgroup.procs");
  procs << getpid() << std::flush;
  ASSERT_TRUE(procs.good()) << cgroup;
}

std::string OwnCgroup() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("0::", 0) == 0) return *FindCgroup2Root() + line.substr(3);
  }
  return *FindCgroup2Root();
}

// A socket belongs to the cgroup its creator is in at that moment.
class InCgroup {
 public:
  explicit InCgroup(const std::string& cgroup) : before_(OwnCgroup()) { MoveTo(cgroup); }
  ~InCgroup() { MoveTo(before_); }

 private:
  std::string before_;
};

}  // namespace

void Ip(const UniqueFd& netns, const std::string& lines) {
  const std::string path = "/tmp/wkern-ip-" + std::to_string(getpid());
  std::ofstream(path) << lines;
  const pid_t pid = fork();
  if (pid == 0) {
    if (setns(netns.get(), CLONE_NEWNET) != 0) _exit(1);
    execlp("ip", "ip", "-batch", path.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  unlink(path.c_str());
  ASSERT_EQ(status, 0) << lines;
}

Network::Network() : node_(NewNetns()) {
  std::string lines = "link add br0 type bridge\nlink set br0 up\n";
  for (int i = 1; i <= 3; ++i) {
    Pod pod;
    pod.netns = NewNetns();
    pod.id = static_cast<uint32_t>(i);
    pod.v4 = *IpAddress::Parse("10.77.0." + std::to_string(i));
    pod.v6 = *IpAddress::Parse("fd77::" + std::to_string(i));
    const std::string port = "wkern" + std::to_string(i);
    pod.host_netns = node_.get();
    pod.host_end = port;
    lines += "link add " + port + " type veth peer name eth0 netns /proc/self/fd/" +
             std::to_string(pod.netns.get()) + "\nlink set " + port + " master br0\nlink set " +
             port + " up\n";
    pods_.push_back(std::move(pod));
  }
  Ip(node_, lines);
  for (Pod& pod : pods_) {
    Ip(pod.netns, "link set lo up\naddr add " + pod.v4.ToString() + "/24 dev eth0\naddr add " +
                      pod.v6.ToString() + "/64 dev eth0 nodad\nlink set eth0 up\n");
    pod.cookie = NetnsCookie(pod.netns.get()).value_or(0);
  }
}

KernelConfig Node::ConfigOf(const std::string& name) {
  KernelConfig config;
  config.node = "wkern-" + name + "-" + std::to_string(getpid());
  config.bpffs_root = Bpffs();
  config.sockets_cgroup = *FindCgroup2Root() + "/" + config.node;
  config.sizes = {.workloads = 16,
                  .addresses = 256,
                  .services = 64,
                  .cells = 4096,
                  .affinities = 256,
                  .policies = 65536,
                  .classes = 1024,
                  .handovers = 4096,
                  .spliced = 4096,
                  .flows = 4096};
  return config;
}

Node::Node(const std::string& name, const std::function<void(KernelConfig&)>& adjust)
    : config_(ConfigOf(name)) {
  if (adjust) adjust(config_);
  absl::StatusOr<std::unique_ptr<Kernel>> kernel = Kernel::Open(config_);
  if (!kernel.ok()) {
    std::cerr << kernel.status() << std::endl;
    (void)Kernel::UnloadNode(config_.bpffs_root, config_.node);
    abort();
  }
  kernel_ = *std::move(kernel);
  absl::StatusOr<SocketMaps> sockets = SocketMaps::Open(config_.bpffs_root, config_.node);
  if (!sockets.ok()) {
    std::cerr << sockets.status() << std::endl;
    abort();
  }
  sockets_ = std::make_unique<SocketMaps>(*std::move(sockets));
}

void Node::Restart() {
  kernel_.reset();
  absl::StatusOr<std::unique_ptr<Kernel>> next = Kernel::Open(config_);
  ASSERT_TRUE(next.ok()) << next.status();
  kernel_ = *std::move(next);
  EXPECT_TRUE(kernel_->adopted());
}

Node::~Node() {
  EXPECT_TRUE(kernel_->Unload().ok());
  kernel_.reset();
  sockets_.reset();
  EXPECT_EQ(rmdir(config_.sockets_cgroup.c_str()), 0) << strerror(errno);
  if (!IsBpffs(config_.bpffs_root)) rmdir(config_.bpffs_root.c_str());  // the last node's
}

void Node::Enrol(Pod& pod, uint32_t flags) {
  EnrolUnguarded(pod, flags);
  const absl::StatusOr<GuardReport> guard = kernel_->GuardWorkload(pod.cookie, pod.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(guard->interfaces, std::vector<std::string>{"eth0"});
}

void Node::EnrolUnguarded(Pod& pod, uint32_t flags) {
  WorkloadConfig workload{.id = pod.id,
                          .generation = kGeneration,
                          .identity = IdentityOf(pod),
                          .flags = flags,
                          .ipv4 = pod.v4,
                          .ipv6 = pod.v6};
  const absl::StatusOr<uint64_t> cookie = kernel_->AttachWorkload(pod.netns.get(), workload);
  ASSERT_TRUE(cookie.ok()) << cookie.status();
  EXPECT_EQ(*cookie, pod.cookie);
  Announce(pod, flags);
}

void Node::Permit(const Pod& pod, const SubjectState& state) {
  policy_.subjects[pod.id] = state;
  for (const IpAddress& ip : {pod.v4, pod.v6}) policy_.classes[ip] = ClassOf(pod);
  Apply();
}

PolicyReport Node::Apply() {
  PolicyReport report = kernel_->ApplyPolicy(policy_);
  EXPECT_TRUE(report.status.ok()) << report.status;
  return report;
}

void Node::Announce(const Pod& pod, uint32_t flags) {
  if (!policy_.subjects.contains(pod.id)) Permit(pod);
  Apply();
  const PeerConfig peer{.netns_cookie = pod.cookie,
                        .workload = pod.id,
                        .identity = IdentityOf(pod),
                        .workload_flags = flags};
  ASSERT_TRUE(kernel_->SetPeer(pod.v4, peer).ok());
  ASSERT_TRUE(kernel_->SetPeer(pod.v6, peer).ok());
}

UniqueFd Node::Stamped(const Pod& pod, weft_role role, int family) {
  const InCgroup cgroup(config_.sockets_cgroup);
  UniqueFd fd = TcpSocket(pod, family, Blocking::kNo);
  EXPECT_TRUE(sockets_->Stamp(fd.get(), {role, pod.id, kGeneration}).ok());
  return fd;
}

Node::Listeners Node::Listen(const Pod& pod) {
  Listeners all;
  const std::pair<UniqueFd*, uint16_t> wanted[] = {{&all.outbound, WEFT_PORT_OUTBOUND},
                                                   {&all.inbound, WEFT_PORT_INBOUND},
                                                   {&all.hbone, WEFT_PORT_HBONE}};
  for (const auto& [fd, port] : wanted) {
    *fd = Stamped(pod, WEFT_ROLE_LISTENER, AF_INET6);
    sockaddr_storage address{};
    const socklen_t length = SocketAddress{IpAddress{}, port}.ToSockaddr(AF_INET6, &address);
    EXPECT_EQ(bind(fd->get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
    EXPECT_EQ(listen(fd->get(), 128), 0);
    if (port != WEFT_PORT_OUTBOUND) {
      const absl::Status put = sockets_->PutListener(pod.id, port, fd->get());
      EXPECT_TRUE(put.ok()) << put;
    }
  }
  return all;
}

std::vector<weft_event> Node::Events() {
  std::vector<weft_event> all;
  kernel_->Consume([&](const weft_event& event) { all.push_back(event); });
  return all;
}

weft_event Node::WaitEvent(uint32_t kind) {
  weft_event found{};
  for (int i = 0; i < 100 && found.kind == 0; ++i) {
    pollfd waiting{kernel_->events_fd(), POLLIN, 0};
    poll(&waiting, 1, kPatienceMs / 100);
    for (const weft_event& event : Events()) {
      if (event.kind == kind) found = event;
    }
  }
  EXPECT_EQ(found.kind, kind) << "no such event";
  return found;
}

UniqueFd TcpSocket(const Pod& pod, int family, Blocking blocking) {
  UniqueFd fd;
  const absl::Status made = InNetns(pod.netns.get(), [&] {
    fd = UniqueFd(socket(
        family, SOCK_STREAM | SOCK_CLOEXEC | (blocking == Blocking::kNo ? SOCK_NONBLOCK : 0), 0));
    return absl::OkStatus();
  });
  EXPECT_TRUE(made.ok() && fd.ok());
  return fd;
}

UniqueFd Listener(const Pod& pod, uint16_t port, int family) {
  UniqueFd fd = TcpSocket(pod, family, Blocking::kNo);
  const int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_storage address{};
  IpAddress any;
  if (family == AF_INET) any = *IpAddress::Parse("0.0.0.0");
  const socklen_t length = SocketAddress{any, port}.ToSockaddr(family, &address);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
  EXPECT_EQ(listen(fd.get(), 1024), 0);
  return fd;
}

bool WaitFor(const UniqueFd& fd, short events) {
  pollfd waiting{fd.get(), events, 0};
  return poll(&waiting, 1, kPatienceMs) == 1;
}

int Connect(const UniqueFd& fd, const SocketAddress& to, int family) {
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(family, &address);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!WaitFor(fd, POLLOUT)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

UniqueFd Accept(const UniqueFd& listener, Blocking blocking, SocketAddress* shown) {
  if (!WaitFor(listener, POLLIN)) {
    ADD_FAILURE() << "nothing to accept";
    return UniqueFd();
  }
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  UniqueFd fd(accept4(listener.get(), reinterpret_cast<sockaddr*>(&address), &length,
                      SOCK_CLOEXEC | (blocking == Blocking::kNo ? SOCK_NONBLOCK : 0)));
  EXPECT_TRUE(fd.ok()) << strerror(errno);
  if (shown != nullptr) {
    *shown = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address), length)
                 .value_or(SocketAddress{});
  }
  return fd;
}

bool NothingToAccept(const UniqueFd& listener, int milliseconds) {
  pollfd waiting{listener.get(), POLLIN, 0};
  return poll(&waiting, 1, milliseconds) == 0;
}

SocketAddress PeerName(const UniqueFd& fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  EXPECT_EQ(getpeername(fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0)
      << strerror(errno);
  return SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address), length)
      .value_or(SocketAddress{});
}

SocketAddress SocketName(const UniqueFd& fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  return SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address), length)
      .value_or(SocketAddress{});
}

void SendAll(const UniqueFd& fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN && WaitFor(fd, POLLOUT)) continue;
    ASSERT_GT(n, 0) << strerror(errno);
    sent += static_cast<size_t>(n);
  }
}

std::string ReceiveSome(const UniqueFd& fd, size_t bytes) {
  std::string all(bytes, '\0');
  size_t got = 0;
  while (got < bytes && WaitFor(fd, POLLIN)) {
    const ssize_t n = recv(fd.get(), all.data() + got, bytes - got, 0);
    if (n < 0 && errno == EAGAIN) continue;
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  all.resize(got);
  return all;
}

}  // namespace weft::bpf
