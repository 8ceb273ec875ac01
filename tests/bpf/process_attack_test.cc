// SPDX-License-Identifier: Apache-2.0
// What a program may try to pass for another one, and what each attempt gets. `good` may reach the
// server, nothing else may. A program is its path in its mount namespace, at exec; that path is
// believed where only the workload's own mounts can have made it.
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "tests/bpf/process_world.h"

namespace weft::bpf {
namespace {

namespace fs = std::filesystem;

class AttackTest : public ProcessTest {
 protected:
  void SetUp() override {
    ProcessTest::SetUp();
    good_ = Program("good");
    bad_ = Program("bad");
    Only({good_});
    ASSERT_EQ(Connects(good_), 0);
    ASSERT_EQ(Connects(bad_), EPERM);
    Events();
  }
  std::vector<std::string> Words(std::vector<std::string> before) {
    before.insert(before.end(),
                  {"--helper", "connect", server_pod_.v4.ToString(), std::to_string(kServerPort)});
    return before;
  }
  // Flags of the last exec of the pod.
  uint32_t LastFlags() {
    uint32_t flags = ~0u;
    for (const weft_process_event& event : Events().processes) {
      if (event.kind == WEFT_EVENT_EXEC) flags = event.flags;
    }
    return flags;
  }
  std::string good_, bad_;
};

TEST_F(AttackTest, ANameOfTheSameFileIsAnotherProgram) {
  const std::string renamed = folder_ / "renamed", linked = folder_ / "linked";
  ASSERT_EQ(link(good_.c_str(), linked.c_str()), 0);
  EXPECT_EQ(Connects(linked), EPERM);
  ASSERT_EQ(rename(good_.c_str(), renamed.c_str()), 0);
  EXPECT_EQ(Connects(renamed), EPERM);
}

TEST_F(AttackTest, ASymbolicLinkIsWhatItPointsTo) {
  const std::string to_good = folder_ / "to_good", to_bad = folder_ / "to_bad";
  ASSERT_EQ(symlink(good_.c_str(), to_good.c_str()), 0);
  ASSERT_EQ(symlink(bad_.c_str(), to_bad.c_str()), 0);
  EXPECT_EQ(Connects(to_good), 0);
  EXPECT_EQ(Connects(to_bad), EPERM);
  fs::remove(good_);
  ASSERT_EQ(symlink(bad_.c_str(), good_.c_str()), 0);
  EXPECT_EQ(Connects(good_), EPERM);
}

// Whoever may write the file may be the program: the path is believed, the inode is reported.
TEST_F(AttackTest, WhoMayReplaceTheFileIsTheProgramButTheEventShowsAnotherFile) {
  const auto inode = [&] {
    uint64_t found = 0;
    for (const weft_event& event : Events().flows) {
      const auto binary = node_.kernel().BinaryOf(event.binary);
      if (binary && event.kind == WEFT_EVENT_CONNECT) found = binary->inode;
    }
    return found;
  };
  EXPECT_EQ(Connects(good_), 0);
  const uint64_t before = inode();
  ASSERT_EQ(rename(bad_.c_str(), good_.c_str()), 0);
  EXPECT_EQ(Connects(good_), 0);
  EXPECT_NE(inode(), before);
}

TEST_F(AttackTest, RenamedAfterItsExecItStaysWhatItWas) {
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const UniqueFd out(go[0]), in(go[1]);
  const int kept = dup(0);
  dup2(out.get(), 0);
  Child child(client_pod_, {bad_, "--helper", "wait-connect", server_pod_.v4.ToString(),
                            std::to_string(kServerPort)});
  dup2(kept, 0);
  close(kept);
  WaitProcess(WEFT_EVENT_EXEC, child.pid());
  ASSERT_EQ(rename(bad_.c_str(), good_.c_str()), 0);
  ASSERT_EQ(write(in.get(), "x", 1), 1);
  EXPECT_EQ(child.Wait(), EPERM);
}

TEST_F(AttackTest, ARootOfItsOwnMakesNoPath) {
  // What is called `good_` there is another file. It needs the libraries, so all of / is below it.
  const fs::path root = folder_ / "root";
  fs::create_directories(root.string() + folder_.string());
  for (const char* name : {"lib", "lib64", "usr"}) {
    if (fs::is_symlink(fs::path("/") / name)) {
      fs::create_symlink(fs::read_symlink(fs::path("/") / name), root / name);
    }
  }
  fs::copy_file(bad_, root.string() + good_);
  const std::string script = "mkdir -p " + root.string() + "/usr && mount --bind /usr " +
                             root.string() + "/usr && exec " + bad_ + " --helper chroot-exec " +
                             root.string() + " " + good_ + " --helper connect " +
                             server_pod_.v4.ToString() + " " + std::to_string(kServerPort);
  EXPECT_EQ(RunIn(client_pod_, {"/usr/bin/unshare", "-m", "/bin/sh", "-c", script}), EPERM);
}

// Anybody may have a user namespace, and mounts in it.
TEST_F(AttackTest, AMountOfAnOwnUserNamespaceIsNotBelieved) {
  const std::string script = "mount --bind " + bad_ + " " + good_ + " && exec " + good_ +
                             " --helper connect " + server_pod_.v4.ToString() + " " +
                             std::to_string(kServerPort);
  EXPECT_EQ(RunIn(client_pod_, {"/usr/bin/unshare", "-Urm", "/bin/sh", "-c", script}), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
  // Not even the right file: nobody can tell it there.
  EXPECT_EQ(RunIn(client_pod_, Words({"/usr/bin/unshare", "-Urm", good_})), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
  // A mount namespace of the workload's own user namespace is its root's doing: believed.
  EXPECT_EQ(RunIn(client_pod_, Words({"/usr/bin/unshare", "-m", good_})), 0);
}

// A netns of its own user namespace makes its root nobody's judge: the socket is the pod's.
TEST_F(AttackTest, AMountBesideAnOwnNetnsIsNotBelieved) {
  const std::string to = server_pod_.v4.ToString() + " " + std::to_string(kServerPort);
  const auto with_socket = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {bad_, "--helper", "make-exec"});
    return RunIn(client_pod_, words);
  };
  const std::string script =
      "mount --bind " + bad_ + " " + good_ + " && exec " + good_ + " --helper connect-9 " + to;
  EXPECT_EQ(with_socket({"/usr/bin/unshare", "-Urmn", "/bin/sh", "-c", script}), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
  EXPECT_EQ(with_socket({"/usr/bin/unshare", "-Urmnf", "/bin/sh", "-c", script}), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
  // The pod's own mounts name it, wherever its netns is.
  const std::string connect = " --helper connect-9 " + to;
  EXPECT_EQ(with_socket({"/usr/bin/unshare", "-rn", "/bin/sh", "-c", "exec " + good_ + connect}),
            0);
  EXPECT_EQ(with_socket({"/usr/bin/unshare", "-rn", "/bin/sh", "-c", "exec " + bad_ + connect}),
            EPERM);
}

TEST_F(AttackTest, ANetnsOfItsOwnDoesNotHideAnExec) {
  Policy(client_pod_).rules = {
      {.name = "never", .binaries = {bad_}, .action = model::ProcessPolicy::Action::kKill}};
  Apply();
  const auto kills = [&] {
    int seen = 0;
    for (const weft_process_event& event : Events().processes) {
      if (event.kind != WEFT_EVENT_EXEC || event.reason != WEFT_R_PROCESS_KILLED) continue;
      ++seen;
      EXPECT_EQ(event.workload, client_pod_.id);
      EXPECT_EQ(PathOf(event.binary), bad_);
    }
    return seen;
  };
  const std::string script = bad_ + " --helper exit 7; exit $?";
  kills();
  EXPECT_EQ(RunIn(client_pod_, {"/usr/bin/unshare", "-rn", bad_, "--helper", "exit", "7"}),
            -SIGKILL);
  EXPECT_EQ(kills(), 1);
  EXPECT_EQ(RunIn(client_pod_, {"/usr/bin/unshare", "-rn", "/bin/sh", "-c", script}),
            128 + SIGKILL);
  EXPECT_EQ(kills(), 1);
  // clone() right into a netns, and once more.
  EXPECT_EQ(RunIn(client_pod_,
                  {"/usr/bin/unshare", "-rnf", "/usr/bin/unshare", "-nf", "/bin/sh", "-c", script}),
            128 + SIGKILL);
  EXPECT_EQ(kills(), 1);
  EXPECT_EQ(RunIn(client_pod_, {"/usr/bin/unshare", "-rn", good_, "--helper", "exit", "7"}), 7);
}

// Whoever makes sockets for a pod (the node's agent, a runtime) is not the pod's for it.
TEST_F(AttackTest, WhoOnlyUsesAPodsSocketIsNotThePods) {
  Policy(client_pod_).rules = {
      {.name = "never", .binaries = {bad_}, .action = model::ProcessPolicy::Action::kKill}};
  Apply();
  const UniqueFd fd = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(fd, server_pod_.At(kServerPort)), 0);
  Events();
  EXPECT_EQ(WEXITSTATUS(system((bad_ + " --helper exit 7").c_str())), 7);
  EXPECT_TRUE(Events().processes.empty());
}

TEST_F(AttackTest, AnotherPodsProgramOfThatNameIsNotThisPods) {
  int channel[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), 0);
  const UniqueFd a(channel[0]), b(channel[1]);
  const auto passed_to = [&](const Pod& pod) {
    EXPECT_EQ(
        RunIn(client_pod_, {good_, "--helper", "send-socket", std::to_string(a.get())}, {a.get()}),
        0);
    return RunIn(pod,
                 {good_, "--helper", "connect-received", std::to_string(b.get()),
                  server_pod_.v4.ToString(), std::to_string(kServerPort)},
                 {b.get()});
  };
  EXPECT_EQ(passed_to(client_pod_), 0);
  EXPECT_EQ(passed_to(other_pod_), EPERM);
}

TEST_F(AttackTest, AProgramFromMemoryHasNoPath) {
  std::vector<std::string> words = {bad_, "--helper", "from-memory"};
  const std::vector<std::string> rest = Words({good_});
  // memfd_create() is told the name `good_`, with all its slashes.
  words.insert(words.end(), rest.begin(), rest.end());
  EXPECT_EQ(RunIn(client_pod_, words), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
}

TEST_F(AttackTest, AScriptIsItsInterpreter) {
  const std::string script = folder_ / "script";
  std::ofstream(script) << "#!" << bad_ << " --helper\n";
  chmod(script.c_str(), 0755);
  fs::remove(good_);
  fs::copy_file(script, good_);
  chmod(good_.c_str(), 0755);
  // The interpreter is given: bad --helper good connect IP PORT; it takes the path for its word.
  EXPECT_EQ(RunIn(client_pod_,
                  {good_, "connect", server_pod_.v4.ToString(), std::to_string(kServerPort)}),
            95);
  for (const weft_process_event& event : Events().processes) {
    if (event.kind != WEFT_EVENT_EXEC) continue;
    EXPECT_EQ(PathOf(event.binary), bad_);
  }
}

TEST_F(AttackTest, LongPathsAndDeepOnes) {
  // Longer than the kernel compares: the beginning is compared, so that no exact path matches.
  std::string longer = folder_;
  while (longer.size() < 300) longer += "/directory_of_some_length";
  fs::create_directories(longer);
  const std::string in_long = longer + "/good";
  fs::copy_file(good_, in_long);
  EXPECT_EQ(Connects(in_long), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_PATH_CUT);
  Only({folder_.string() + "/directory*"});
  EXPECT_EQ(Connects(in_long), 0);
  // More names than are looked at: nobody can say where it is, so it is no named program.
  std::string deep = folder_.string() + "/d";
  for (int i = 0; i < 80; ++i) deep += "/d";
  fs::create_directories(deep);
  fs::copy_file(good_, deep + "/good");
  Only({folder_.string() + "/d*"});
  EXPECT_EQ(Connects(deep + "/good"), EPERM);
  EXPECT_TRUE(LastFlags() & WEFT_PROCESS_UNTRUSTED);
}

TEST_F(AttackTest, ArgumentsCannotBeHidden) {
  Policy(client_pod_).rules = {{.name = "no-e",
                                .arguments = {"-e"},
                                .connects = true,
                                .action = model::ProcessPolicy::Action::kDeny}};
  Apply();
  EXPECT_EQ(Connects(bad_), 0);
  EXPECT_EQ(Connects(bad_, {"-e"}), EPERM);
  EXPECT_EQ(Connects(bad_, {"-" + std::string(20000, 'x'), "-e"}), EPERM);
  EXPECT_EQ(Connects(bad_, {"-" + std::string(126, 'x') + "-e"}), 0);
  EXPECT_EQ(Connects(bad_, {"-" + std::string(125, 'x') + "-e"}), 0);
  EXPECT_EQ(Connects(bad_, {"-" + std::string(124, 'x') + "-e"}), 0);
  EXPECT_EQ(Connects(bad_, std::vector<std::string>(600, "-x")), 0);
  // More than are read: it is taken to have every one.
  EXPECT_EQ(Connects(bad_, std::vector<std::string>(1500, "-x")), EPERM);
}

}  // namespace
}  // namespace weft::bpf
