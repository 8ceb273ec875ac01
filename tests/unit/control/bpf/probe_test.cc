// SPDX-License-Identifier: Apache-2.0
// Paths that are not what they should be: refused before anything is mounted or loaded.
#include "control/bpf/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "proxy/base/status.h"

namespace weft::bpf {
namespace {

using testing::HasSubstr;

class Paths : public testing::Test {
 protected:
  Paths() {
    char name[] = "/tmp/weft-hostile-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Paths() override { std::filesystem::remove_all(path_); }
  std::string path_;
};

// A mount would hide what is in the folder.
TEST_F(Paths, AFolderWithSomethingInItIsNotMountedOver) {
  std::ofstream(path_ + "/precious") << "x";
  const absl::Status status = MountBpffs(path_);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--bpffs"));
  EXPECT_FALSE(IsBpffs(path_));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/precious"));
}

TEST_F(Paths, AnOrdinaryFolderIsNoCgroup) {
  EXPECT_THAT(std::string(CheckCgroup2(path_).message()), HasSubstr("not a cgroup v2 mount"));
  EXPECT_THAT(std::string(CheckCgroup2(path_ + "/gone").message()), HasSubstr("No such file"));
  const auto root = FindCgroup2Root();
  EXPECT_TRUE(!root.ok() || CheckCgroup2(*root).ok());
}

// What `weft check` says of a feature that is there must not read like a failure: a probe that is
// answered with an errno it hoped for says what that means.
TEST(ProbeFeatures, WhatIsThereIsNotDescribedByAnError) {
  size_t present = 0;
  for (const Feature& feature : ProbeFeatures()) {
    if (!feature.present) continue;
    ++present;
    for (const int error : {ENODEV, EINVAL, ENOENT, EPERM, EBADF, 0}) {
      EXPECT_THAT(feature.detail, testing::Not(HasSubstr(strerror(error)))) << feature.name;
    }
  }
  if (geteuid() != 0) GTEST_SKIP() << "only root can try the features of the kernel";
  EXPECT_GT(present, 5u);
}

}  // namespace
}  // namespace weft::bpf
