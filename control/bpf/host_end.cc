// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/host_end.h"

#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>

#include "control/bpf/netns.h"

namespace weft::bpf {
namespace {

struct CloseNetlink {
  void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
};
using Netlink = std::unique_ptr<mnl_socket, CloseNetlink>;

struct Link {
  uint32_t ifindex = 0;
  uint32_t flags = 0;
  std::string name, kind;
  std::array<uint8_t, 6> mac{};
  uint32_t lower = 0;           // IFLA_LINK: a veth's peer, the device below a VLAN; 0: none
  std::optional<int32_t> nsid;  // of the namespace that has `lower`, if it is another one
};

// Sends one request and hands every answer to `visit`.
absl::Status Ask(const Netlink& socket, nlmsghdr* request,
                 const std::function<void(const nlmsghdr*)>& visit) {
  request->nlmsg_seq = 1;
  if (mnl_socket_sendto(socket.get(), request, request->nlmsg_len) < 0) {
    return ErrnoStatus(errno, "netlink request");
  }
  std::vector<char> buffer(32768);
  for (;;) {
    const ssize_t got = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
    if (got < 0) return ErrnoStatus(errno, "netlink answer");
    const mnl_cb_t call = [](const nlmsghdr* message, void* data) -> int {
      (*static_cast<const std::function<void(const nlmsghdr*)>*>(data))(message);
      return MNL_CB_OK;
    };
    const int more = mnl_cb_run(buffer.data(), static_cast<size_t>(got), request->nlmsg_seq,
                                mnl_socket_get_portid(socket.get()), call,
                                const_cast<void*>(static_cast<const void*>(&visit)));
    if (more < 0) return ErrnoStatus(errno, "netlink answer");
    if (more == MNL_CB_STOP || (request->nlmsg_flags & NLM_F_DUMP) == 0) return absl::OkStatus();
  }
}

using VisitAttribute = std::function<void(const nlattr*)>;

int CallVisit(const nlattr* attribute, void* data) {
  (*static_cast<const VisitAttribute*>(data))(attribute);
  return MNL_CB_OK;
}

void* AsData(const VisitAttribute& visit) {
  return const_cast<void*>(static_cast<const void*>(&visit));
}

Link ParseLink(const nlmsghdr* message) {
  Link link;
  const auto* info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  link.ifindex = static_cast<uint32_t>(info->ifi_index);
  link.flags = info->ifi_flags;
  const VisitAttribute kind = [&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND) link.kind = mnl_attr_get_str(attribute);
  };
  const VisitAttribute visit = [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case IFLA_IFNAME:
        link.name = mnl_attr_get_str(attribute);
        break;
      case IFLA_ADDRESS:
        if (mnl_attr_get_payload_len(attribute) == link.mac.size()) {
          memcpy(link.mac.data(), mnl_attr_get_payload(attribute), link.mac.size());
        }
        break;
      case IFLA_LINK:
        link.lower = mnl_attr_get_u32(attribute);
        break;
      case IFLA_LINK_NETNSID:
        link.nsid = static_cast<int32_t>(mnl_attr_get_u32(attribute));
        break;
      case IFLA_LINKINFO:
        mnl_attr_parse_nested(attribute, CallVisit, AsData(kind));
        break;
      default:
        break;
    }
  };
  mnl_attr_parse(message, sizeof(ifinfomsg), CallVisit, AsData(visit));
  return link;
}

absl::Status ListLinks(const Netlink& socket, std::vector<Link>* out) {
  std::array<char, 256> buffer{};
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETLINK;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg));
  return Ask(socket, request, [out](const nlmsghdr* message) {
    if (message->nlmsg_type == RTM_NEWLINK) out->push_back(ParseLink(message));
  });
}

// The number that this namespace has for another one; nullopt: none yet, so no link leads there.
absl::Status NumberOfNetns(const Netlink& socket, int netns_fd, std::optional<int32_t>* out) {
  std::array<char, 256> buffer{};
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETNSID;
  request->nlmsg_flags = NLM_F_REQUEST;
  mnl_nlmsg_put_extra_header(request, sizeof(rtgenmsg));
  mnl_attr_put_u32(request, NETNSA_FD, static_cast<uint32_t>(netns_fd));
  return Ask(socket, request, [out](const nlmsghdr* message) {
    const VisitAttribute visit = [out](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) != NETNSA_NSID) return;
      const auto number = static_cast<int32_t>(mnl_attr_get_u32(attribute));
      if (number != NETNSA_NSID_NOT_ASSIGNED) *out = number;
    };
    mnl_attr_parse(message, sizeof(rtgenmsg), CallVisit, AsData(visit));
  });
}

std::optional<IpAddress> LinkLocalOf(const std::string& name) {
  std::optional<IpAddress> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET6 || name != i->ifa_name) {
      continue;
    }
    const auto address = SocketAddress::FromSockaddr(i->ifa_addr, sizeof(sockaddr_in6));
    if (address && address->ip.bytes[0] == 0xfe && (address->ip.bytes[1] & 0xc0) == 0x80) {
      found = address->ip;
    }
  }
  freeifaddrs(list);
  return found;
}

// The one that the kernel makes of the MAC, where none is configured yet.
IpAddress LinkLocalFromMac(const std::array<uint8_t, 6>& mac) {
  IpAddress out = *IpAddress::Parse("fe80::");
  const std::array<uint8_t, 8> id{
      static_cast<uint8_t>(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
  std::ranges::copy(id, out.bytes.begin() + 8);
  return out;
}

// Kinds that end in this namespace: what is sent there comes out of another interface of it, or of
// none. The others lead out in ways that nobody guards.
bool EndsHere(const Link& link) {
  if ((link.flags & IFF_LOOPBACK) != 0) return true;
  if (link.nsid) return false;
  static constexpr std::string_view kKinds[] = {
      "veth",      "bridge", "dummy",     "ifb", "vlan", "macvlan", "ipvlan", "macvtap", "vrf",
      "bond",      "team",   "tun",       "sit", "ipip", "ip6tnl",  "gre",    "gretap",  "ip6gre",
      "ip6gretap", "erspan", "ip6erspan", "vti", "vti6", "vxlan",   "geneve", "nlmon",   "vcan"};
  return std::ranges::find(kKinds, link.kind) != std::end(kKinds);
}

std::string Describe(const Link& link) {
  return link.name + " (" + (link.kind.empty() ? "a physical interface" : link.kind) + ")";
}

// Runs inside the pod's namespace.
absl::Status Find(int host_netns, HostEnds* out) {
  const Netlink socket(mnl_socket_open(NETLINK_ROUTE));
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) != 0) {
    return ErrnoStatus(errno, "netlink socket");
  }
  std::vector<Link> links;
  std::optional<int32_t> host;
  WEFT_RETURN_IF_ERROR(ListLinks(socket, &links));
  WEFT_RETURN_IF_ERROR(NumberOfNetns(socket, host_netns, &host));
  std::string others;
  for (const Link& link : links) {
    if (link.kind == "veth" && link.nsid && host && *link.nsid == *host && link.lower != 0) {
      const std::optional<IpAddress> configured = LinkLocalOf(link.name);
      out->ends.push_back(HostEnd{link.lower, link.name, link.mac,
                                  configured ? *configured : LinkLocalFromMac(link.mac)});
    } else if (!EndsHere(link)) {
      others += (others.empty() ? "" : ", ") + Describe(link);
    }
  }
  if (!others.empty()) {
    out->problem =
        others + (others.find(',') == std::string::npos ? " leads" : " lead") +
        " out of the pod where no guard can be: only a veth whose other end is in the agent's "
        "network namespace can be guarded";
  } else if (out->ends.empty()) {
    out->problem = "it has no veth whose other end is in the agent's network namespace";
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HostEnds> FindHostEnds(int pod_netns, int host_netns) {
  HostEnds found;
  WEFT_RETURN_IF_ERROR(InNetns(pod_netns, [&] { return Find(host_netns, &found); }));
  return found;
}

}  // namespace weft::bpf
