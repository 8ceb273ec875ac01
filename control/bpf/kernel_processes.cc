// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/kernel_processes.h"

#include <algorithm>
#include <functional>
#include <set>

#include "bpf/policy.h"

namespace weft::bpf {
namespace {

constexpr size_t kMaxRemembered = 65536;  // names of programs

weft_rule_key ToKernel(const ProcessRuleKey& key, uint32_t generation) {
  weft_rule_key out{};
  out.generation = generation;
  out.subject = key.subject;
  out.program = key.program;
  out.class_number = key.class_number;
  out.port = key.port;
  out.length = key.length;
  out.asks = key.asks;
  return out;
}

weft_rules ToKernel(const ProcessChoices& choices) {
  weft_rules out{};
  for (size_t i = 0; i < choices.size() && i < WEFT_CHOICES; ++i) {
    out.v[i] = {choices[i].arguments, choices[i].action, choices[i].rule};
  }
  return out;
}

weft_program_key ToKernel(const std::string& path, uint32_t generation) {
  weft_program_key out{};
  const size_t bytes = std::min<size_t>(path.size(), sizeof out.path);
  out.length = static_cast<uint32_t>(8 * (sizeof out.generation + bytes));
  out.generation = generation;
  memcpy(out.path, path.data(), bytes);
  return out;
}

struct ArgumentKey {
  char text[WEFT_ARGUMENT_BYTES];
};

template <size_t N>
std::string TextOf(const uint8_t (&bytes)[N]) {
  const auto* text = reinterpret_cast<const char*>(bytes);
  return std::string(text, strnlen(text, N));
}

}  // namespace

absl::StatusOr<std::unique_ptr<KernelProcesses>> KernelProcesses::Create(const PinPaths& paths,
                                                                         uint64_t epoch) {
  std::unique_ptr<KernelProcesses> out(new KernelProcesses());
  KernelProcesses& p = *out;
  const std::pair<const char*, UniqueFd*> wanted[] = {
      {"weft_proc_rules", &p.rules_},    {"weft_watches", &p.watches_},
      {"weft_programs", &p.programs_},   {"weft_arguments", &p.arguments_},
      {"weft_proc_gen", &p.generation_}, {"weft_proc_cfg", &p.config_},
      {"weft_activity", &p.activity_},   {"weft_binaries", &p.binaries_},
      {"weft_processes", &p.processes_},
  };
  for (const auto& [name, fd] : wanted) {
    WEFT_ASSIGN_OR_RETURN(*fd, OpenPinnedMap(paths, name));
  }
  const uint32_t zero = 0;
  weft_class generation{};
  if (bpf_map_lookup_elem(p.generation_.get(), &zero, &generation) != 0) {
    return ErrnoStatus(errno, "read weft_proc_gen");
  }
  p.version_ = std::max(weft_in_force(generation.from, epoch), 0);
  p.in_force_ = generation.number[p.version_];
  generation.from[1 - p.version_] = WEFT_NEVER;  // written by an agent that did not finish
  WEFT_RETURN_IF_ERROR(Put(p.generation_, zero, generation, "write weft_proc_gen"));
  const uint32_t in_force = p.in_force_;
  WEFT_RETURN_IF_ERROR(p.RemoveGeneration([in_force](uint32_t g) { return g != in_force; }));
  return out;
}

absl::Status KernelProcesses::RemoveGeneration(const std::function<bool(uint32_t)>& unwanted) {
  for (const weft_watch_key& key : Keys<weft_watch_key>(watches_)) {
    if (unwanted(key.generation)) WEFT_RETURN_IF_ERROR(Drop(watches_, key, "remove a watch"));
  }
  for (const weft_rule_key& key : Keys<weft_rule_key>(rules_)) {
    if (unwanted(key.generation)) {
      WEFT_RETURN_IF_ERROR(Drop(rules_, key, "remove a process rule"));
    }
  }
  for (const weft_program_key& key : Keys<weft_program_key>(programs_)) {
    if (unwanted(key.generation)) WEFT_RETURN_IF_ERROR(Drop(programs_, key, "remove a path"));
  }
  return absl::OkStatus();
}

// Before the rules that ask for them: what starts from now on is looked at for the new ones too.
absl::Status KernelProcesses::WriteArguments(const std::vector<std::string>& arguments) {
  for (uint32_t bit = 0; bit < arguments.size() && bit < 64; ++bit) {
    ArgumentKey key{};
    memcpy(key.text, arguments[bit].data(), std::min(arguments[bit].size(), sizeof key.text - 1));
    WEFT_RETURN_IF_ERROR(Put(arguments_, key, bit, "argument " + arguments[bit]));
  }
  const uint32_t zero = 0;
  weft_process_config config{};
  if (bpf_map_lookup_elem(config_.get(), &zero, &config) != 0) {
    return ErrnoStatus(errno, "read weft_proc_cfg");
  }
  config.arguments = static_cast<uint32_t>(std::min<size_t>(arguments.size(), 64));
  return Put(config_, zero, config, "write weft_proc_cfg");
}

absl::Status KernelProcesses::WriteGeneration(const ProcessState& want, uint32_t generation,
                                              PolicyReport* report, bool* all_watched) {
  absl::Status first;
  const auto note = [&](const absl::Status& status) {
    ++report->touched;
    if (!status.ok() && first.ok()) first = status;
    return status.ok();
  };
  // Watches first, open ones: a workload whose watch has no room would have no rules at all.
  for (const auto& [subject, watch] : want.watches) {
    const weft_watch_key key{generation, subject};
    const weft_watch value{watch.flags, watch.lengths, 0};
    const absl::Status put =
        Put(watches_, key, value, absl::StrCat("process rules of workload ", subject));
    if (!note(put)) {
      *all_watched = false;
      return put;
    }
  }
  bool all_closed = !note(WriteArguments(want.arguments));
  for (const auto& [path, number] : want.programs) {
    all_closed |= !note(Put(programs_, ToKernel(path, generation), number, "path " + path));
  }
  std::set<uint32_t> closed, shut;
  for (const auto& [key, choices] : want.rules) {
    if (closed.contains(key.subject)) continue;
    const absl::Status put = Put(rules_, ToKernel(key, generation), ToKernel(choices),
                                 absl::StrCat("process rule of workload ", key.subject));
    if (!note(put)) closed.insert(key.subject);
  }
  for (const auto& [subject, watch] : want.watches) {
    if (!all_closed && !closed.contains(subject)) continue;
    const weft_watch_key key{generation, subject};
    const weft_watch value{watch.flags | WEFT_WATCH_CLOSED, watch.lengths, want.full_rule};
    const absl::Status put = Put(watches_, key, value, absl::StrCat("close workload ", subject));
    if (!note(put)) {
      *all_watched = false;
      return first;
    }
    shut.insert(subject);
  }
  report->closed.merge(shut);
  return first;
}

void KernelProcesses::Write(const ProcessState& want, uint64_t epoch, PolicyReport* report) {
  if (have_.has_value() && *have_ == want && !failed_) return;
  // Nothing before and nothing now.
  if (!have_.has_value() && in_force_ == 0 && want == ProcessState{.full_rule = want.full_rule}) {
    have_ = want;
    return;
  }
  const uint32_t next = in_force_ + 1 == 0 ? 1 : in_force_ + 1;
  bool all_watched = true;
  const absl::Status status = WriteGeneration(want, next, report, &all_watched);
  failed_ = !status.ok();
  report->status.Update(status);
  if (!all_watched) {  // in force, it would let workloads go: the old rules stay
    report->status.Update(RemoveGeneration([next](uint32_t g) { return g == next; }));
    return;
  }
  const uint32_t zero = 0;
  weft_class generation{};
  absl::Status named = absl::OkStatus();
  if (bpf_map_lookup_elem(generation_.get(), &zero, &generation) != 0) {
    named = ErrnoStatus(errno, "read weft_proc_gen");
  } else {
    generation.from[1 - version_] = epoch;
    generation.number[1 - version_] = next;
    named = Put(generation_, zero, generation, "write weft_proc_gen");
  }
  ++report->touched;
  if (!named.ok()) {  // an array's only entry: cannot be full
    report->status.Update(named);
    failed_ = true;
    report->status.Update(RemoveGeneration([next](uint32_t g) { return g == next; }));
    return;
  }
  for (const auto& [subject, watch] : want.watches) {
    if ((watch.flags & WEFT_WATCH_CONNECT) != 0) report->changed.insert(subject);
  }
  version_ = 1 - version_;
  old_ = in_force_;
  in_force_ = next;
  have_ = want;
}

absl::Status KernelProcesses::RemoveOld() {
  if (old_ == 0) return absl::OkStatus();
  const uint32_t keep = in_force_;
  old_ = 0;
  return RemoveGeneration([keep](uint32_t g) { return g != keep; });
}

absl::Status KernelProcesses::SetRate(uint32_t per_second, uint32_t at_once) {
  const uint32_t zero = 0;
  weft_process_config config{};
  if (bpf_map_lookup_elem(config_.get(), &zero, &config) != 0) {
    return ErrnoStatus(errno, "read weft_proc_cfg");
  }
  config.event_interval_ns = per_second == 0 ? 0 : 1'000'000'000u / per_second;
  config.event_burst_ns = uint64_t{config.event_interval_ns} * at_once;
  return Put(config_, zero, config, "write weft_proc_cfg");
}

std::vector<std::string> KernelProcesses::Arguments() const {
  std::map<uint32_t, std::string> by_bit;
  for (const ArgumentKey& key : Keys<ArgumentKey>(arguments_)) {
    uint32_t bit = 0;
    if (bpf_map_lookup_elem(arguments_.get(), &key, &bit) != 0) continue;
    by_bit[bit] = std::string(key.text, strnlen(key.text, sizeof key.text));
  }
  std::vector<std::string> out;
  for (const auto& [bit, text] : by_bit) out.push_back(text);
  return out;
}

absl::Status KernelProcesses::StartCounting(uint32_t workload) {
  weft_activity value{};
  if (bpf_map_lookup_elem(activity_.get(), &workload, &value) == 0) return absl::OkStatus();
  return Put(activity_, workload, value, absl::StrCat("events of workload ", workload));
}

absl::Status KernelProcesses::StopCounting(uint32_t workload) {
  for (const weft_binary_key& key : Keys<weft_binary_key>(binaries_)) {
    weft_binary value{};
    if (bpf_map_lookup_elem(binaries_.get(), &key, &value) != 0) continue;
    if (value.workload != workload) continue;
    numbered_[value.number] = {TextOf(key.path), key.id.inode, key.id.device};
    WEFT_RETURN_IF_ERROR(Drop(binaries_, key, "forget a program"));
  }
  for (const weft_process_key& key : Keys<weft_process_key>(processes_)) {
    weft_process value{};
    if (bpf_map_lookup_elem(processes_.get(), &key, &value) != 0) continue;
    if (value.workload != workload) continue;
    WEFT_RETURN_IF_ERROR(Drop(processes_, key, "forget a process"));
  }
  return Drop(activity_, workload, absl::StrCat("events of workload ", workload));
}

std::vector<Activity> KernelProcesses::Activities() const {
  std::vector<Activity> all;
  for (const uint32_t workload : Keys<uint32_t>(activity_)) {
    weft_activity value{};
    if (bpf_map_lookup_elem(activity_.get(), &workload, &value) != 0) continue;
    all.push_back({workload, value.events, value.suppressed, value.lost});
  }
  return all;
}

std::optional<Binary> KernelProcesses::BinaryOf(uint32_t number) {
  if (number == 0) return std::nullopt;
  auto found = numbered_.find(number);
  if (found != numbered_.end()) return found->second;
  if (numbered_.size() > kMaxRemembered) numbered_.clear();
  for (const weft_binary_key& key : Keys<weft_binary_key>(binaries_)) {
    weft_binary value{};
    if (bpf_map_lookup_elem(binaries_.get(), &key, &value) != 0) continue;
    numbered_[value.number] = {TextOf(key.path), key.id.inode, key.id.device};
  }
  found = numbered_.find(number);
  return found == numbered_.end() ? std::nullopt : std::optional(found->second);
}

bool KernelProcesses::KnowsPid(uint32_t pid, uint32_t binary) const {
  for (const weft_process_key& key : Keys<weft_process_key>(processes_)) {
    weft_process value{};
    if (key.pid != pid || bpf_map_lookup_elem(processes_.get(), &key, &value) != 0) continue;
    if (value.binary == binary) return true;
  }
  return false;
}

}  // namespace weft::bpf
