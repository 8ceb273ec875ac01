// SPDX-License-Identifier: Apache-2.0
#include "control/cli/topology.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_join.h"
#include "control/cli/bpf_objects.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

absl::Status Ip(std::vector<std::string> arguments) {
  std::vector<std::string> argv = {"ip"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  WEFT_ASSIGN_OR_RETURN(RunResult result, Run(argv));
  if (!result.ok()) {
    return absl::InternalError(absl::StrCat(absl::StrJoin(argv, " "), ": ", result.err));
  }
  return absl::OkStatus();
}

// Sets a sysctl of a namespace; /proc/sys/net follows the namespace of whoever opens it.
absl::Status SetSysctl(const std::string& netns, const std::string& key, const std::string& value) {
  RunOptions options;
  options.netns = netns;
  WEFT_ASSIGN_OR_RETURN(RunResult result, Run({"sh", "-c", "echo " + value + " > /proc/sys/" + key},
                                              std::move(options)));
  if (!result.ok())
    return absl::InternalError("sysctl " + key + " in " + netns + ": " + result.err);
  return absl::OkStatus();
}

bool IsIpv6(const std::string& address) { return address.find(':') != std::string::npos; }

absl::Status AddAddress(const std::string& netns, const std::string& cidr,
                        const std::string& device) {
  std::vector<std::string> argv = {"-n", netns, "addr", "add", cidr, "dev", device};
  // Duplicate address detection would hold the address back for a second; nobody else is here.
  if (IsIpv6(cidr)) argv.emplace_back("nodad");
  return Ip(std::move(argv));
}

struct Entry {
  std::string kind, what;
};

std::vector<Entry> ReadJournal(const std::string& path) {
  std::vector<Entry> entries;
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    const size_t space = line.find(' ');
    if (space != std::string::npos)
      entries.push_back({line.substr(0, space), line.substr(space + 1)});
  }
  return entries;
}

ProcessId ParseProcess(const std::string& text) {
  ProcessId id;
  std::istringstream in(text);
  in >> id.pid >> id.start_time;
  return id;
}

bool IsMounted(const std::string& path) {
  std::ifstream in("/proc/self/mountinfo");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, at;
    fields >> id >> parent >> device >> root >> at;
    if (at == path) return true;
  }
  return false;
}

bool IsOurNetnsInode(const std::vector<std::pair<dev_t, ino_t>>& ours, const struct stat& st) {
  for (const auto& [device, inode] : ours) {
    if (st.st_dev == device && st.st_ino == inode) return true;
  }
  return false;
}

// Processes whose network namespace is one of those named.
std::vector<ProcessId> ProcessesIn(const std::vector<std::string>& namespaces) {
  std::vector<std::pair<dev_t, ino_t>> ours;
  for (const std::string& name : namespaces) {
    struct stat st;
    if (stat(Topology::NetnsPath(name).c_str(), &st) == 0) ours.push_back({st.st_dev, st.st_ino});
  }
  std::vector<ProcessId> found;
  std::error_code error;
  for (const auto& item : fs::directory_iterator("/proc", error)) {
    const pid_t pid = atoi(item.path().filename().c_str());
    struct stat st;
    if (pid <= 0 || stat((item.path() / "ns/net").c_str(), &st) != 0) continue;
    if (IsOurNetnsInode(ours, st)) found.push_back({pid, ProcessStartTime(pid)});
  }
  return found;
}

std::vector<std::string> NamespacesWithPrefix(const std::string& prefix) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& item : fs::directory_iterator("/run/netns", error)) {
    const std::string name = item.path().filename();
    if (name.rfind(prefix, 0) == 0) found.push_back(name);
  }
  return found;
}

absl::Status RemoveCgroupTree(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return absl::OkStatus();
  std::vector<std::string> inner;
  for (const auto& item : fs::directory_iterator(path, error)) {
    if (item.is_directory(error)) inner.push_back(item.path());
  }
  for (const std::string& child : inner) WEFT_RETURN_IF_ERROR(RemoveCgroupTree(child));
  int failure = 0;
  // A cgroup stays busy for a moment after its last process ended.
  const bool gone = WaitFor(std::chrono::seconds(3), [&] {
    if (rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
    failure = errno;
    return false;
  });
  return gone ? absl::OkStatus() : ErrnoStatus(failure, "rmdir " + path);
}

}  // namespace

std::string FindCgroup2() {
  std::ifstream in("/proc/self/mounts");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string device, at, type;
    fields >> device >> at >> type;
    if (type == "cgroup2") return at;
  }
  return "";
}

Topology::Topology(std::string prefix, std::string dir)
    : prefix_(std::move(prefix)), dir_(std::move(dir)) {}

absl::StatusOr<std::unique_ptr<Topology>> Topology::Create(std::string prefix, std::string dir) {
  std::error_code error;
  if (fs::exists(dir + "/journal", error)) {
    return absl::FailedPreconditionError(dir +
                                         "/journal exists: still running, or left by a crash");
  }
  fs::create_directories(dir + "/logs", error);
  if (error) return absl::InternalError("create " + dir + ": " + error.message());
  auto topology = std::unique_ptr<Topology>(new Topology(std::move(prefix), std::move(dir)));
  WEFT_RETURN_IF_ERROR(topology->Record("prefix", topology->prefix_));
  return topology;
}

absl::StatusOr<std::unique_ptr<Topology>> Topology::Open(std::string prefix, std::string dir) {
  std::error_code error;
  if (!fs::exists(dir, error)) return absl::NotFoundError("no " + dir);
  return std::unique_ptr<Topology>(new Topology(std::move(prefix), std::move(dir)));
}

absl::Status Topology::Record(const std::string& kind, const std::string& what) {
  std::ofstream out(dir_ + "/journal", std::ios::app);
  out << kind << ' ' << what << '\n';
  out.flush();
  return out ? absl::OkStatus() : absl::InternalError("cannot write " + dir_ + "/journal");
}

absl::Status Topology::AddNamespace(const std::string& netns, bool forwarding) {
  WEFT_RETURN_IF_ERROR(Record("netns", netns));
  WEFT_RETURN_IF_ERROR(Ip({"netns", "add", netns}));
  WEFT_RETURN_IF_ERROR(Ip({"-n", netns, "link", "set", "lo", "up"}));
  if (!forwarding) return absl::OkStatus();
  WEFT_RETURN_IF_ERROR(SetSysctl(netns, "net/ipv4/ip_forward", "1"));
  return SetSysctl(netns, "net/ipv6/conf/all/forwarding", "1");
}

absl::Status Topology::AddBridge(const std::string& netns, const std::string& bridge,
                                 const std::string& cidr) {
  WEFT_RETURN_IF_ERROR(Ip({"-n", netns, "link", "add", bridge, "type", "bridge"}));
  WEFT_RETURN_IF_ERROR(Ip({"-n", netns, "link", "set", bridge, "up"}));
  if (cidr.empty()) return absl::OkStatus();
  return AddAddress(netns, cidr, bridge);
}

absl::Status Topology::AddVeth(const End& a, const End& b) {
  WEFT_RETURN_IF_ERROR(Ip({"-n", a.netns, "link", "add", a.device, "type", "veth", "peer", "name",
                           b.device, "netns", b.netns}));
  for (const End* end : {&a, &b}) {
    if (!end->bridge.empty()) {
      WEFT_RETURN_IF_ERROR(
          Ip({"-n", end->netns, "link", "set", end->device, "master", end->bridge}));
    }
    if (!end->cidr.empty()) {
      WEFT_RETURN_IF_ERROR(AddAddress(end->netns, end->cidr, end->device));
    }
    WEFT_RETURN_IF_ERROR(Ip({"-n", end->netns, "link", "set", end->device, "up"}));
  }
  return absl::OkStatus();
}

absl::Status Topology::AddRoute(const std::string& netns, const std::string& to,
                                const std::string& via) {
  return Ip({"-n", netns, IsIpv6(via) ? "-6" : "-4", "route", "add", to, "via", via});
}

absl::StatusOr<ProcessId> Topology::Start(const std::string& name, std::vector<std::string> argv,
                                          const std::string& netns, uint32_t uid) {
  SpawnOptions options;
  options.netns = netns;
  options.log_file = LogFile(name);
  options.uid = uid;
  WEFT_ASSIGN_OR_RETURN(const pid_t pid, Spawn(std::move(argv), std::move(options)));
  const ProcessId id{pid, ProcessStartTime(pid)};
  WEFT_RETURN_IF_ERROR(Record("process", absl::StrCat(pid, " ", id.start_time, " ", name)));
  return id;
}

void Topology::Stop(const ProcessId& process, std::chrono::milliseconds grace) {
  EndProcesses({process}, grace);
}

absl::StatusOr<std::string> Topology::MountBpf() {
  const std::string at = dir_ + "/bpf";
  std::error_code error;
  fs::create_directories(at, error);
  WEFT_RETURN_IF_ERROR(Record("mount", at));
  if (mount("bpf", at.c_str(), "bpf", 0, nullptr) != 0)
    return ErrnoStatus(errno, "mount bpf at " + at);
  return at;
}

absl::Status Topology::WillRemove(const std::string& path) { return Record("path", path); }
absl::Status Topology::WillRemoveCgroup(const std::string& path) { return Record("cgroup", path); }

absl::Status Topology::Down() {
  const std::vector<Entry> entries = ReadJournal(dir_ + "/journal");
  std::vector<std::string> namespaces;
  std::vector<ProcessId> processes;
  for (auto e = entries.rbegin(); e != entries.rend(); ++e) {
    if (e->kind == "netns") namespaces.push_back(e->what);
    if (e->kind == "process") processes.push_back(ParseProcess(e->what));
  }
  const std::vector<BpfObject> kernel_objects = PinnedBelow(dir_ + "/bpf");
  // Ours first (agents end their children in order), then whatever else lives in the namespaces.
  EndProcesses(processes, std::chrono::seconds(10));
  EndProcesses(ProcessesIn(namespaces), std::chrono::seconds(3));
  std::vector<std::string> failures;
  auto note = [&failures](const absl::Status& status) {
    if (!status.ok()) failures.emplace_back(std::string(status.message()));
  };
  std::error_code error;
  for (auto e = entries.rbegin(); e != entries.rend(); ++e) {
    if (e->kind == "mount" && IsMounted(e->what) && umount2(e->what.c_str(), MNT_DETACH) != 0) {
      note(ErrnoStatus(errno, "umount " + e->what));
    } else if (e->kind == "path") {
      fs::remove_all(e->what, error);
      if (error) note(absl::InternalError("remove " + e->what + ": " + error.message()));
    } else if (e->kind == "cgroup") {
      note(RemoveCgroupTree(e->what));
    } else if (e->kind == "netns" && fs::exists(NetnsPath(e->what), error)) {
      note(Ip({"netns", "del", e->what}));
    }
  }
  for (const BpfObject& object : kernel_objects) {
    // The kernel frees them a moment after their last reference went.
    if (!WaitFor(std::chrono::seconds(5), [&] { return !StillExists(object); })) {
      failures.push_back("the kernel still has what was pinned as " + object.pin);
    }
  }
  // Shared parents, if nobody else has anything there; refused otherwise, which is fine.
  rmdir("/run/weft");
  rmdir((FindCgroup2() + "/weft").c_str());
  if (!failures.empty()) return absl::InternalError(absl::StrJoin(failures, "; "));
  fs::remove_all(dir_, error);
  if (error) return absl::InternalError("remove " + dir_ + ": " + error.message());
  return absl::OkStatus();
}

std::vector<std::string> Topology::Leftovers(const std::string& prefix, const std::string& dir) {
  std::vector<std::string> left;
  const std::vector<std::string> namespaces = NamespacesWithPrefix(prefix);
  for (const std::string& name : namespaces) left.push_back("namespace " + name);
  for (const ProcessId& p : ProcessesIn(namespaces))
    left.push_back(absl::StrCat("process ", p.pid));
  std::error_code error;
  for (const auto& item : fs::directory_iterator("/sys/class/net", error)) {
    const std::string name = item.path().filename();
    if (name.rfind(prefix, 0) == 0) left.push_back("link " + name);
  }
  if (fs::exists(dir, error)) left.push_back("directory " + dir);
  if (IsMounted(dir + "/bpf")) left.push_back("mount " + dir + "/bpf");
  const std::string cgroup2 = FindCgroup2();
  for (const std::string& base : {std::string("/run/weft"), cgroup2 + "/weft"}) {
    for (const auto& item : fs::directory_iterator(base, error)) {
      const std::string name = item.path().filename();
      if (name.rfind(prefix, 0) == 0) left.push_back(item.path());
    }
  }
  return left;
}

}  // namespace weft::cli
