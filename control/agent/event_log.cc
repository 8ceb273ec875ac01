// SPDX-License-Identifier: Apache-2.0
#include "control/agent/event_log.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "control/bpf/address.h"
#include "proxy/base/reason.h"
#include "proxy/base/status.h"

namespace weft::agent {
namespace {

using nlohmann::json;

bool IsZero(const weft_addr& address) {
  static constexpr weft_addr kZero{};
  return memcmp(&address, &kZero, sizeof kZero) == 0;
}

std::string TimeText(int64_t wall_ns) {
  const time_t seconds = wall_ns / 1'000'000'000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return absl::StrFormat("%s.%06dZ", text, (wall_ns % 1'000'000'000) / 1000);
}

// Without a default: the compiler names the kind that is missing. The number comes from a ring
// buffer, so that it may be none of them.
const char* KindName(uint32_t kind) {
  switch (static_cast<weft_event_kind>(kind)) {
    case WEFT_EVENT_CONNECT:
      return "connect";
    case WEFT_EVENT_ACCEPT:
      return "accept";
    case WEFT_EVENT_CLOSE:
      return "close";
    case WEFT_EVENT_BIND:
      return "bind";
    case WEFT_EVENT_LEARN:
      return "learn";
    case WEFT_EVENT_CUT:
      return "cut";
    case WEFT_EVENT_ASK_AGAIN:
      return "ask_again";
    case WEFT_EVENT_AUDIT:
      return "audit";
    case WEFT_EVENT_GUARD:
      return "guard";
  }
  return "unknown";
}

bool IsRefusal(uint32_t reason) {
  switch (reason) {
    case WEFT_R_POLICY_DENIED:
    case WEFT_R_POLICY_DEFAULT_DENIED:
    case WEFT_R_NO_ENDPOINT:
    case WEFT_R_PROXY_GONE:
    case WEFT_R_MAP_FULL:
    case WEFT_R_STAMP_MISUSE:
    case WEFT_R_NOT_ADMITTED:
    case WEFT_R_SPOOFED:
    case WEFT_R_UNSTAMPED:
    case WEFT_R_BAD_PACKET:
    case WEFT_R_PROCESS_DENIED:
    case WEFT_R_PROCESS_KILLED:
      return true;
    default:
      return false;
  }
}

// What people filter by.
const char* VerdictName(uint32_t reason) {
  switch (reason) {
    case WEFT_R_PROCESS_KILLED:
      return "killed";
    case WEFT_R_POLICY_AUDITED:
    case WEFT_R_PROCESS_MATCHED:
      return "audited";
    default:
      return IsRefusal(reason) ? "denied" : "allowed";
  }
}

// "MAJOR:MINOR", as in /proc/self/mountinfo.
std::string DeviceText(uint32_t device) {
  return absl::StrFormat("%u:%u", device >> 20, device & 0xfffff);
}

void AddBinary(uint32_t number, const EventNames& names, const char* key, json* out) {
  if (number == 0 || !names.binary) return;
  if (const std::optional<bpf::Binary> binary = names.binary(number)) (*out)[key] = binary->path;
}

json EndOf(const weft_addr& address, uint32_t workload, uint32_t identity,
           const EventNames& names) {
  const SocketAddress socket_address = bpf::FromKernel(address);
  json out = {{"address", socket_address.ToString()}};
  std::string name;
  if (workload != 0 && names.local_workload) name = names.local_workload(workload);
  const model::Workload* known =
      names.snapshot == nullptr ? nullptr : names.snapshot->FindWorkload(socket_address.ip);
  if (name.empty() && known != nullptr) name = known->namespace_name + "/" + known->name;
  if (!name.empty()) out["workload"] = name;
  std::string who;
  if (names.numbers != nullptr) who = names.numbers->identities.NameOf(identity);
  if (who.empty() && known != nullptr) who = known->Identity();
  if (!who.empty()) out["identity"] = who;
  return out;
}

}  // namespace

int64_t WallMinusMonotonicNs() {
  timespec wall{}, monotonic{};
  clock_gettime(CLOCK_REALTIME, &wall);
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  return (wall.tv_sec - monotonic.tv_sec) * int64_t{1'000'000'000} + wall.tv_nsec -
         monotonic.tv_nsec;
}

std::string FormatEvent(const weft_event& event, const EventNames& names,
                        int64_t wall_minus_monotonic_ns) {
  const bool known = event.reason < WEFT_R_MAX;
  const auto reason = known ? static_cast<Reason>(event.reason) : WEFT_R_INTERNAL_ERROR;
  json out = {{"time", TimeText(static_cast<int64_t>(event.time_ns) + wall_minus_monotonic_ns)},
              {"kind", KindName(event.kind)},
              {"reason", std::string(ReasonName(reason))},
              {"meaning", std::string(ReasonMeaning(reason))},
              {"refused", IsRefusal(event.reason)},
              {"verdict", VerdictName(event.reason)},
              {"source", EndOf(event.source, event.source_workload, event.source_identity, names)},
              {"destination", EndOf(event.destination, event.destination_workload,
                                    event.destination_identity, names)}};
  if (!IsZero(event.picked)) {
    const SocketAddress picked = bpf::FromKernel(event.picked);
    out["picked"] = picked.ToString();
    const model::Workload* workload =
        names.snapshot == nullptr ? nullptr : names.snapshot->FindWorkload(picked.ip);
    if (workload != nullptr) {
      out["picked_workload"] = workload->namespace_name + "/" + workload->name;
    }
  }
  if (event.rule != 0 && names.numbers != nullptr) {
    out["rule"] = std::string(names.numbers->rules.NameOf(event.rule));
  }
  if (event.pid != 0) {
    const auto* comm = reinterpret_cast<const char*>(event.comm);
    out["pid"] = event.pid;
    out["process"] = std::string(comm, strnlen(comm, sizeof event.comm));
  }
  if (event.kind == WEFT_EVENT_GUARD) out["protocol"] = event.protocol;
  AddBinary(event.binary, names, "binary", &out);
  if (event.maker_pid != 0) {
    json maker = {{"pid", event.maker_pid}};
    AddBinary(event.maker_binary, names, "binary", &maker);
    out["maker"] = std::move(maker);
  }
  if (event.kind == WEFT_EVENT_CLOSE) {
    out["sent_bytes"] = event.sent_bytes;
    out["received_bytes"] = event.received_bytes;
  }
  // A process may call itself anything: what is not UTF-8 is replaced, not thrown over.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

namespace {

json ArgumentsOf(const weft_process_event& event) {
  json out = json::array();
  const auto* at = reinterpret_cast<const char*>(event.arguments);
  const char* end = at + std::min<size_t>(event.argument_bytes, sizeof event.arguments);
  while (at < end) {
    const size_t length = strnlen(at, static_cast<size_t>(end - at));
    out.push_back(std::string(at, length));
    at += length + 1;
  }
  return out;
}

json ParentsOf(const weft_process_event& event, const EventNames& names) {
  json out = json::array();
  for (const weft_ancestor& parent : event.parents) {
    if (parent.pid == 0) break;
    json one = {{"pid", parent.pid}};
    AddBinary(parent.binary, names, "binary", &one);
    out.push_back(std::move(one));
  }
  return out;
}

// How it ended, as wait() tells.
void AddExit(uint32_t code, json* out) {
  if ((code & 0x7f) != 0) {
    (*out)["signal"] = code & 0x7f;
  } else {
    (*out)["exit_code"] = code >> 8 & 0xff;
  }
}

}  // namespace

std::string FormatProcessEvent(const weft_process_event& event, const EventNames& names,
                               int64_t wall_minus_monotonic_ns) {
  const auto reason =
      event.reason < WEFT_R_MAX ? static_cast<Reason>(event.reason) : WEFT_R_INTERNAL_ERROR;
  const auto* path = reinterpret_cast<const char*>(event.path);
  const auto* comm = reinterpret_cast<const char*>(event.comm);
  const bool exec = event.kind == WEFT_EVENT_EXEC;
  json out = {{"time", TimeText(static_cast<int64_t>(event.time_ns) + wall_minus_monotonic_ns)},
              {"kind", exec ? "exec" : "exit"},
              {"reason", std::string(ReasonName(reason))},
              {"meaning", std::string(ReasonMeaning(reason))},
              {"refused", IsRefusal(event.reason)},
              {"verdict", VerdictName(event.reason)},
              {"pid", event.pid},
              {"uid", event.uid},
              {"process", std::string(comm, strnlen(comm, sizeof event.comm))},
              {"binary", std::string(path, strnlen(path, sizeof event.path))},
              {"inode", event.id.inode},
              {"device", DeviceText(event.id.device)},
              {"trusted", (event.flags & WEFT_PROCESS_UNTRUSTED) == 0},
              {"cgroup", event.cgroup},
              {"mount_namespace", event.mount_ns},
              {"pid_namespace", event.pid_ns},
              {"parents", ParentsOf(event, names)}};
  json source = json::object();
  if (names.local_workload) source["workload"] = names.local_workload(event.workload);
  out["source"] = std::move(source);
  if (event.rule != 0 && names.numbers != nullptr) {
    out["rule"] = std::string(names.numbers->rules.NameOf(event.rule));
  }
  if (exec) {
    out["arguments"] = ArgumentsOf(event);
    out["arguments_cut"] = (event.flags & WEFT_EVENT_ARGUMENTS_CUT) != 0;
  } else {
    AddExit(event.exit_code, &out);
  }
  if ((event.flags & WEFT_PROCESS_PATH_CUT) != 0) out["binary_cut"] = true;
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

void EventLog::Add(std::string line) {
  ++total_;
  line.push_back('\n');
  std::erase_if(followers_, [&](const ipc::Responder& follower) { return !follower.Write(line); });
  lines_.push_back(std::move(line));
  if (lines_.size() > kMaxKept) lines_.pop_front();
}

void EventLog::Serve(ipc::Responder responder, bool follow) {
  responder.StartStream(200, "application/x-ndjson");
  for (const std::string& line : lines_) {
    if (!responder.Write(line)) return;
  }
  if (follow) {
    followers_.push_back(std::move(responder));
  } else {
    responder.EndStream();
  }
}

}  // namespace weft::agent
