// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/programs.h"

#include <bpf/btf.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace weft::bpf {
namespace {

constexpr size_t kMaxLogBytes = 3000;  // of libbpf's text that an error carries: the end says why

// libbpf reports by a process-wide callback; the text of this thread's last operation goes into its
// error.
thread_local std::string libbpf_text;

int Collect(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  va_list again;
  va_copy(again, arguments);
  std::string text(static_cast<size_t>(vsnprintf(nullptr, 0, format, arguments)) + 1, '\0');
  vsnprintf(text.data(), text.size(), format, again);
  va_end(again);
  text.pop_back();
  libbpf_text += text;
  if (libbpf_text.size() > kMaxLogBytes) libbpf_text.erase(0, libbpf_text.size() - kMaxLogBytes);
  return 0;
}

absl::Status LibbpfError(int error, const std::string& what) {
  absl::Status status = ErrnoStatus(error, what);
  if (!libbpf_text.empty()) {
    status = absl::Status(status.code(),
                          AbslView(std::string(StdView(status.message())) + "\n" + libbpf_text));
  }
  return status;
}

uint32_t WantedEntries(std::string_view map, const MapSizes& sizes) {
  if (map == "weft_workloads") return sizes.workloads;
  if (map == "weft_resolvers") return sizes.workloads * 4;
  if (map == "weft_addrs") return sizes.addresses;
  if (map == "weft_services") return sizes.services;
  if (map == "weft_pools") return sizes.services;
  if (map == "weft_cells") return sizes.cells;
  if (map == "weft_affinity") return sizes.affinities;
  if (map == "weft_policy") return sizes.policies;
  if (map == "weft_subjects") return sizes.workloads;
  if (map == "weft_classes" || map == "weft_blocks") return sizes.classes;
  if (map == "weft_handovers") return sizes.handovers;
  if (map == "weft_splice" || map == "weft_ends") return sizes.spliced;
  if (map == "weft_listeners") return sizes.workloads * 3;
  if (map == "weft_guards") return sizes.workloads * 2;
  if (map == "weft_flows") return sizes.flows;
  if (map == "weft_events" || map == "weft_proc_events") return sizes.event_bytes;
  if (map == "weft_proc_rules") return sizes.process_rules;
  if (map == "weft_processes") return sizes.processes;
  if (map == "weft_activity") return sizes.workloads;
  if (map == "weft_watches") return sizes.workloads * 2;
  return 0;
}

// 0: not pinned.
uint32_t PinnedEntries(const std::string& path) {
  UniqueFd fd(bpf_obj_get(path.c_str()));
  bpf_map_info info{};
  uint32_t length = sizeof info;
  if (!fd.ok() || bpf_map_get_info_by_fd(fd.get(), &info, &length) != 0) return 0;
  return info.max_entries;
}

}  // namespace

absl::StatusOr<ObjectPtr> OpenObject(const EmbeddedObject& embedded, const PinPaths& paths,
                                     const MapSizes& sizes) {
  libbpf_set_print(Collect);
  libbpf_text.clear();
  bpf_object_open_opts options{};
  options.sz = sizeof options;
  options.object_name = embedded.name;
  options.pin_root_path = paths.maps.c_str();
  ObjectPtr object(bpf_object__open_mem(embedded.bytes.data(), embedded.bytes.size(), &options));
  if (!object) {
    return LibbpfError(errno, std::string("open BPF object ") + embedded.name);
  }
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object.get()) {
    const uint32_t wanted = WantedEntries(bpf_map__name(map), sizes);
    const char* pin = bpf_map__pin_path(map);
    const uint32_t pinned = pin == nullptr ? 0 : PinnedEntries(pin);
    if (pinned == 0 && wanted == 0) continue;
    bpf_map__set_max_entries(map, pinned != 0 ? pinned : wanted);
  }
  return object;
}

absl::Status LoadObject(const EmbeddedObject& embedded, bpf_object* object) {
  libbpf_text.clear();
  if (const int error = bpf_object__load(object); error != 0) {
    return LibbpfError(-error, std::string("load BPF object ") + embedded.name);
  }
  return absl::OkStatus();
}

absl::StatusOr<bpf_program*> FindProgram(bpf_object* object, const char* name) {
  bpf_program* program = bpf_object__find_program_by_name(object, name);
  if (program == nullptr) {
    return absl::InternalError(std::string("BPF program ") + name + " is not in its object");
  }
  return program;
}

void* FindVariable(bpf_object* object, const char* section, const char* variable) {
  const btf* types = bpf_object__btf(object);
  if (types == nullptr) return nullptr;
  const int id = btf__find_by_name_kind(types, section, BTF_KIND_DATASEC);
  if (id < 0) return nullptr;
  const btf_type* data = btf__type_by_id(types, id);
  const btf_var_secinfo* entries = btf_var_secinfos(data);
  bpf_map* map = nullptr;
  char* base = nullptr;
  size_t size = 0;
  bpf_object__for_each_map(map, object) {
    if (std::string_view(bpf_map__name(map)).ends_with(section)) {
      base = static_cast<char*>(bpf_map__initial_value(map, &size));
    }
  }
  for (int i = 0; base != nullptr && i < btf_vlen(data); ++i) {
    const btf_type* type = btf__type_by_id(types, entries[i].type);
    if (strcmp(btf__name_by_offset(types, type->name_off), variable) == 0 &&
        entries[i].offset + entries[i].size <= size) {
      return base + entries[i].offset;
    }
  }
  return nullptr;
}

absl::Status AttachPinned(const PinPaths& paths, const std::string& name, bpf_program* program,
                          const std::function<bool(const bpf_link_info&)>& adoptable,
                          const std::function<bpf_link*()>& attach) {
  const std::string path = paths.links + "/" + name;
  libbpf_text.clear();
  if (LinkPtr old(bpf_link__open(path.c_str())); old) {
    bpf_link_info info{};
    uint32_t length = sizeof info;
    if (bpf_link_get_info_by_fd(bpf_link__fd(old.get()), &info, &length) == 0 && adoptable(info) &&
        bpf_link__update_program(old.get(), program) == 0) {
      return absl::OkStatus();
    }
  }
  libbpf_text.clear();
  // The old link, if any, is attached to what is gone or no longer ours: the new one first, then
  // its pin.
  LinkPtr link(attach());
  if (!link) return LibbpfError(errno, "attach " + name);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, "unpin " + path);
  if (const int error = bpf_link__pin(link.get(), path.c_str()); error != 0) {
    return LibbpfError(-error, "pin " + path);
  }
  return absl::OkStatus();
}

}  // namespace weft::bpf
