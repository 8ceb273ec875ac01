// SPDX-License-Identifier: Apache-2.0
#include "control/agent/workload_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <thread>

namespace weft::agent {
namespace {

std::string Where(const std::string& source, const YAML::Node& node) {
  const YAML::Mark mark = node.Mark();
  return mark.is_null() ? source : absl::StrCat(source, ":", mark.line + 1);
}

absl::Status Bad(const std::string& where, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", why));
}

absl::Status ReadMap(const YAML::Node& node, const std::string& where,
                     std::map<std::string, std::string>* out) {
  if (!node.IsMap()) return Bad(where, "a map of strings is needed");
  for (const auto& item : node) {
    if (!item.second.IsScalar()) return Bad(where, item.first.Scalar() + ": a string is needed");
    (*out)[item.first.Scalar()] = item.second.Scalar();
  }
  return absl::OkStatus();
}

constexpr size_t kMaxResolvers = 3;  // as many as resolv.conf takes (MAXNS)

absl::Status ReadAddresses(const YAML::Node& node, const std::string& name,
                           const std::string& where, std::vector<IpAddress>* out) {
  if (!node.IsSequence()) return Bad(where, name + ": a list is needed");
  for (const YAML::Node& item : node) {
    const auto address = item.IsScalar() ? IpAddress::Parse(item.Scalar()) : std::nullopt;
    if (!address || address->is_loopback() || address->is_unspecified()) {
      return Bad(where, name + ": not a usable IP address: " + YAML::Dump(item));
    }
    out->push_back(*address);
  }
  return absl::OkStatus();
}

absl::Status ReadField(const std::string& name, const YAML::Node& value, const std::string& where,
                       WorkloadEntry* out) {
  if (name == "addresses") return ReadAddresses(value, name, where, &out->addresses);
  if (name == "resolvers") return ReadAddresses(value, name, where, &out->resolvers);
  if (name == "labels") return ReadMap(value, where, &out->labels);
  if (name == "annotations") return ReadMap(value, where, &out->annotations);
  std::string* target = name == "name"             ? &out->name
                        : name == "namespace"      ? &out->namespace_name
                        : name == "serviceAccount" ? &out->service_account
                        : name == "netns"          ? &out->netns
                                                   : nullptr;
  if (target == nullptr) return Bad(where, "unknown field " + name);
  if (!value.IsScalar()) return Bad(where, name + ": a string is needed");
  *target = value.Scalar();
  return absl::OkStatus();
}

bool IsDnsLabel(const std::string& text) {
  return !text.empty() && text.size() <= 253 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
}

absl::Status CheckResolvers(const std::string& source, const WorkloadEntry& e) {
  if (e.resolvers.size() > kMaxResolvers) {
    return Bad(source, absl::StrCat("resolvers: at most ", kMaxResolvers, ", as in resolv.conf"));
  }
  for (const IpAddress& resolver : e.resolvers) {
    if (std::ranges::count(e.addresses, resolver) > 0) {
      return Bad(source, "resolvers: " + resolver.ToString() + " is the workload itself");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEntry(const std::string& source, WorkloadEntry* e) {
  if (e->namespace_name.empty()) e->namespace_name = "default";
  if (e->service_account.empty()) e->service_account = "default";
  for (const auto& [what, value] : {std::pair("name", e->name),
                                    {"namespace", e->namespace_name},
                                    {"serviceAccount", e->service_account}}) {
    if (!IsDnsLabel(value)) {
      return Bad(source,
                 absl::StrCat(what, ": lower-case letters, digits, - and . are needed, not \"",
                              value, "\""));
    }
  }
  if (e->netns.empty() || e->netns[0] != '/')
    return Bad(source, "netns: an absolute path is needed");
  if (e->addresses.empty()) return Bad(source, "addresses: at least one is needed");
  auto guard = e->annotations.find("weft.dev/guard");
  if (guard != e->annotations.end() && guard->second != "on" && guard->second != "cooperative") {
    return Bad(source, "weft.dev/guard: on or cooperative, not \"" + guard->second + "\"");
  }
  e->cooperative = guard != e->annotations.end() && guard->second == "cooperative";
  WEFT_RETURN_IF_ERROR(CheckResolvers(source, *e));
  auto splice = e->annotations.find("weft.dev/splice");
  if (splice == e->annotations.end()) return absl::OkStatus();
  // yaml-cpp keeps the text, so an unquoted on or off arrives as it was written.
  for (const SpliceMode mode : {SpliceMode::kOff, SpliceMode::kOn, SpliceMode::kAuto}) {
    if (splice->second != SpliceModeName(mode)) continue;
    e->splice = mode;
    return absl::OkStatus();
  }
  return Bad(source, "weft.dev/splice: on, off or auto, not \"" + splice->second + "\"");
}

// Runs inside the namespace.
absl::Status CheckInside(const WorkloadEntry& entry) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return ErrnoStatus(errno, "getifaddrs in " + entry.netns);
  bool lo_up = false, owns = false;
  std::string seen;
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if ((i->ifa_flags & IFF_LOOPBACK) != 0) lo_up |= (i->ifa_flags & IFF_UP) != 0;
    if (i->ifa_addr == nullptr) continue;
    const int family = i->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const auto address = SocketAddress::FromSockaddr(
        i->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    if (!address) continue;
    owns |= std::ranges::count(entry.addresses, address->ip) > 0;
    seen += (seen.empty() ? "" : ", ") + address->ip.ToString();
  }
  freeifaddrs(list);
  if (!lo_up) {
    return absl::FailedPreconditionError(
        entry.Key() + ": lo is down in " + entry.netns +
        "; programs cannot be captured without it (ip -n NAME link set lo up)");
  }
  if (!owns) {
    return absl::FailedPreconditionError(entry.Key() + ": " + entry.netns +
                                         " has none of its addresses (it has " + seen + ")");
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view SpliceModeName(SpliceMode mode) {
  switch (mode) {
    case SpliceMode::kOn:
      return "on";
    case SpliceMode::kAuto:
      return "auto";
    case SpliceMode::kOff:
      break;
  }
  return "off";
}

std::string WorkloadEntry::Identity(std::string_view trust_domain) const {
  return absl::StrCat("spiffe://", AbslView(trust_domain), "/ns/", namespace_name, "/sa/",
                      service_account);
}

absl::StatusOr<WorkloadEntry> ParseWorkloadEntry(const std::string& text,
                                                 const std::string& source) {
  WorkloadEntry entry;
  // yaml-cpp reports syntax errors by exceptions only; none leaves this function.
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap())
      return Bad(source, "a workload entry is a map (name, namespace, netns, ...)");
    for (const auto& field : root) {
      WEFT_RETURN_IF_ERROR(
          ReadField(field.first.Scalar(), field.second, Where(source, field.first), &entry));
    }
  } catch (const YAML::Exception& error) {
    return Bad(absl::StrCat(source, ":", error.mark.line + 1), error.msg);
  }
  WEFT_RETURN_IF_ERROR(CheckEntry(source, &entry));
  return entry;
}

absl::StatusOr<int> OpenNetns(const WorkloadEntry& entry) {
  const int fd = open(entry.netns.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, entry.Key() + ": open " + entry.netns);
  absl::Status status;
  std::thread inside([&] {
    if (setns(fd, CLONE_NEWNET) != 0) {
      status = ErrnoStatus(errno, entry.Key() + ": enter " + entry.netns);
    } else {
      status = CheckInside(entry);
    }
  });
  inside.join();
  if (!status.ok()) {
    close(fd);
    return status;
  }
  return fd;
}

}  // namespace weft::agent
