// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/kernel_policy.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bitset>
#include <functional>

#include "bpf/policy.h"
#include "control/bpf/address.h"
#include "control/bpf/kernel_maps.h"

namespace weft::bpf {
namespace {

weft_policy_key ToKernel(const PolicyKey& key) {
  weft_policy_key out{};
  out.subject = key.subject;
  out.class_number = key.class_number;
  out.port = key.port;
  out.length = key.length;
  out.protocol = key.protocol;
  out.layer = key.layer;
  return out;
}

PolicyKey FromKernel(const weft_policy_key& key) {
  return {key.subject, key.class_number, key.port, key.length, key.protocol, key.layer};
}

weft_says ToKernel(const PolicySays& says) { return {says.says, says.rule, says.audit}; }

weft_block_key ToKernel(const PolicyBlock& block) {
  weft_block_key out{};
  out.length = block.length;
  memcpy(out.ip, block.address.bytes.data(), sizeof out.ip);
  return out;
}

void ToKernel(const SubjectState& state, weft_layer_state out[WEFT_LAYERS]) {
  for (size_t i = 0; i < state.size(); ++i) {
    out[i] = {state[i].says, state[i].rule, state[i].lengths};
  }
}

// The first `length` bits of an address.
IpAddress Masked(const IpAddress& ip, uint32_t length) {
  IpAddress out = ip;
  for (uint32_t i = 0; i < 16; ++i) {
    const uint32_t bits = length > 8 * i ? std::min(length - 8 * i, 8u) : 0;
    out.bytes[i] = static_cast<uint8_t>(out.bytes[i] & (0xff00u >> bits));
  }
  return out;
}

using Lengths = std::bitset<129>;

template <typename Blocks>
Lengths LengthsOf(const Blocks& blocks) {
  Lengths lengths;
  for (const auto& [block, value] : blocks) lengths.set(block.length);
  return lengths;
}

// The longest block around `ip` that is shorter than `below` bits.
template <typename Blocks>
auto LongestBlock(const Blocks& blocks, const Lengths& lengths, const IpAddress& ip,
                  uint32_t below) {
  for (uint32_t length = below; length-- > 0;) {
    if (!lengths[length]) continue;
    auto found = blocks.find({Masked(ip, length), length});
    if (found != blocks.end()) return found;
  }
  return blocks.end();
}

bool IsFull(const absl::Status& status) { return absl::IsResourceExhausted(status); }

}  // namespace

// One change on its way into the maps.
struct KernelPolicy::Batch {
  uint64_t next = 0;
  PolicyReport* report = nullptr;
  bool everybody_closed = false;  // a class has no room: nobody can be told apart
  bool classes_changed = false;
  std::vector<std::function<void()>> commits;  // to the mirrors, once the epoch is stored
  std::vector<weft_policy_key> old_entries;
  std::vector<uint32_t> old_subjects;
  std::vector<weft_ip> old_classes;
  std::vector<weft_block_key> old_blocks;

  // The class of what is around an address or block: before, and afterwards.
  const PolicyState* want = nullptr;
  const Mirror<PolicyBlock, uint32_t>* have_blocks = nullptr;
  Lengths have_lengths, want_lengths;
  uint32_t ClassBefore(const IpAddress& ip, uint32_t below) const {
    auto found = LongestBlock(*have_blocks, have_lengths, ip, below);
    return found == have_blocks->end() ? WEFT_CLASS_WORLD : found->second.value;
  }
  uint32_t ClassAfter(const IpAddress& ip, uint32_t below) const {
    auto found = LongestBlock(want->blocks, want_lengths, ip, below);
    return found == want->blocks.end() ? WEFT_CLASS_WORLD : found->second;
  }

  bool Note(const absl::Status& status) {
    ++report->touched;
    if (!status.ok() && report->status.ok()) report->status = status;
    return status.ok();
  }
};

absl::StatusOr<std::unique_ptr<KernelPolicy>> KernelPolicy::Create(const PinPaths& paths,
                                                                   const MapSizes& sizes) {
  std::unique_ptr<KernelPolicy> policy(new KernelPolicy());
  WEFT_RETURN_IF_ERROR(policy->Open(paths, sizes));
  WEFT_RETURN_IF_ERROR(policy->LoadMirrors());
  return policy;
}

KernelPolicy::~KernelPolicy() {
  if (epoch_page_ != nullptr) munmap(epoch_page_, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

absl::Status KernelPolicy::Open(const PinPaths& paths, const MapSizes& sizes) {
  const EmbeddedObject embedded = VersionsObject();
  WEFT_ASSIGN_OR_RETURN(object_, OpenObject(embedded, paths, sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object_.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object_.get(), "weft_write_version"));
  program_fd_ = bpf_program__fd(program);
  WEFT_ASSIGN_OR_RETURN(entries_fd_, OpenPinnedMap(paths, "weft_policy"));
  WEFT_ASSIGN_OR_RETURN(subjects_fd_, OpenPinnedMap(paths, "weft_subjects"));
  WEFT_ASSIGN_OR_RETURN(classes_fd_, OpenPinnedMap(paths, "weft_classes"));
  WEFT_ASSIGN_OR_RETURN(blocks_fd_, OpenPinnedMap(paths, "weft_blocks"));
  WEFT_ASSIGN_OR_RETURN(epoch_fd_, OpenPinnedMap(paths, "weft_epoch"));
  void* page = mmap(nullptr, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_READ | PROT_WRITE,
                    MAP_SHARED, epoch_fd_.get(), 0);
  if (page == MAP_FAILED) return ErrnoStatus(errno, "map weft_epoch");
  epoch_page_ = static_cast<uint64_t*>(page);
  WEFT_ASSIGN_OR_RETURN(processes_, KernelProcesses::Create(paths, epoch()));
  return absl::OkStatus();
}

uint64_t KernelPolicy::epoch() const {
  return std::atomic_ref<uint64_t>(*epoch_page_).load(std::memory_order_acquire);
}

// Every program that may have read the old epoch, or an entry that was removed, has ended.
absl::Status KernelPolicy::Grace() { return GracePeriod(); }

absl::Status KernelPolicy::Change(weft_change change) {
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.ctx_in = &change;
  options.ctx_size_in = sizeof change;
  if (bpf_prog_test_run_opts(program_fd_, &options) != 0) {
    return ErrnoStatus(errno, "write a version of policy");
  }
  if (options.retval == 0) return absl::OkStatus();
  return ErrnoStatus(-static_cast<int>(options.retval), "write a version of policy");
}

// A version that was written but never came into force.
absl::Status KernelPolicy::Void(weft_change change, int version) {
  change.version = static_cast<uint32_t>(version);
  change.from = WEFT_NEVER;
  return Change(change);
}

template <typename Value>
int KernelPolicy::VersionInForce(const UniqueFd& map, const void* key, Value* value,
                                 bool* unfinished) const {
  *unfinished = false;
  if (bpf_map_lookup_elem(map.get(), key, value) != 0) return -1;
  const int version = weft_in_force(value->from, epoch());
  for (int i = 0; i < 2; ++i) {
    *unfinished |= i != version && value->from[i] > epoch() && value->from[i] != WEFT_NEVER;
  }
  return version;
}

absl::Status KernelPolicy::LoadMirrors() {
  bool unfinished = false;
  for (const weft_policy_key& key : Keys<weft_policy_key>(entries_fd_)) {
    weft_policy value{};
    const int version = VersionInForce(entries_fd_, &key, &value, &unfinished);
    if (version < 0 || (value.v[version].says & WEFT_SAYS_ABSENT) != 0) {
      WEFT_RETURN_IF_ERROR(Drop(entries_fd_, key, "remove an unfinished policy"));
      continue;
    }
    weft_change change{.map = WEFT_IN_POLICY};
    change.key.policy = key;
    if (unfinished) WEFT_RETURN_IF_ERROR(Void(change, 1 - version));
    const weft_says& says = value.v[version];
    entries_[FromKernel(key)] = {{says.says, says.rule, says.audit}, version};
  }
  for (const uint32_t key : Keys<uint32_t>(subjects_fd_)) {
    weft_subject value{};
    const int version = VersionInForce(subjects_fd_, &key, &value, &unfinished);
    if (version < 0) {
      WEFT_RETURN_IF_ERROR(Drop(subjects_fd_, key, "remove an unfinished subject"));
      continue;
    }
    weft_change change{.map = WEFT_IN_SUBJECTS};
    change.key.subject = key;
    if (unfinished) WEFT_RETURN_IF_ERROR(Void(change, 1 - version));
    Slot<SubjectState>& slot = subjects_[key];
    slot.version = version;
    for (size_t i = 0; i < slot.value.size(); ++i) {
      const weft_layer_state& layer = value.v[version][i];
      slot.value[i] = {layer.says, layer.rule, layer.lengths};
    }
  }
  for (const weft_ip& key : Keys<weft_ip>(classes_fd_)) {
    weft_class value{};
    const int version = VersionInForce(classes_fd_, &key, &value, &unfinished);
    if (version < 0) {
      WEFT_RETURN_IF_ERROR(Drop(classes_fd_, key, "remove an unfinished class"));
      continue;
    }
    weft_change change{.map = WEFT_IN_CLASSES};
    memcpy(change.key.ip, key.ip, sizeof key.ip);
    if (unfinished) WEFT_RETURN_IF_ERROR(Void(change, 1 - version));
    classes_[bpf::FromKernel(key)] = {value.number[version], version};
  }
  for (const weft_block_key& key : Keys<weft_block_key>(blocks_fd_)) {
    weft_class value{};
    const int version = VersionInForce(blocks_fd_, &key, &value, &unfinished);
    if (version < 0) {
      WEFT_RETURN_IF_ERROR(Drop(blocks_fd_, key, "remove an unfinished block"));
      continue;
    }
    weft_change change{.map = WEFT_IN_BLOCKS};
    change.key.block = key;
    if (unfinished) WEFT_RETURN_IF_ERROR(Void(change, 1 - version));
    PolicyBlock block{.length = key.length};
    memcpy(block.address.bytes.data(), key.ip, sizeof key.ip);
    blocks_[block] = {value.number[version], version};
  }
  needs_grace_ = true;
  return absl::OkStatus();
}

uint32_t KernelPolicy::highest_class() const {
  uint32_t highest = 0;
  for (const auto& [ip, slot] : classes_) highest = std::max(highest, slot.value);
  for (const auto& [block, slot] : blocks_) highest = std::max(highest, slot.value);
  for (const auto& [key, slot] : entries_) {
    if (key.class_number != WEFT_CLASS_ANY) highest = std::max(highest, key.class_number);
  }
  return highest;
}

void KernelPolicy::WriteEntries(const PolicyState& want, Batch& batch) {
  const auto write = [&](const PolicyKey& key, const PolicySays& says, Slot<PolicySays>* have) {
    const weft_policy_key kernel_key = ToKernel(key);
    if (have != nullptr) {
      weft_change change{.map = WEFT_IN_POLICY,
                         .version = static_cast<uint32_t>(1 - have->version),
                         .from = batch.next};
      change.key.policy = kernel_key;
      change.value.says = ToKernel(says);
      return Change(change);
    }
    weft_policy value{};
    value.from[0] = batch.next;
    value.from[1] = WEFT_NEVER;
    value.v[0] = ToKernel(says);
    return Put(entries_fd_, kernel_key, value, absl::StrCat("policy of workload ", key.subject));
  };
  for (const auto& [key, says] : want.entries) {
    auto have = entries_.find(key);
    Slot<PolicySays>* slot = have == entries_.end() ? nullptr : &have->second;
    if (slot != nullptr && slot->value == says) continue;
    batch.report->changed.insert(key.subject);
    if (!batch.Note(write(key, says, slot))) {
      batch.report->closed.insert(key.subject);
      continue;
    }
    const int version = slot != nullptr ? 1 - slot->version : 0;
    batch.commits.push_back(
        [this, key = key, says = says, version] { entries_[key] = {says, version}; });
  }
  for (auto& [key, slot] : entries_) {
    if (want.entries.contains(key)) continue;
    batch.report->changed.insert(key.subject);
    if (batch.Note(write(key, {.says = WEFT_SAYS_ABSENT}, &slot))) {
      batch.old_entries.push_back(ToKernel(key));
    } else {
      batch.report->closed.insert(key.subject);
    }
  }
}

void KernelPolicy::WriteClasses(const PolicyState& want, Batch& batch) {
  const auto change_to = [&](const IpAddress& ip, const Slot<uint32_t>& have, uint32_t number) {
    weft_change change{.map = WEFT_IN_CLASSES,
                       .version = static_cast<uint32_t>(1 - have.version),
                       .from = batch.next};
    memcpy(change.key.ip, ip.bytes.data(), sizeof change.key.ip);
    change.value.class_number = number;
    return Change(change);
  };
  for (const auto& [ip, number] : want.classes) {
    auto have = classes_.find(ip);
    if (have != classes_.end() && have->second.value == number) continue;
    absl::Status status;
    int version = 1;
    if (have != classes_.end()) {
      status = change_to(ip, have->second, number);
      version = 1 - have->second.version;
      batch.classes_changed = true;
    } else {
      // Until then the address is what the block around it is.
      const uint32_t before = batch.ClassBefore(ip, 129);
      batch.classes_changed |= before != number;
      const weft_class value{.from = {0, batch.next}, .number = {before, number}};
      status = Put(classes_fd_, bpf::ToKernel(ip), value, "class of " + ip.ToString());
    }
    if (!batch.Note(status)) {
      batch.everybody_closed = true;
      continue;
    }
    batch.commits.push_back(
        [this, ip = ip, number = number, version] { classes_[ip] = {number, version}; });
  }
  for (const auto& [ip, slot] : classes_) {
    if (want.classes.contains(ip)) continue;
    const bool done = batch.Note(change_to(ip, slot, batch.ClassAfter(ip, 129)));
    batch.classes_changed = true;
    if (done) batch.old_classes.push_back(bpf::ToKernel(ip));
    batch.everybody_closed |= !done;
  }
}

void KernelPolicy::WriteBlocks(const PolicyState& want, Batch& batch) {
  const auto change_to = [&](const PolicyBlock& block, const Slot<uint32_t>& have,
                             uint32_t number) {
    weft_change change{.map = WEFT_IN_BLOCKS,
                       .version = static_cast<uint32_t>(1 - have.version),
                       .from = batch.next};
    change.key.block = ToKernel(block);
    change.value.class_number = number;
    return Change(change);
  };
  for (const auto& [block, number] : want.blocks) {
    auto have = blocks_.find(block);
    if (have != blocks_.end() && have->second.value == number) continue;
    absl::Status status;
    int version = 1;
    batch.classes_changed = true;
    if (have != blocks_.end()) {
      status = change_to(block, have->second, number);
      version = 1 - have->second.version;
    } else {
      const weft_class value{.from = {0, batch.next},
                             .number = {batch.ClassBefore(block.address, block.length), number}};
      status = Put(blocks_fd_, ToKernel(block), value, "block " + block.address.ToString());
    }
    if (!batch.Note(status)) {
      batch.everybody_closed = true;
      continue;
    }
    batch.commits.push_back(
        [this, block = block, number = number, version] { blocks_[block] = {number, version}; });
  }
  for (const auto& [block, slot] : blocks_) {
    if (want.blocks.contains(block)) continue;
    const uint32_t around = batch.ClassAfter(block.address, block.length);
    const bool done = batch.Note(change_to(block, slot, around));
    batch.classes_changed = true;
    if (done) batch.old_blocks.push_back(ToKernel(block));
    batch.everybody_closed |= !done;
  }
}

// After all else: who has no room for his policy may do nothing.
void KernelPolicy::WriteSubjects(const PolicyState& want, Batch& batch) {
  SubjectState closed;
  closed.fill({.says = WEFT_SAYS_DENY, .rule = want.full_rule});
  for (const auto& [id, wanted] : want.subjects) {
    if (batch.everybody_closed) batch.report->closed.insert(id);
    const SubjectState state = batch.report->closed.contains(id) ? closed : wanted;
    auto have = subjects_.find(id);
    if (have != subjects_.end() && have->second.value == state) continue;
    batch.report->changed.insert(id);
    absl::Status status;
    int version = 0;
    if (have != subjects_.end()) {
      version = 1 - have->second.version;
      weft_change change{
          .map = WEFT_IN_SUBJECTS, .version = static_cast<uint32_t>(version), .from = batch.next};
      change.key.subject = id;
      ToKernel(state, change.value.layers);
      status = Change(change);
    } else {
      weft_subject value{};
      value.from[0] = batch.next;
      value.from[1] = WEFT_NEVER;
      ToKernel(state, value.v[0]);
      status = Put(subjects_fd_, id, value, absl::StrCat("policy of workload ", id));
    }
    if (!batch.Note(status)) continue;  // not there: it may do nothing
    batch.commits.push_back([this, id = id, state, version] { subjects_[id] = {state, version}; });
  }
  for (const auto& [id, slot] : subjects_) {
    if (!want.subjects.contains(id)) batch.old_subjects.push_back(id);
  }
}

void KernelPolicy::Commit(Batch& batch) {
  std::atomic_ref<uint64_t>(*epoch_page_).store(batch.next, std::memory_order_release);
  for (const auto& commit : batch.commits) commit();
  batch.Note(Grace());
  --batch.report->touched;
}

void KernelPolicy::RemoveOld(Batch& batch) {
  for (const weft_policy_key& key : batch.old_entries) {
    if (batch.Note(Drop(entries_fd_, key, "remove policy"))) entries_.erase(FromKernel(key));
    --batch.report->touched;  // counted when it was written
  }
  for (const weft_ip& key : batch.old_classes) {
    if (batch.Note(Drop(classes_fd_, key, "remove class"))) {
      classes_.erase(bpf::FromKernel(key));
    }
    --batch.report->touched;
  }
  for (const weft_block_key& key : batch.old_blocks) {
    PolicyBlock block{.length = key.length};
    memcpy(block.address.bytes.data(), key.ip, sizeof key.ip);
    if (batch.Note(Drop(blocks_fd_, key, "remove block"))) blocks_.erase(block);
    --batch.report->touched;
  }
  for (const uint32_t id : batch.old_subjects) {
    if (batch.Note(Drop(subjects_fd_, id, "remove policy"))) subjects_.erase(id);
  }
  batch.report->status.Update(processes_->RemoveOld());
}

void KernelPolicy::WriteBatch(const PolicyState& want, PolicyReport* report, bool* removed) {
  if (needs_grace_) {
    // New entries may take the memory of removed ones.
    const absl::Status status = Grace();
    if (!status.ok()) {
      report->status.Update(status);
      return;
    }
    needs_grace_ = false;
  }
  Batch batch;
  batch.next = epoch() + 1;
  batch.report = report;
  batch.want = &want;
  batch.have_blocks = &blocks_;
  batch.have_lengths = LengthsOf(blocks_);
  batch.want_lengths = LengthsOf(want.blocks);
  WriteEntries(want, batch);
  WriteClasses(want, batch);
  WriteBlocks(want, batch);
  WriteSubjects(want, batch);
  processes_->Write(want.processes, batch.next, report);
  if (batch.classes_changed) {
    for (const auto& [id, state] : want.subjects) {
      const bool active = std::ranges::any_of(state, [](const auto& layer) { return layer.says; });
      if (active) report->changed.insert(id);
    }
  }
  *removed = !batch.old_entries.empty() || !batch.old_classes.empty() ||
             !batch.old_blocks.empty() || !batch.old_subjects.empty() || processes_->has_old();
  if (report->touched == 0 && !*removed) return;
  Commit(batch);
  RemoveOld(batch);
  needs_grace_ = *removed;
}

PolicyReport KernelPolicy::Apply(const PolicyState& want) {
  PolicyReport report;
  bool removed = false;
  WriteBatch(want, &report, &removed);
  if (IsFull(report.status) && removed) {
    // What the change removes made room only now.
    PolicyReport again;
    again.changed = std::move(report.changed);
    again.touched = report.touched;
    report = std::move(again);
    WriteBatch(want, &report, &removed);
  }
  touched_ += report.touched;
  return report;
}

absl::Status KernelPolicy::ForgetSubject(uint32_t subject) {
  subjects_.erase(subject);
  needs_grace_ = true;
  return Drop(subjects_fd_, subject, absl::StrCat("forget the policy of workload ", subject));
}

namespace {

// The kernel's maps behind bpf/policy.h.
struct Lookup {
  int entries_fd, subjects_fd;
  weft_subject subject;
};

int FindSays(void* maps, const weft_policy_key* key, __u64 epoch, weft_says* out) {
  weft_policy value{};
  const int fd = static_cast<Lookup*>(maps)->entries_fd;
  return weft_says_at(bpf_map_lookup_elem(fd, key, &value) == 0 ? &value : nullptr, epoch, out);
}

const weft_subject* FindSubject(void* maps, __u32 id) {
  auto* lookup = static_cast<Lookup*>(maps);
  const bool found = bpf_map_lookup_elem(lookup->subjects_fd, &id, &lookup->subject) == 0;
  return found ? &lookup->subject : nullptr;
}

uint32_t ClassOf(const UniqueFd& classes, const UniqueFd& blocks, const IpAddress& ip,
                 uint64_t epoch) {
  weft_class value{};
  const weft_ip key = bpf::ToKernel(ip);
  if (bpf_map_lookup_elem(classes.get(), &key, &value) == 0) return weft_class_at(&value, epoch);
  weft_block_key block{.length = 128};
  memcpy(block.ip, key.ip, sizeof key.ip);
  if (bpf_map_lookup_elem(blocks.get(), &block, &value) == 0) return weft_class_at(&value, epoch);
  return WEFT_CLASS_WORLD;
}

}  // namespace

PolicyAnswer KernelPolicy::Ask(const PolicyQuestion& question) const {
  PolicyAnswer all;
  weft_question q{};
  q.epoch = epoch();
  q.source_subject = question.source_subject;
  q.destination_subject = question.destination_subject;
  q.port = question.port;
  q.protocol = question.protocol;
  all.source_class = ClassOf(classes_fd_, blocks_fd_, question.source, q.epoch);
  all.destination_class = ClassOf(classes_fd_, blocks_fd_, question.destination, q.epoch);
  q.source_class = all.source_class;
  q.destination_class = all.destination_class;
  Lookup lookup{entries_fd_.get(), subjects_fd_.get(), {}};
  for (uint32_t layer = 0; layer < WEFT_LAYERS; ++layer) {
    LayerAnswer& out = all.layers[layer];
    const uint32_t subject = layer == WEFT_LAYER_EGRESS ? q.source_subject : q.destination_subject;
    q.layers = 1u << layer;
    out.asked = weft_layer_asked(&q, layer) != 0;
    if (!out.asked) continue;
    const weft_subject* state = FindSubject(&lookup, subject);
    const int version = state != nullptr ? weft_in_force(state->from, q.epoch) : -1;
    out.active = version < 0 || state->v[version][layer].says != 0;
    weft_answer answer{};
    weft_judge(&q, &lookup, FindSays, FindSubject, &answer);
    out.allowed = answer.allowed != 0;
    out.by_default = answer.by_default != 0;
    out.rule = answer.rule;
    out.audit = answer.audit;
  }
  return all;
}

}  // namespace weft::bpf
