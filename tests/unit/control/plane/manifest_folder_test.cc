// SPDX-License-Identifier: Apache-2.0
// The folder as editors and tools treat it: half-written, renamed, replaced, deleted. Real files
// and real inotify; the watcher's test waits for what it expects, with a limit.
#include "control/plane/manifest_folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>

#include "control/plane/folder_watcher.h"

namespace weft::plane {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    std::string path = (fs::temp_directory_path() / "plane-folder-XXXXXX").string();
    dir_ = mkdtemp(path.data());
  }
  ~FolderTest() override { fs::remove_all(dir_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
  }
  std::string dir_;
};

std::vector<std::string> Texts(const absl::StatusOr<std::vector<ManifestFile>>& files) {
  std::vector<std::string> texts;
  for (const ManifestFile& file : files.value()) {
    texts.push_back(fs::path(file.name).filename().string() + "=" +
                    (file.error.empty() ? file.text : "!" + file.error));
  }
  return texts;
}

TEST_F(FolderTest, ReadsManifestsByNameAndLeavesTheRest) {
  Write("b.yaml", "B");
  Write("a.yml", "A");
  Write("c.json", "C");
  Write(".hidden.yaml", "no");
  Write("a.yaml~", "no");
  Write("a.yaml.swp", "no");
  Write("README.md", "no");
  fs::create_directory(dir_ + "/sub.yaml");
  fs::create_symlink(dir_ + "/b.yaml", dir_ + "/link.yaml");
  ASSERT_EQ(mkfifo((dir_ + "/pipe.yaml").c_str(), 0600), 0);
  ManifestFolder folder(dir_);
  EXPECT_THAT(Texts(folder.Read({})),
              ElementsAre("a.yml=A", "b.yaml=B", "c.json=C", "link.yaml=B",
                          "pipe.yaml=!not a regular file", "sub.yaml=!not a regular file"));
}

TEST_F(FolderTest, AFolderThatIsGoneIsAnError) {
  ManifestFolder folder(dir_ + "/nowhere");
  const auto files = folder.Read({});
  ASSERT_FALSE(files.ok());
  EXPECT_THAT(std::string(files.status().message()), HasSubstr("nowhere"));
}

TEST_F(FolderTest, AFileThatIsBeingWrittenKeepsItsText) {
  const ManifestFolder::Time start{};
  ManifestFolder folder(dir_);
  Write("a.yaml", "whole");
  EXPECT_THAT(Texts(folder.Read(start)), ElementsAre("a.yaml=whole"));
  Write("a.yaml", "ha");
  Write("new.yaml", "ha");
  folder.Note("a.yaml", ManifestFolder::Change::kWriting, start);
  folder.Note("new.yaml", ManifestFolder::Change::kWriting, start);
  EXPECT_THAT(Texts(folder.Read(start)), ElementsAre("a.yaml=whole"));
  EXPECT_EQ(folder.NextDeadline(), start + ManifestFolder::kWriterPatience);
  Write("a.yaml", "whole again");
  folder.Note("a.yaml", ManifestFolder::Change::kComplete, start);
  EXPECT_THAT(Texts(folder.Read(start)), ElementsAre("a.yaml=whole again"));
  // Nobody closes new.yaml: after a while it is taken as it is.
  EXPECT_THAT(Texts(folder.Read(start + ManifestFolder::kWriterPatience)),
              ElementsAre("a.yaml=whole again", "new.yaml=ha"));
  EXPECT_EQ(folder.NextDeadline(), ManifestFolder::Time::max());
}

// Runs the watcher and keeps every state that it reported.
class WatcherTest : public FolderTest {
 protected:
  void Start(WatcherTimes times = {}) {
    watcher_ = std::make_unique<FolderWatcher>(
        io_.get_executor(), dir_,
        [this](absl::StatusOr<std::vector<ManifestFile>> files) {
          states_.push_back(files.ok() ? Texts(files) : std::vector<std::string>{"error"});
        },
        times);
    ASSERT_TRUE(watcher_->Start().ok());
    ASSERT_EQ(states_.size(), 1u);
  }
  // Runs until the last state is this one; false after 10 s.
  bool WaitFor(const std::vector<std::string>& state) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (states_.back() != state && std::chrono::steady_clock::now() < limit)
      io_.run_one_for(milliseconds(50));
    return states_.back() == state;
  }

  boost::asio::io_context io_;
  std::unique_ptr<FolderWatcher> watcher_;
  std::vector<std::vector<std::string>> states_;
};

TEST_F(WatcherTest, SeesNewChangedRenamedAndDeletedFiles) {
  Start();
  EXPECT_THAT(states_.back(), IsEmpty());
  Write("a.yaml", "1");
  EXPECT_TRUE(WaitFor({"a.yaml=1"}));
  Write("a.yaml", "2");
  EXPECT_TRUE(WaitFor({"a.yaml=2"}));
  // The way of editors: a new file under another name, then a rename over the old one.
  Write(".a.yaml.tmp", "3");
  fs::rename(dir_ + "/.a.yaml.tmp", dir_ + "/a.yaml");
  EXPECT_TRUE(WaitFor({"a.yaml=3"}));
  fs::rename(dir_ + "/a.yaml", dir_ + "/b.yaml");
  EXPECT_TRUE(WaitFor({"b.yaml=3"}));
  fs::remove(dir_ + "/b.yaml");
  EXPECT_TRUE(WaitFor({}));
}

TEST_F(WatcherTest, NeverShowsAHalfWrittenFile) {
  Write("a.yaml", "old");
  Write("b.yaml", "1");
  Start();
  const int fd = open((dir_ + "/a.yaml").c_str(), O_WRONLY | O_TRUNC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, "half", 4), 4);
  // Another file changes meanwhile: it is seen, and a.yaml is as it was.
  Write("b.yaml", "2");
  EXPECT_TRUE(WaitFor({"a.yaml=old", "b.yaml=2"}));
  ASSERT_EQ(write(fd, " and half", 9), 9);
  close(fd);
  EXPECT_TRUE(WaitFor({"a.yaml=half and half", "b.yaml=2"}));
  for (const auto& state : states_)
    EXPECT_THAT(state[0], ::testing::AnyOf("a.yaml=old", "a.yaml=half and half"));
}

TEST_F(WatcherTest, FollowsAFolderThatIsReplaced) {
  Write("a.yaml", "1");
  Start({.rescan = milliseconds(50)});
  fs::rename(dir_, dir_ + ".old");
  EXPECT_TRUE(WaitFor({"error"}));
  fs::create_directory(dir_);
  Write("b.yaml", "2");
  EXPECT_TRUE(WaitFor({"b.yaml=2"}));
  fs::remove_all(dir_ + ".old");
  Write("b.yaml", "3");
  EXPECT_TRUE(WaitFor({"b.yaml=3"}));
}

TEST_F(WatcherTest, MayBeDestroyedWithEventsPending) {
  Start();
  Write("a.yaml", "1");
  watcher_.reset();
  io_.run_for(milliseconds(100));
  EXPECT_EQ(states_.size(), 1u);
}

}  // namespace
}  // namespace weft::plane
