// SPDX-License-Identifier: Apache-2.0
// How much of each program the verifier looks at, as the kernel itself counts it
// (bpf_prog_info.verified_insns), against what was recorded for this kernel in
// verified/RELEASE.txt. A tenth more fails: it costs every start of an agent, and the limit is a
// million. WEFT_RECORD=1 writes the file anew.
#include <bpf/bpf.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "control/bpf/pins.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

using Counts = std::map<std::string, uint32_t>;  // program -> instructions

std::set<uint32_t> MapsOf(const Node& node) {
  std::set<uint32_t> ids;
  auto paths = PathsOf(node.config().bpffs_root, node.config().node);
  EXPECT_TRUE(paths.ok()) << paths.status();
  for (const auto& pin : std::filesystem::directory_iterator(paths->maps)) {
    const UniqueFd fd(bpf_obj_get(pin.path().c_str()));
    bpf_map_info info{};
    uint32_t length = sizeof info;
    if (fd.ok() && bpf_map_get_info_by_fd(fd.get(), &info, &length) == 0) ids.insert(info.id);
  }
  return ids;
}

Counts VerifiedProgramsOf(const Node& node) {
  Counts counts;
  const std::set<uint32_t> maps = MapsOf(node);
  for (uint32_t id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
    const UniqueFd fd(bpf_prog_get_fd_by_id(id));
    std::array<uint32_t, 64> used{};
    bpf_prog_info info{};
    info.nr_map_ids = used.size();
    info.map_ids = reinterpret_cast<uint64_t>(used.data());
    uint32_t length = sizeof info;
    if (!fd.ok() || bpf_prog_get_info_by_fd(fd.get(), &info, &length) != 0) continue;
    const auto end = used.begin() + std::min<size_t>(info.nr_map_ids, used.size());
    const bool ours = std::any_of(used.begin(), end, [&](uint32_t m) { return maps.contains(m); });
    if (!ours) continue;
    uint32_t& count = counts[info.name];  // as the kernel cuts it
    count = std::max(count, info.verified_insns);
  }
  return counts;
}

std::string RecordFile() {
  utsname name{};
  EXPECT_EQ(uname(&name), 0);
  const std::string release = name.release;
  const size_t dot = release.find('.', release.find('.') + 1);
  return std::string(WEFT_SOURCE_DIR "/tests/bpf/verified/") + release.substr(0, dot) + ".txt";
}

TEST(Verified, NoProgramGrewByATenth) {
  Network network;
  Node node("verified");
  node.Enrol(network.pod(0), WEFT_WL_PROXY_READY | WEFT_WL_SPLICE | WEFT_WL_SPLICE_AUTO);
  const Counts counts = VerifiedProgramsOf(node);
  ASSERT_GE(counts.size(), 15u);
  const std::string file = RecordFile();
  if (getenv("WEFT_RECORD") != nullptr) {
    std::ofstream out(file);
    for (const auto& [program, count] : counts) out << program << ' ' << count << '\n';
    ASSERT_TRUE(out.flush().good()) << file;
  }
  std::ifstream in(file);
  if (!in) {
    GTEST_SKIP() << "nothing is recorded for this kernel: WEFT_RECORD=1 makes " << file;
  }
  Counts recorded;
  std::string program;
  for (uint32_t count = 0; in >> program >> count;) recorded[program] = count;
  for (const auto& [name, count] : counts) {
    printf("%-16s %7u verified instructions, recorded %u\n", name.c_str(), count, recorded[name]);
    EXPECT_TRUE(recorded.contains(name) && recorded[name] != 0) << name << " is not recorded";
    EXPECT_LE(count, recorded[name] + recorded[name] / 10) << name;
  }
}

}  // namespace
}  // namespace weft::bpf
