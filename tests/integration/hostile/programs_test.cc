// SPDX-License-Identifier: Apache-2.0
// The programs without root, with flags and files that are wrong, with a port in use: each says
// what and which, and ends with the code for it. weft-agent: tests/mesh/refusal_test.cc;
// weft-control: tests/integration/control.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "proxy/net/listen.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

class Programs : public testing::Test {
 protected:
  struct Outcome {
    int code = -1;
    std::string said;
  };
  Programs() {
    char name[] = "/tmp/weft-hostile-XXXXXX";
    directory_ = mkdtemp(name);
    std::filesystem::permissions(directory_, std::filesystem::perms::all);
  }
  ~Programs() override { std::filesystem::remove_all(directory_); }

  static Outcome Run(std::vector<std::string> argv, bool as_nobody = false) {
    int pipe_fds[2];
    EXPECT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(pipe_fds[1], 1);
      dup2(pipe_fds[1], 2);
      alarm(20);
      if (as_nobody && (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        _exit(126);
      std::vector<char*> args;
      for (std::string& arg : argv) args.push_back(arg.data());
      args.push_back(nullptr);
      execv(args[0], args.data());
      _exit(127);
    }
    close(pipe_fds[1]);
    Outcome out;
    char buffer[4096];
    for (ssize_t n = 0; (n = read(pipe_fds[0], buffer, sizeof buffer)) > 0;) {
      out.said.append(buffer, static_cast<size_t>(n));
    }
    close(pipe_fds[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    out.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return out;
  }

  std::string directory_;
};

TEST_F(Programs, WithoutRootTheySaySo) {
  if (geteuid() != 0) GTEST_SKIP() << "starts programs as another user";
  const Outcome sockets =
      Run({WEFT_SOCKETS, "--control", directory_ + "/s.sock", "--node", "x"}, true);
  EXPECT_EQ(sockets.code, 1);
  EXPECT_THAT(sockets.said, HasSubstr("needs root"));
  const Outcome keyd =
      Run({WEFT_KEYD, "--control", directory_ + "/k.sock", "--uid", "64995"}, true);
  EXPECT_EQ(keyd.code, 1);
  EXPECT_THAT(keyd.said, HasSubstr("cannot give up privileges"));
  const Outcome proxy =
      Run({WEFT_PROXY, "--xds", "127.0.0.1:1", "--sandbox", "--uid", "64995"}, true);
  EXPECT_EQ(proxy.code, 1);
  EXPECT_THAT(proxy.said, HasSubstr("--uid (needs root)"));
}

TEST_F(Programs, UnknownFlagsAreNamed) {
  for (const char* program : {WEFT_SOCKETS, WEFT_KEYD, WEFT_PROXY}) {
    SCOPED_TRACE(program);
    const Outcome out = Run({program, "--frobnicate"});
    EXPECT_EQ(out.code, 64);
    EXPECT_THAT(out.said, HasSubstr("--frobnicate"));
  }
}

TEST_F(Programs, ABootstrapThatIsNoneIsBadInput) {
  const std::string path = directory_ + "/bootstrap.yaml";
  std::ofstream(path) << "node: {id: x\nadmin";  // half-written
  const Outcome half = Run({WEFT_PROXY, "--config", path});
  EXPECT_EQ(half.code, 65);
  EXPECT_THAT(half.said, HasSubstr(path));
  std::ofstream(path) << "static_resources: {listeners: []}\n";
  const Outcome unknown = Run({WEFT_PROXY, "--config", path});
  EXPECT_EQ(unknown.code, 65);
  EXPECT_THAT(unknown.said, HasSubstr("listeners"));
  const Outcome missing = Run({WEFT_PROXY, "--config", directory_ + "/gone"});
  EXPECT_EQ(missing.code, 65);
  EXPECT_THAT(missing.said, HasSubstr("gone"));
}

TEST_F(Programs, AnAdminPortInUseIsNamed) {
  const absl::StatusOr<int> taken = net::ListenTcp(*SocketAddress::Parse("127.0.0.1:0"));
  ASSERT_TRUE(taken.ok());
  const std::string address = net::LocalAddress(*taken).ToString();
  const Outcome out = Run({WEFT_PROXY, "--xds", "127.0.0.1:1", "--admin", address});
  close(*taken);
  EXPECT_EQ(out.code, 1);
  EXPECT_THAT(out.said, HasSubstr(address));
  EXPECT_THAT(out.said, HasSubstr("in use"));
}

}  // namespace
}  // namespace weft::test
