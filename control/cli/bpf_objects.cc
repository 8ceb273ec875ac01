// SPDX-License-Identifier: Apache-2.0
#include "control/cli/bpf_objects.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

int Bpf(bpf_cmd command, bpf_attr* attr) {
  return static_cast<int>(syscall(SYS_bpf, command, attr, sizeof *attr));
}

// The kernel names the object of a descriptor in fdinfo: "map_id:\t17".
bool Identify(int fd, BpfObject* object) {
  std::ifstream in("/proc/self/fdinfo/" + std::to_string(fd));
  std::string line;
  uint32_t map = 0, program = 0, link = 0;
  while (std::getline(in, line)) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) continue;
    const auto value = static_cast<uint32_t>(strtoul(line.c_str() + tab, nullptr, 10));
    if (line.starts_with("map_id:")) map = value;
    if (line.starts_with("prog_id:")) program = value;
    if (line.starts_with("link_id:")) link = value;
  }
  // A link shows its program's id too.
  object->kind = link != 0  ? BpfObject::Kind::kLink
                 : map != 0 ? BpfObject::Kind::kMap
                            : BpfObject::Kind::kProgram;
  object->id = link != 0 ? link : map != 0 ? map : program;
  return object->id != 0;
}

}  // namespace

std::vector<BpfObject> PinnedBelow(const std::string& directory) {
  std::vector<BpfObject> found;
  std::error_code error;
  for (const auto& item : fs::recursive_directory_iterator(directory, error)) {
    if (item.is_directory(error)) continue;
    const std::string path = item.path();
    bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.pathname = reinterpret_cast<uint64_t>(path.c_str());
    const int fd = Bpf(BPF_OBJ_GET, &attr);
    if (fd < 0) continue;
    BpfObject object{.pin = path};
    if (Identify(fd, &object)) found.push_back(object);
    close(fd);
  }
  return found;
}

bool StillExists(const BpfObject& object) {
  bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  bpf_cmd command = BPF_MAP_GET_FD_BY_ID;
  attr.map_id = object.id;
  if (object.kind == BpfObject::Kind::kProgram) {
    command = BPF_PROG_GET_FD_BY_ID;
    attr.prog_id = object.id;
  } else if (object.kind == BpfObject::Kind::kLink) {
    command = BPF_LINK_GET_FD_BY_ID;
    attr.link_id = object.id;
  }
  const int fd = Bpf(command, &attr);
  if (fd < 0) return false;
  close(fd);
  return true;
}

}  // namespace weft::cli
