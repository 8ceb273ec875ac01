// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/scratch_node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "control/bpf/netns.h"
#include "control/bpf/probe.h"

namespace weft::bpf {
namespace {

constexpr const char* kAddresses[] = {"10.77.255.1", "10.77.255.2"};
constexpr char kLink[] = "weft0";
constexpr int kPatienceMs = 2000;

absl::StatusOr<UniqueFd> NewNetns() {
  UniqueFd fd;
  int error = 0;
  std::thread thread([&] {
    if (unshare(CLONE_NEWNET) == 0) {
      fd = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    }
    error = errno;
  });
  thread.join();
  if (!fd.ok()) return ErrnoStatus(error, "make a network namespace");
  return fd;
}

// One rtnetlink request, attribute by attribute.
class Request {
 public:
  Request(uint16_t type, uint16_t flags, const ifinfomsg& body) : bytes_(NLMSG_HDRLEN) {
    auto* header = reinterpret_cast<nlmsghdr*>(bytes_.data());
    header->nlmsg_type = type;
    header->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    Append(&body, sizeof body);
  }
  void Put(uint16_t type, const void* data, size_t size) {
    const size_t at = Open(type);
    Append(data, size);
    Close(at);
  }
  size_t Open(uint16_t type) {
    const size_t at = bytes_.size();
    rtattr head{0, type};
    Append(&head, sizeof head);
    return at;
  }
  void Close(size_t at) {
    reinterpret_cast<rtattr*>(&bytes_[at])->rta_len = static_cast<uint16_t>(bytes_.size() - at);
    bytes_.resize(RTA_ALIGN(bytes_.size()));
  }
  void Append(const void* data, size_t size) {
    const auto* from = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }
  absl::Status Send() {
    reinterpret_cast<nlmsghdr*>(bytes_.data())->nlmsg_len = static_cast<uint32_t>(bytes_.size());
    const UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    char answer[4096];
    if (!fd.ok() || send(fd.get(), bytes_.data(), bytes_.size(), 0) < 0 ||
        recv(fd.get(), answer, sizeof answer, 0) <
            static_cast<ssize_t>(NLMSG_LENGTH(sizeof(int)))) {
      return ErrnoStatus(errno, "rtnetlink");
    }
    int error = 0;
    memcpy(&error, NLMSG_DATA(reinterpret_cast<nlmsghdr*>(answer)), sizeof error);
    return error == 0 ? absl::OkStatus() : ErrnoStatus(-error, "make a veth pair");
  }

 private:
  std::vector<char> bytes_;
};

// In the first namespace; the other end is made in the second.
absl::Status MakeVeth(int other_netns) {
  const ifinfomsg nothing{};
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, nothing);
  request.Put(IFLA_IFNAME, kLink, sizeof kLink);
  const size_t info = request.Open(IFLA_LINKINFO);
  request.Put(IFLA_INFO_KIND, "veth", 4);
  const size_t data = request.Open(IFLA_INFO_DATA);
  const size_t peer = request.Open(VETH_INFO_PEER);
  request.Append(&nothing, sizeof nothing);
  request.Put(IFLA_IFNAME, kLink, sizeof kLink);
  request.Put(IFLA_NET_NS_FD, &other_netns, sizeof other_netns);
  request.Close(peer);
  request.Close(data);
  request.Close(info);
  return request.Send();
}

absl::Status BringUp(const char* address) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strcpy(request.ifr_name, kLink);
  auto* in = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
  in->sin_family = AF_INET;
  inet_pton(AF_INET, address, &in->sin_addr);
  if (ioctl(fd.get(), SIOCSIFADDR, &request) != 0) return ErrnoStatus(errno, "set an address");
  inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
  if (ioctl(fd.get(), SIOCSIFNETMASK, &request) != 0) return ErrnoStatus(errno, "set a netmask");
  for (const char* name : {kLink, "lo"}) {
    strcpy(request.ifr_name, name);
    request.ifr_flags = IFF_UP;
    if (ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return ErrnoStatus(errno, "set a link up");
  }
  return absl::OkStatus();
}

// A socket belongs to the cgroup that its process is in.
absl::Status MoveInto(const std::string& cgroup) {
  std::ofstream procs(cgroup + "/cgroup.procs");
  procs << getpid() << std::flush;
  return procs.good() ? absl::OkStatus() : absl::InternalError("cannot enter " + cgroup);
}

absl::StatusOr<UniqueFd> TcpSocketIn(const UniqueFd& netns) {
  UniqueFd fd;
  WEFT_RETURN_IF_ERROR(InNetns(netns.get(), [&] {
    fd = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    return fd.ok() ? absl::OkStatus() : ErrnoStatus(errno, "make a socket");
  }));
  return fd;
}

sockaddr_in ServerAt(uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  inet_pton(AF_INET, kAddresses[1], &out.sin_addr);
  return out;
}

absl::Status WaitFor(const UniqueFd& fd, short events, const char* what) {
  pollfd waiting{fd.get(), events, 0};
  if (poll(&waiting, 1, kPatienceMs) == 1) return absl::OkStatus();
  return absl::DeadlineExceededError(std::string("waited in vain: ") + what);
}

}  // namespace

absl::Status ScratchNode::Traces::CleanUp() const {
  absl::Status status = Kernel::UnloadNode(bpffs_root, node);
  for (const std::string& folder : {cgroup + "/sockets", cgroup}) {
    if (rmdir(folder.c_str()) != 0 && errno != ENOENT) {
      status.Update(ErrnoStatus(errno, "rmdir " + folder));
    }
  }
  return status;
}

absl::StatusOr<ScratchNode::Traces> ScratchNode::PlaceOf(const SelfTestOptions& options) {
  Traces traces;
  traces.bpffs_root = options.bpffs_root;
  traces.node = "self-test-" + std::to_string(getpid());
  std::string root = options.cgroup_root;
  if (root.empty()) {
    WEFT_ASSIGN_OR_RETURN(root, FindCgroup2Root());
  }
  traces.cgroup = root + "/weft-" + traces.node;
  return traces;
}

absl::StatusOr<std::unique_ptr<ScratchNode>> ScratchNode::Create(const Traces& traces) {
  auto out = std::unique_ptr<ScratchNode>(new ScratchNode);
  ScratchNode& node = *out;
  if (mkdir(traces.cgroup.c_str(), 0755) != 0) return ErrnoStatus(errno, "mkdir " + traces.cgroup);
  WEFT_RETURN_IF_ERROR(MoveInto(traces.cgroup));
  for (UniqueFd& netns : node.netns_) {
    WEFT_ASSIGN_OR_RETURN(netns, NewNetns());
  }
  WEFT_RETURN_IF_ERROR(
      InNetns(node.netns_[0].get(), [&] { return MakeVeth(node.netns_[1].get()); }));
  for (int i = 0; i < 2; ++i) {
    WEFT_RETURN_IF_ERROR(InNetns(node.netns_[i].get(), [&] { return BringUp(kAddresses[i]); }));
  }
  KernelConfig config;
  config.node = traces.node;
  config.bpffs_root = traces.bpffs_root;
  config.cgroup_root = traces.cgroup;
  config.sockets_cgroup = traces.cgroup + "/sockets";
  config.sizes = {.workloads = 4,
                  .addresses = 16,
                  .services = 16,
                  .cells = 256,
                  .affinities = 16,
                  .policies = 64,
                  .classes = 16,
                  .handovers = 64,
                  .spliced = 64,
                  .flows = 64,
                  .event_bytes = 64 * 1024,
                  .processes = 64,
                  .process_rules = 64};
  WEFT_ASSIGN_OR_RETURN(node.kernel_, Kernel::Open(config));
  PolicyState policy;
  for (uint32_t id = 1; id <= 2; ++id) {
    policy.subjects[id] = {};
    policy.classes[*IpAddress::Parse(kAddresses[id - 1])] = id;
  }
  WEFT_RETURN_IF_ERROR(node.kernel_->ApplyPolicy(policy).status);
  for (uint32_t id = 1; id <= 2; ++id) {
    const IpAddress ip = *IpAddress::Parse(kAddresses[id - 1]);
    WEFT_ASSIGN_OR_RETURN(
        const uint64_t cookie,
        node.kernel_->AttachWorkload(node.netns_[id - 1].get(), {.id = id,
                                                                 .generation = 1,
                                                                 .identity = id,
                                                                 .flags = WEFT_WL_SPLICE,
                                                                 .ipv4 = ip,
                                                                 .ipv6 = std::nullopt}));
    WEFT_RETURN_IF_ERROR(node.kernel_->SetPeer(ip, {.netns_cookie = cookie,
                                                    .workload = id,
                                                    .identity = id,
                                                    .workload_flags = WEFT_WL_SPLICE}));
  }
  return out;
}

absl::Status ScratchNode::Listen(uint16_t port) {
  WEFT_ASSIGN_OR_RETURN(listener_, TcpSocketIn(netns_[1]));
  const sockaddr_in at = ServerAt(port);
  if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      listen(listener_.get(), 16) != 0) {
    return ErrnoStatus(errno, "listen");
  }
  return absl::OkStatus();
}

absl::StatusOr<ScratchPair> ScratchNode::Connect(uint16_t port) {
  ScratchPair pair;
  WEFT_ASSIGN_OR_RETURN(pair.client, TcpSocketIn(netns_[0]));
  const sockaddr_in to = ServerAt(port);
  if (connect(pair.client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
      errno != EINPROGRESS) {
    return ErrnoStatus(errno, "connect");
  }
  WEFT_RETURN_IF_ERROR(WaitFor(listener_, POLLIN, "for a connection"));
  pair.server = UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!pair.server.ok()) return ErrnoStatus(errno, "accept");
  WEFT_RETURN_IF_ERROR(WaitFor(pair.client, POLLOUT, "to be connected"));
  return pair;
}

void ScratchNode::Settle() {
  kernel_->Consume([](const weft_event&) {});
  while (const auto again = kernel_->RunDueLateInsertions()) std::this_thread::sleep_for(*again);
}

}  // namespace weft::bpf
