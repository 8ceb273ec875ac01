// SPDX-License-Identifier: Apache-2.0
// Processes on real programs: which may reach what, whom events name, and that one pod's flood is
// its own. What somebody may try against it is process_attack_test's.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "control/bpf/address.h"
#include "tests/bpf/process_world.h"

namespace weft::bpf {
namespace {

using Action = model::ProcessPolicy::Action;
using Clock = std::chrono::steady_clock;

std::string Real(const char* path) { return std::filesystem::canonical(path); }

std::string EventPath(const weft_process_event& event) {
  const auto* path = reinterpret_cast<const char*>(event.path);
  return std::string(path, strnlen(path, sizeof event.path));
}

// Answers one HTTP request per connection until destroyed.
class HttpServer {
 public:
  explicit HttpServer(const UniqueFd& listener)
      : thread_([this, &listener] {
          while (!stop_) {
            if (NothingToAccept(listener, 20)) continue;
            const UniqueFd fd = Accept(listener, Blocking::kYes);
            char request[1024];
            if (recv(fd.get(), request, sizeof request, 0) <= 0) continue;
            SendAll(fd, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
          }
        }) {}
  ~HttpServer() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST_F(ProcessTest, OnlyThisBinaryInThisPodMayReachThatService) {
  const std::string curl = Real("/usr/bin/curl"), python = Real("/usr/bin/python3");
  const std::string url = "http://" + server_pod_.At(kServerPort).ToString() + "/";
  const std::vector<std::string> by_curl = {curl, "-s", "-m", "5", "-o", "/dev/null", url};
  const std::vector<std::string> by_python = {python, "-c",
                                              "import socket,sys\n"
                                              "try: socket.create_connection(('" +
                                                  server_pod_.v4.ToString() + "', " +
                                                  std::to_string(kServerPort) +
                                                  "), 5).sendall(b'x')\n"
                                                  "except OSError as e: sys.exit(e.errno)"};
  const HttpServer serving(server_);
  EXPECT_EQ(RunIn(client_pod_, by_curl), 0);
  EXPECT_EQ(RunIn(client_pod_, by_python), 0);
  Only({curl});
  Events();
  EXPECT_EQ(RunIn(client_pod_, by_curl), 0);
  EXPECT_EQ(RunIn(client_pod_, by_python), EPERM);
  // Another pod's is not its business, nor another destination.
  EXPECT_EQ(RunIn(other_pod_, by_python), 0);
  const UniqueFd elsewhere = Listener(other_pod_, kServerPort);
  EXPECT_EQ(RunIn(client_pod_, {python, "-c",
                                "import socket\nsocket.create_connection(('" +
                                    other_pod_.v4.ToString() + "', 8080), 5)"}),
            0);
  int denied = 0;
  for (const weft_event& event : Events().flows) {
    if (event.kind != WEFT_EVENT_CONNECT || event.source_workload != client_pod_.id) continue;
    if (event.destination_workload != server_pod_.id) continue;
    const bool curls = PathOf(event.binary) == curl;
    EXPECT_EQ(event.reason, curls ? WEFT_R_DIRECT : WEFT_R_PROCESS_DENIED);
    EXPECT_EQ(event.maker_pid, event.pid);
    EXPECT_EQ(event.maker_binary, event.binary);
    if (curls) continue;
    ++denied;
    EXPECT_EQ(PathOf(event.binary), python);
    EXPECT_EQ(RuleOf(event.rule), "ProcessPolicy demo/programs only");
  }
  EXPECT_EQ(denied, 1);
  EXPECT_EQ(node_.Count(WEFT_R_PROCESS_DENIED), 1u);
}

TEST_F(ProcessTest, DestinationsByIdentityBlockAndPort) {
  const std::string program = Program("program");
  const UniqueFd other_port = Listener(server_pod_, 9000);
  const auto with = [&](const std::function<void(model::ProcessPolicy::Rule&)>& change) {
    model::ProcessPolicy::Rule rule{
        .name = "r", .binaries = {program}, .connects = true, .action = Action::kDeny};
    change(rule);
    Policy(client_pod_).rules = {rule};
    Apply();
    const auto get = [&](uint16_t port) {
      return RunIn(client_pod_, {program, "--helper", "connect", server_pod_.v4.ToString(),
                                 std::to_string(port)});
    };
    return std::pair(get(kServerPort), get(9000));
  };
  using Rule = model::ProcessPolicy::Rule;
  const std::string identity = snapshot_.workloads[Uid(server_pod_)]->Identity();
  const std::string other = snapshot_.workloads[Uid(other_pod_)]->Identity();
  EXPECT_EQ(with([&](Rule& r) { r.identities = {identity}; }), std::pair(EPERM, EPERM));
  EXPECT_EQ(with([&](Rule& r) { r.identities = {other}; }), std::pair(0, 0));
  EXPECT_EQ(with([&](Rule& r) { r.ports = {{.first = 9000, .last = 9000}}; }), std::pair(0, EPERM));
  EXPECT_EQ(with([&](Rule& r) {
              r.blocks = {
                  {.cidr = {*IpAddress::Parse("10.77.0.0"), 24}, .except = {{server_pod_.v4, 32}}}};
            }),
            std::pair(0, 0));
  EXPECT_EQ(with([&](Rule& r) { r.blocks = {{.cidr = {*IpAddress::Parse("10.0.0.0"), 8}}}; }),
            std::pair(EPERM, EPERM));
  EXPECT_EQ(with([&](Rule& r) { r.binaries = {folder_.string() + "/pro*"}; }),
            std::pair(EPERM, EPERM));
  EXPECT_EQ(with([&](Rule& r) { r.binaries = {folder_.string() + "/pro"}; }), std::pair(0, 0));
}

TEST_F(ProcessTest, AfterExecTheAnswerFollowsTheNewBinary) {
  const std::string good = Program("good"), bad = Program("bad");
  Only({good});
  const std::string ip = server_pod_.v4.ToString(), port = std::to_string(kServerPort);
  const auto first_then = [&](const std::string& one, const std::string& two, int e1, int e2) {
    return RunIn(client_pod_, {one, "--helper", "connect-exec", ip, port, two, "--helper", "report",
                               ip, port, std::to_string(e1), std::to_string(e2)});
  };
  EXPECT_EQ(first_then(good, bad, 0, EPERM), 0);
  EXPECT_EQ(first_then(bad, good, EPERM, 0), 0);
}

TEST_F(ProcessTest, ASocketInheritedOverExecIsJudgedByWhoConnects) {
  const std::string good = Program("good"), bad = Program("bad");
  Only({good});
  const std::string ip = server_pod_.v4.ToString(), port = std::to_string(kServerPort);
  const auto made_by = [&](const std::string& maker, const std::string& user) {
    return RunIn(client_pod_,
                 {maker, "--helper", "make-exec", user, "--helper", "connect-9", ip, port});
  };
  EXPECT_EQ(made_by(bad, good), 0);
  Events();
  EXPECT_EQ(made_by(good, bad), EPERM);
  for (const weft_event& event : Events().flows) {
    if (event.kind != WEFT_EVENT_CONNECT) continue;
    EXPECT_EQ(event.reason, WEFT_R_PROCESS_DENIED);
    EXPECT_EQ(PathOf(event.binary), bad);
    EXPECT_EQ(PathOf(event.maker_binary), good);
    EXPECT_EQ(event.maker_pid, event.pid);
  }
}

TEST_F(ProcessTest, ASocketPassedOnIsJudgedByWhoConnects) {
  const std::string good = Program("good"), bad = Program("bad");
  Only({good});
  const auto passed = [&](const std::string& maker, const std::string& user) {
    int channel[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), 0);
    const UniqueFd a(channel[0]), b(channel[1]);
    EXPECT_EQ(
        RunIn(client_pod_, {maker, "--helper", "send-socket", std::to_string(a.get())}, {a.get()}),
        0);
    return RunIn(client_pod_,
                 {user, "--helper", "connect-received", std::to_string(b.get()),
                  server_pod_.v4.ToString(), std::to_string(kServerPort)},
                 {b.get()});
  };
  EXPECT_EQ(passed(bad, good), 0);
  Events();
  EXPECT_EQ(passed(good, bad), EPERM);
  int seen = 0;
  for (const weft_event& event : Events().flows) {
    if (event.kind != WEFT_EVENT_CONNECT) continue;
    ++seen;
    EXPECT_EQ(PathOf(event.binary), bad);
    EXPECT_EQ(PathOf(event.maker_binary), good);
    EXPECT_NE(event.maker_pid, event.pid);
  }
  EXPECT_EQ(seen, 1);
}

TEST_F(ProcessTest, KillAtConnectFailsTheConnectAndEndsTheProcess) {
  const std::string bad = Program("bad");
  Policy(client_pod_).rules = {
      {.name = "dead", .binaries = {bad}, .connects = true, .action = Action::kKill}};
  Apply();
  ASSERT_TRUE(node_.kernel().kills_at_connect()) << "an older kernel: see the next test";
  Child child(client_pod_, {bad, "--helper", "connect-pause", server_pod_.v4.ToString(),
                            std::to_string(kServerPort)});
  EXPECT_EQ(child.Wait(), -SIGKILL);
  EXPECT_EQ(node_.Count(WEFT_R_PROCESS_KILLED), 1u);
  EXPECT_TRUE(NothingToAccept(server_, 50));
}

TEST(ProcessKill, WhereTheKernelCannotTheReaderOfEventsKills) {
  Network network;
  Node node("prockill", [](KernelConfig& config) { config.kill_in_kernel = false; });
  Pod& client = network.pod(0);
  Pod& server = network.pod(1);
  for (Pod* pod : {&client, &server}) node.Enrol(*pod, WEFT_WL_PROXY_READY);
  const UniqueFd listener = Listener(server, kServerPort);
  node.policy().processes.watches[client.id] = {WEFT_WATCH_CONNECT, 1};
  node.policy().processes.rules[{
      .subject = client.id, .class_number = WEFT_CLASS_ANY, .asks = WEFT_ASKS_CONNECT}] = {
      {0, WEFT_PROCESS_KILL, 1}};
  node.Apply();
  ASSERT_FALSE(node.kernel().kills_at_connect());
  node.Events();
  Child child(client, {std::filesystem::canonical("/proc/self/exe"), "--helper", "connect-pause",
                       server.v4.ToString(), std::to_string(kServerPort)});
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CONNECT).reason, WEFT_R_PROCESS_KILLED);
  EXPECT_EQ(child.Wait(), -SIGKILL);
  EXPECT_TRUE(NothingToAccept(listener, 50));
}

// The event is the kill: a workload whose events are beyond its rate must not live by that.
TEST(ProcessKill, NoFloodOfEventsHoldsUpTheKill) {
  Network network;
  Node node("procdue", [](KernelConfig& config) {
    config.kill_in_kernel = false;
    config.events_per_second = 1;
    config.events_at_once = 4;
  });
  Pod& client = network.pod(0);
  node.Enrol(client, WEFT_WL_PROXY_READY);
  node.policy().processes.watches[client.id] = {WEFT_WATCH_CONNECT, 1 | 1u << 16};
  node.policy().processes.rules[{.subject = client.id,
                                 .class_number = WEFT_CLASS_ANY,
                                 .port = kServerPort,
                                 .length = 16,
                                 .asks = WEFT_ASKS_CONNECT}] = {{0, WEFT_PROCESS_KILL, 1}};
  node.policy().processes.rules[{
      .subject = client.id, .class_number = WEFT_CLASS_ANY, .asks = WEFT_ASKS_CONNECT}] = {
      {0, WEFT_PROCESS_LOG, 2}};
  node.Apply();
  ASSERT_FALSE(node.kernel().kills_at_connect());
  for (int i = 0; i < 200; ++i) {
    Connect(TcpSocket(client, AF_INET, Blocking::kYes), {*IpAddress::Parse("203.0.113.9"), 443});
  }
  ASSERT_GT(node.kernel().Activities().at(0).suppressed, 100u);
  node.Events();
  Child child(client, {std::filesystem::canonical("/proc/self/exe"), "--helper", "connect-pause",
                       network.pod(1).v4.ToString(), std::to_string(kServerPort)});
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CONNECT).reason, WEFT_R_PROCESS_KILLED);
  EXPECT_EQ(child.Wait(), -SIGKILL);
}

TEST_F(ProcessTest, KillAtExecByBinaryAndArguments) {
  const std::string bad = Program("bad"), good = Program("good");
  Policy(client_pod_).rules = {
      {.name = "no-e", .binaries = {bad}, .arguments = {"-e", "-q"}, .action = Action::kKill}};
  Apply();
  Events();
  const auto run = [&](const std::string& path, std::vector<std::string> flags) {
    std::vector<std::string> words = {path, "--helper"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), {"exit", "7"});
    return RunIn(client_pod_, words);
  };
  EXPECT_EQ(run(bad, {}), 7);
  EXPECT_EQ(run(bad, {"-e"}), 7);
  EXPECT_EQ(run(bad, {"-eq"}), 7);
  EXPECT_EQ(run(good, {"-e", "-q"}), 7);
  EXPECT_EQ(run(bad, {"-q", "-e"}), -SIGKILL);
  EXPECT_EQ(RunIn(other_pod_, {bad, "--helper", "-q", "-e", "exit", "7"}), 7);
  int killed = 0;
  for (const weft_process_event& event : Events().processes) {
    if (event.kind != WEFT_EVENT_EXEC || event.reason != WEFT_R_PROCESS_KILLED) continue;
    ++killed;
    EXPECT_EQ(RuleOf(event.rule), "ProcessPolicy demo/programs no-e");
  }
  EXPECT_EQ(killed, 1);
}

TEST_F(ProcessTest, MonitorAndLogOnlyReport) {
  const std::string bad = Program("bad");
  model::ProcessPolicy& policy = Policy(client_pod_);
  policy.enforce = false;
  policy.rules = {{.name = "kill", .binaries = {bad}, .action = Action::kKill},
                  {.name = "deny", .binaries = {bad}, .connects = true, .action = Action::kDeny}};
  Apply();
  Events();
  EXPECT_EQ(Connects(bad), 0);
  const Seen seen = Events();
  const auto exec = std::ranges::find_if(seen.processes, [](const weft_process_event& event) {
    return event.reason == WEFT_R_PROCESS_MATCHED;
  });
  ASSERT_NE(exec, seen.processes.end());
  EXPECT_EQ(RuleOf(exec->rule), "ProcessPolicy demo/programs kill (monitor, Kill)");
  const auto connect = std::ranges::find_if(
      seen.flows, [](const weft_event& event) { return event.kind == WEFT_EVENT_AUDIT; });
  ASSERT_NE(connect, seen.flows.end());
  EXPECT_EQ(connect->reason, WEFT_R_PROCESS_MATCHED);
  EXPECT_EQ(RuleOf(connect->rule), "ProcessPolicy demo/programs deny (monitor, Deny)");
  EXPECT_EQ(node_.Count(WEFT_R_PROCESS_DENIED), 0u);
}

TEST_F(ProcessTest, ExecAndExitSayWhoWhatAndHow) {
  const std::string program = Program("program");
  const Child child(client_pod_, {program, "--helper", "exit", "7", "two words", ""});
  const weft_process_event exec = WaitProcess(WEFT_EVENT_EXEC, child.pid());
  EXPECT_EQ(PathOf(exec.binary), program);
  EXPECT_EQ(EventPath(exec), program);
  EXPECT_EQ(exec.workload, client_pod_.id);
  EXPECT_EQ(exec.netns_cookie, client_pod_.cookie);
  EXPECT_EQ(exec.uid, 0u);
  EXPECT_EQ(exec.flags, 0u);
  struct stat file{}, ns{};
  ASSERT_EQ(stat(program.c_str(), &file), 0);
  EXPECT_EQ(exec.id.inode, file.st_ino);
  EXPECT_EQ(exec.id.device, major(file.st_dev) << 20 | minor(file.st_dev));
  ASSERT_EQ(stat("/proc/self/ns/mnt", &ns), 0);
  EXPECT_EQ(exec.mount_ns, ns.st_ino);
  ASSERT_EQ(stat("/proc/self/ns/pid", &ns), 0);
  EXPECT_EQ(exec.pid_ns, ns.st_ino);
  EXPECT_EQ(exec.parents[0].pid, static_cast<uint32_t>(getpid()));
  std::string words;
  for (const std::string& word : {program, std::string("--helper"), std::string("exit"),
                                  std::string("7"), std::string("two words"), std::string()}) {
    words += word + '\0';
  }
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(exec.arguments), exec.argument_bytes), words);
  const weft_process_event exit = WaitProcess(WEFT_EVENT_EXIT, child.pid());
  EXPECT_EQ(exit.exit_code, 7u << 8);
  EXPECT_EQ(EventPath(exit), program);

  const Child killed(client_pod_, {program, "--helper", std::string(2000, 'x')});
  const weft_process_event cut = WaitProcess(WEFT_EVENT_EXEC, killed.pid());
  EXPECT_TRUE(cut.flags & WEFT_EVENT_ARGUMENTS_CUT);
  EXPECT_EQ(cut.argument_bytes, uint32_t{WEFT_EVENT_ARGUMENT_BYTES});
}

TEST_F(ProcessTest, OutsideOfEnrolledPodsNothingIsSeen) {
  ASSERT_TRUE(node_.kernel().DetachWorkload(client_pod_.cookie).ok());
  Events();
  EXPECT_EQ(RunIn(client_pod_, {"/bin/true"}), 0);
  EXPECT_EQ(WEXITSTATUS(system("/bin/true")), 0);
  EXPECT_TRUE(Events().processes.empty());
}

TEST_F(ProcessTest, AProcessThatRanBeforeIsKnownAndJudged) {
  const std::string good = Program("good"), bad = Program("bad");
  ASSERT_TRUE(node_.kernel().DetachWorkload(client_pod_.cookie).ok());
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const UniqueFd out(go[0]), in(go[1]);
  const auto start = [&](const std::string& path, const std::string& flag) {
    const int kept = dup(0);
    dup2(out.get(), 0);
    auto child = std::make_unique<Child>(
        client_pod_,
        std::vector<std::string>{path, "--helper", flag, "wait-connect", server_pod_.v4.ToString(),
                                 std::to_string(kServerPort)});
    dup2(kept, 0);
    close(kept);
    return child;
  };
  const auto one = start(good, "-a"), two = start(bad, "-a"), three = start(good, "-b");
  for (const auto* child : {&one, &two, &three}) {  // they have become what they are
    std::error_code error;
    const std::string exe = "/proc/" + std::to_string((*child)->pid()) + "/exe";
    while (std::filesystem::read_symlink(exe, error) != (child == &two ? bad : good)) {
      std::this_thread::yield();
    }
  }
  node_.Enrol(client_pod_, WEFT_WL_PROXY_READY);
  const auto found = node_.kernel().ScanProcesses(client_pod_.cookie);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, 0u) << "the enrolment has found them";
  // A rule that comes later asks for arguments that nobody looked for until then.
  Policy(client_pod_).rules = {
      {.name = "only", .not_binaries = {good}, .connects = true, .action = Action::kDeny},
      {.name = "no-b", .arguments = {"-b"}, .connects = true, .action = Action::kDeny}};
  Apply();
  ASSERT_EQ(write(in.get(), "xxx", 3), 3);
  EXPECT_EQ(one->Wait(), 0);
  EXPECT_EQ(two->Wait(), EPERM);
  EXPECT_EQ(three->Wait(), EPERM);
}

TEST_F(ProcessTest, AChangeIsInForceWhenItReturnsAndCutsWhatItForbids) {
  const std::string program = Program("program");
  Child child(client_pod_, {program, "--helper", "connect-wait", server_pod_.v4.ToString(),
                            std::to_string(kServerPort)});
  const UniqueFd accepted = Accept(server_, Blocking::kYes);
  Policy(client_pod_).rules = {{.name = "none",
                                .binaries = {program},
                                .destinations = {Uid(server_pod_)},
                                .connects = true,
                                .action = Action::kDeny}};
  const Clock::time_point start = Clock::now();
  const PolicyReport report = Apply();
  EXPECT_EQ(Connects(program), EPERM);
  const auto cut = node_.kernel().CutDenied(report.changed);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->destroyed, 1u);
  EXPECT_EQ(child.Wait(), ECONNABORTED);
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  printf("in force, asked again and cut in %d ms\n", static_cast<int>(took.count()));
  EXPECT_LT(took.count(), 1000);
  snapshot_.process_policies.clear();
  Apply();
  EXPECT_EQ(Connects(program), 0);
}

// Set A forbids this destination and allows that, set B the other way round; with a rule of the
// network that goes with each. A mix of two would let a connect through.
TEST_F(ProcessTest, NoConnectSeesAMixOfTwoPolicies) {
  const auto set = [&](bool a) {
    Policy(client_pod_).rules = {{.name = "r",
                                  .destinations = {Uid(a ? server_pod_ : other_pod_)},
                                  .connects = true,
                                  .action = Action::kDeny}};
    auto network = std::make_shared<model::NetworkPolicy>();
    network->namespace_name = "demo";
    network->name = "out";
    network->subjects = {Uid(client_pod_)};
    network->isolates_egress = true;
    network->egress = {{.workloads = {Uid(a ? server_pod_ : other_pod_)}, .any_port = true}};
    snapshot_.network_policies[network->Key()] = network;
    return Compiled();
  };
  const PolicyState one = set(true), two = set(false);
  ASSERT_TRUE(node_.kernel().ApplyPolicy(one).status.ok());
  std::atomic<bool> stop = false;
  std::atomic<int> tried = 0, through = 0, wrong = 0;
  std::thread client([&] {
    while (!stop) {
      const UniqueFd fd = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
      const int error = Connect(fd, server_pod_.At(kServerPort));
      ++tried;
      through += error == 0;
      wrong += error != 0 && error != EPERM;
    }
  });
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(node_.kernel().ApplyPolicy(i % 2 == 0 ? two : one).status.ok());
  }
  stop = true;
  client.join();
  printf("100 changes, %d connects, %d came through\n", tried.load(), through.load());
  EXPECT_EQ(through, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(tried, 500);
}

// As above with a slow half: what the process's arguments are is read between the epoch and the
// network's rules, so that a change may come in between.
TEST_F(ProcessTest, NoConnectSeesAMixWhileArgumentsAreRead) {
  const std::string program = Program("program");
  uint32_t changes = 0;
  const auto set = [&](bool a) {
    // A new argument with every change makes those that are there count as not looked for.
    const std::string argument = "-n" + std::to_string(changes++ % 60);
    Policy(client_pod_).rules = {{.name = "r",
                                  .destinations = {Uid(a ? server_pod_ : other_pod_)},
                                  .connects = true,
                                  .action = Action::kDeny},
                                 {.name = "more",
                                  .arguments = {argument},
                                  .destinations = {Uid(other_pod_)},
                                  .connects = true,
                                  .action = Action::kLog}};
    auto network = std::make_shared<model::NetworkPolicy>();
    network->namespace_name = "demo";
    network->name = "out";
    network->subjects = {Uid(client_pod_)};
    network->isolates_egress = true;
    network->egress = {{.workloads = {Uid(a ? server_pod_ : other_pod_)}, .any_port = true}};
    snapshot_.network_policies[network->Key()] = network;
    return Compiled();
  };
  ASSERT_TRUE(node_.kernel().ApplyPolicy(set(true)).status.ok());
  int through = 0, tried = 0;
  bool a = false;
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> words = {program, "--helper"};
    words.insert(words.end(), 1000, "-x");
    words.insert(words.end(),
                 {"connect-often", server_pod_.v4.ToString(), std::to_string(kServerPort)});
    Child child(client_pod_, words);
    WaitProcess(WEFT_EVENT_EXEC, child.pid());
    for (int i = 0; i < 4; ++i, a = !a) {
      ASSERT_TRUE(node_.kernel().ApplyPolicy(set(a)).status.ok());
    }
    kill(child.pid(), SIGTERM);
    const int got = child.Wait();
    ++tried;
    through += got == -SIGUSR1;
    EXPECT_TRUE(got == -SIGTERM || got == -SIGUSR1) << got;
  }
  printf("%u changes, %d programs, %d came through\n", changes, tried, through);
  EXPECT_EQ(through, 0);
}

TEST(ProcessRoom, RulesWithoutRoomCloseTheWorkloadAndRecover) {
  Network network;
  Pod& client = network.pod(0);
  Pod& server = network.pod(1);
  Node node("procroom", [](KernelConfig& config) { config.sizes.process_rules = 16; });
  node.Enrol(client, WEFT_WL_PROXY_READY);
  node.Enrol(server, WEFT_WL_PROXY_READY);
  const UniqueFd listener = Listener(server, kServerPort);
  const auto connect = [&](const Pod& from) {
    return Connect(TcpSocket(from, AF_INET, Blocking::kYes), server.At(kServerPort));
  };
  EXPECT_EQ(connect(client), 0);
  ProcessState& processes = node.policy().processes;
  processes.full_rule = 77;
  processes.watches[client.id] = {WEFT_WATCH_CONNECT, 1};
  for (uint32_t i = 0; i < 40; ++i) {
    processes.rules[{.subject = client.id, .class_number = 1000 + i, .asks = WEFT_ASKS_CONNECT}] = {
        {0, WEFT_PROCESS_LOG, 1}};
  }
  const PolicyReport full = node.kernel().ApplyPolicy(node.policy());
  EXPECT_TRUE(absl::IsResourceExhausted(full.status)) << full.status;
  EXPECT_EQ(full.closed, std::set<uint32_t>{client.id});
  node.Events();
  EXPECT_EQ(connect(client), EPERM);
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CONNECT).rule, 77u);
  processes.rules.erase(std::next(processes.rules.begin(), 4), processes.rules.end());
  const PolicyReport again = node.Apply();
  EXPECT_TRUE(again.closed.empty());
  EXPECT_EQ(connect(client), 0);
}

TEST(ProcessRoom, WithoutRoomToSayWhoHasRulesTheOldOnesStay) {
  Network network;
  Pod& client = network.pod(2);
  Pod& server = network.pod(1);
  Node node("procwatch", [](KernelConfig& config) { config.sizes.workloads = 2; });
  node.Enrol(client, WEFT_WL_PROXY_READY);
  node.Enrol(server, WEFT_WL_PROXY_READY);
  const UniqueFd listener = Listener(server, kServerPort);
  const auto connect = [&] {
    return Connect(TcpSocket(client, AF_INET, Blocking::kYes), server.At(kServerPort));
  };
  const ProcessRuleKey any{
      .subject = client.id, .class_number = WEFT_CLASS_ANY, .asks = WEFT_ASKS_CONNECT};
  ProcessState& processes = node.policy().processes;
  processes.watches[client.id] = {WEFT_WATCH_CONNECT, 1};
  processes.rules[any] = {{0, WEFT_PROCESS_DENY, 1}};
  EXPECT_TRUE(node.Apply().status.ok());
  EXPECT_EQ(connect(), EPERM);
  // Room for four, of which one is taken: the client's is the one that has none.
  for (uint32_t id = 0; id < client.id; ++id) processes.watches[id] = {WEFT_WATCH_CONNECT, 1};
  processes.rules[any] = {{0, WEFT_PROCESS_DENY, 2}};
  const PolicyReport full = node.kernel().ApplyPolicy(node.policy());
  EXPECT_TRUE(absl::IsResourceExhausted(full.status)) << full.status;
  EXPECT_TRUE(full.closed.empty());
  node.Events();
  EXPECT_EQ(connect(), EPERM);
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CONNECT).rule, 1u);
  processes.watches.erase(0);
  processes.watches.erase(1);
  EXPECT_TRUE(node.Apply().status.ok());
  node.Events();
  EXPECT_EQ(connect(), EPERM);
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CONNECT).rule, 2u);
}

TEST(ProcessFlood, OnePodsFloodIsLimitedAndDrownsNobody) {
  Network network;
  Node node("procflood", [](KernelConfig& config) {
    config.events_per_second = 200;
    config.events_at_once = 200;
  });
  Pod& noisy = network.pod(0);
  Pod& quiet = network.pod(1);
  for (Pod* pod : {&noisy, &quiet}) node.Enrol(*pod, WEFT_WL_PROXY_READY);
  const std::string program = "/tmp/wprc-flood-" + std::to_string(getpid());
  std::filesystem::copy_file("/proc/self/exe", program);
  std::map<uint32_t, int> execs, connects;
  const auto consume = [&] {
    node.kernel().Consume(
        [&](const weft_event& event) {
          connects[event.source_workload] += event.kind == WEFT_EVENT_CONNECT;
        },
        [&](const weft_process_event& event) {
          execs[event.workload] += event.kind == WEFT_EVENT_EXEC;
        });
  };
  consume();
  connects.clear();
  execs.clear();
  constexpr int kNoise = 8000, kCalls = 40;
  {
    Child flood(noisy,
                {program, "--helper", "flood", quiet.v4.ToString(), "1", std::to_string(kNoise)});
    // Read as the agent does, so that only the rate decides what is told.
    for (int i = 0; i < kCalls; ++i) {
      EXPECT_EQ(RunIn(quiet, {program, "--helper", "connect", noisy.v4.ToString(), "1"}),
                ECONNREFUSED);
      consume();
    }
    EXPECT_EQ(flood.Wait(), 0);
  }
  consume();
  EXPECT_EQ(execs[quiet.id], kCalls);
  EXPECT_EQ(connects[quiet.id], kCalls);
  uint64_t of_noisy = 0, suppressed = 0;
  for (const Activity& activity : node.kernel().Activities()) {
    EXPECT_EQ(activity.lost, 0u) << activity.workload;
    if (activity.workload == quiet.id) {
      EXPECT_EQ(activity.suppressed, 0u);
    }
    if (activity.workload != noisy.id) continue;
    of_noisy = activity.events;
    suppressed = activity.suppressed;
  }
  printf("the flood: %d connects reported of %d, %llu events, %llu suppressed\n",
         connects[noisy.id], kNoise, static_cast<unsigned long long>(of_noisy),
         static_cast<unsigned long long>(suppressed));
  EXPECT_GT(suppressed, uint64_t{kNoise});
  EXPECT_LT(of_noisy, uint64_t{kNoise});
  std::filesystem::remove(program);
}

TEST(ProcessFlood, ABufferThatIsFullCountsWhoLost) {
  Network network;
  Node node("proclost", [](KernelConfig& config) {
    config.sizes.event_bytes = 1u << 12;
    config.events_per_second = 0;  // no limit
  });
  Pod& pod = network.pod(0);
  node.Enrol(pod, WEFT_WL_PROXY_READY);
  for (int i = 0; i < 200; ++i) {
    Connect(TcpSocket(pod, AF_INET, Blocking::kYes), {*IpAddress::Parse("203.0.113.9"), 443});
  }
  uint64_t told = 0;
  node.kernel().Consume([&](const weft_event&) { ++told; });
  const std::vector<Activity> activities = node.kernel().Activities();
  ASSERT_EQ(activities.size(), 1u);
  EXPECT_EQ(activities[0].workload, pod.id);
  EXPECT_EQ(activities[0].suppressed, 0u);
  EXPECT_GT(activities[0].lost, 0u);
  EXPECT_EQ(activities[0].events, told);
  // With nobody listening a captured connect is refused, and that is all that happens to it.
  EXPECT_EQ(node.Count(WEFT_R_PROXIED), 200u);
}

}  // namespace
}  // namespace weft::bpf
