// SPDX-License-Identifier: Apache-2.0
// The splice between two pods: bytes right and in order on every path, back-pressure, the off
// switch, and who may enter.
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "control/bpf/netns.h"
#include "tests/bpf/splice_bed.h"

namespace weft::bpf {
namespace {

using SpliceTest = SpliceBed;

class SpliceSizes : public SpliceBed, public testing::WithParamInterface<uint64_t> {};

TEST_P(SpliceSizes, EveryByteArrivesInOrderBothWays) {
  for (const int family : {AF_INET, AF_INET6}) {
    Pair pair = Spliced(family);
    const uint64_t before = stats().messages;
    Direction there{.from = pair.client, .to = pair.server, .total = GetParam()};
    Direction back{.from = pair.server, .to = pair.client, .total = GetParam()};
    there.piece = 100'003;  // not a multiple of anything
    Exchange(there, back);
    EXPECT_GE(stats().messages, before + 2);
    EXPECT_EQ(stats().redirect_failed, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SpliceSizes,
                         testing::Values(1, 1000, 65'536, 1'000'000, 64u << 20));

TEST_F(SpliceTest, TheFirstConnectionEntersOnceItIsAccepted) {
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, server_pod_.At(kPort)), 0);
  EXPECT_EQ(stats().inserted, 0u);  // nothing is known of either program
  for (const weft_event& event : node_.Events()) EXPECT_NE(event.kind, WEFT_EVENT_LEARN);
  FirstWalk();
  EXPECT_EQ(stats().inserted, 0u);  // the client was seen once
  WalkUntil([&] { return stats().inserted == 1; });
  EXPECT_EQ(stats().inserted, 1u);                     // the client, seen twice
  EXPECT_TRUE(node_.kernel().RunDueLateInsertions());  // the server: not accepted yet
  UniqueFd accepted = Accept(server_, Blocking::kNo);
  Settle();
  EXPECT_EQ(stats().inserted, 2u);
  SendAll(client, "spliced");
  EXPECT_EQ(ReceiveSome(accepted, 7), "spliced");
  EXPECT_EQ(stats().messages, 1u);
  EXPECT_EQ(stats().bytes, 7u);
}

TEST_F(SpliceTest, ListeningAnewForgetsWhatWasLearned) {
  Pair pair = Spliced();
  server_ = Listener(server_pod_, kPort + 1);
  server_ = Listener(server_pod_, kPort);
  const uint64_t before = stats().inserted;
  Pair next = Connected(Blocking::kNo, Blocking::kNo);
  EXPECT_EQ(stats().inserted, before + 1);  // the client only, until the iterator has looked
}

TEST_F(SpliceTest, AClientEntersAtOnceWhenItsProcessIsLearned) {
  Pair first = Connected(Blocking::kNo, Blocking::kNo);
  EXPECT_EQ(stats().inserted, 0u);
  Pair second = Connected(Blocking::kNo, Blocking::kNo);  // asked for, not learned
  EXPECT_EQ(stats().inserted, 0u);
  Settle();
  EXPECT_EQ(stats().inserted, 4u);
  Pair third = Connected(Blocking::kNo, Blocking::kNo);
  EXPECT_EQ(stats().inserted, 6u);
}

TEST_F(SpliceTest, WhatEndedBeforeTheWalkIsAskedForAgain) {
  {
    Pair gone = Connected(Blocking::kNo, Blocking::kNo);
    const linger abort{1, 0};
    ASSERT_EQ(setsockopt(gone.client.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort), 0);
  }
  Settle();
  EXPECT_EQ(stats().inserted, 0u);
  Pair pair = Connected(Blocking::kNo, Blocking::kNo);
  Settle();
  EXPECT_EQ(stats().inserted, 2u);
}

// redis-benchmark: a hiredis context, which turns blocking, then clients that never block.
TEST_F(SpliceTest, AProcessOfBothSortsHasItsNonBlockingSocketsSplicedLate) {
  Pair turned = Connected(Blocking::kNo, Blocking::kNo);
  ASSERT_EQ(fcntl(turned.client.get(), F_SETFL, 0), 0);
  Pair pair = Connected(Blocking::kNo, Blocking::kNo);
  FirstWalk();
  EXPECT_EQ(stats().inserted, 2u);  // the servers
  Settle();
  EXPECT_EQ(stats().inserted, 3u);
  Exchange({.from = turned.client, .to = turned.server, .total = 100'000},
           {.from = turned.server, .to = turned.client, .total = 100'000});
  EXPECT_EQ(stats().messages, 0u);
  Exchange({.from = pair.client, .to = pair.server, .total = 100'000},
           {.from = pair.server, .to = pair.client, .total = 100'000});
  EXPECT_GT(stats().messages, 0u);
  Pair next = Connected(Blocking::kNo, Blocking::kNo);
  EXPECT_EQ(stats().inserted, 4u);  // its server: the process is not trusted any more
  Settle();
  EXPECT_EQ(stats().inserted, 5u);
}

// The verdict at a later time of a process that was known not to block.
class SpliceMixed : public SpliceTest {
 protected:
  // The next connection's client enters, but late.
  void ExpectMixed() {
    const uint64_t inserted = stats().inserted;
    Pair next = Connected(Blocking::kNo, Blocking::kNo);
    EXPECT_EQ(stats().inserted, inserted + 1);  // the server
    Settle();
    EXPECT_EQ(stats().inserted, inserted + 2);
    const uint64_t messages = stats().messages;
    Exchange({.from = next.client, .to = next.server, .total = 100'000},
             {.from = next.server, .to = next.client, .total = 100'000});
    EXPECT_GT(stats().messages, messages);
  }
};

TEST_F(SpliceMixed, ByASocketThatBlocksAtConnect) {
  Pair before = Spliced();
  const uint64_t inserted = stats().inserted;
  Pair blocking = Connected(Blocking::kYes, Blocking::kNo);
  Settle();
  EXPECT_EQ(stats().inserted, inserted);  // nothing of this connection, ever
  ExpectMixed();
  Exchange({.from = before.client, .to = before.server, .total = 100'000},
           {.from = before.server, .to = before.client, .total = 100'000});
}

TEST_F(SpliceMixed, ByAMessageToASocketThatTurned) {
  Pair pair = Spliced();
  ASSERT_EQ(fcntl(pair.client.get(), F_SETFL, 0), 0);
  SendAll(pair.server, "by tcp");
  EXPECT_EQ(ReceiveSome(pair.client, 6), "by tcp");
  EXPECT_EQ(stats().peer_blocking, 1u);
  ExpectMixed();
}

TEST_F(SpliceMixed, ByAWalkThatSeesASocketThatTurned) {
  Pair pair = Spliced();
  ASSERT_EQ(fcntl(pair.client.get(), F_SETFL, 0), 0);
  ASSERT_TRUE(node_.kernel().RunLateInsertion(client_pod_.netns.get()).ok());
  ExpectMixed();
}

TEST_F(SpliceMixed, ByTheSecondWalkAndForGoodForThatSocket) {
  Pair first = Connected(Blocking::kNo, Blocking::kNo);
  FirstWalk();
  EXPECT_EQ(stats().inserted, 1u);  // the server
  ASSERT_EQ(fcntl(first.client.get(), F_SETFL, 0), 0);
  Settle();
  ASSERT_EQ(fcntl(first.client.get(), F_SETFL, O_NONBLOCK), 0);
  ExpectMixed();
  EXPECT_EQ(stats().inserted, 3u);
}

// A process that connects once, does not block and stays. `wanted` != 0: with that pid.
class Connecting {
 public:
  Connecting(const Pod& pod, const SocketAddress& to, pid_t wanted = 0) {
    clone_args arguments{};
    arguments.exit_signal = SIGCHLD;
    if (wanted != 0) {
      arguments.set_tid = reinterpret_cast<uintptr_t>(&wanted);
      arguments.set_tid_size = 1;
    }
    fflush(nullptr);
    pid_ = static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
    if (pid_ == 0) {
      const UniqueFd fd = TcpSocket(pod, AF_INET, Blocking::kNo);
      if (Connect(fd, to) == 0) pause();
      _exit(1);
    }
    EXPECT_GT(pid_, 0) << strerror(errno);
  }
  ~Connecting() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

TEST_F(SpliceTest, AProcessIdThatIsUsedAgainIsUnknown) {
  pid_t pid = 0;
  {
    const Connecting first(client_pod_, server_pod_.At(kPort));
    const UniqueFd accepted = Accept(server_, Blocking::kNo);
    Settle();
    ASSERT_EQ(stats().inserted, 2u);
    pid = first.pid();
  }
  const Connecting second(client_pod_, server_pod_.At(kPort), pid);
  ASSERT_EQ(second.pid(), pid);
  const UniqueFd accepted = Accept(server_, Blocking::kNo);
  EXPECT_EQ(stats().inserted, 3u);  // the server
  Settle();
  EXPECT_EQ(stats().inserted, 4u);
}

TEST_F(SpliceTest, ABlockingClientKeepsItsConnectionOut) {
  Pair pair = Connected(Blocking::kYes, Blocking::kNo);
  EXPECT_TRUE(node_.Events().size() == 1);  // nothing asks for the iterator either
  EXPECT_FALSE(node_.kernel().RunDueLateInsertions());
  ASSERT_TRUE(node_.kernel().RunLateInsertion(server_pod_.netns.get()).ok());
  ASSERT_TRUE(node_.kernel().RunLateInsertion(client_pod_.netns.get()).ok());
  Node::Listeners listeners = node_.Listen(client_pod_);
  UniqueFd captured = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(captured, {*IpAddress::Parse("203.0.113.9"), 443}), 0);
  UniqueFd accepted = Accept(listeners.outbound, Blocking::kNo);
  EXPECT_EQ(stats().inserted, 0u);
}

TEST_F(SpliceTest, ABlockingServerIsLearnedAndKeptOutWithItsClients) {
  Pair first = Connected(Blocking::kNo, Blocking::kYes);
  FirstWalk();  // seen blocking once: may be about to change
  EXPECT_EQ(stats().inserted, 0u);
  Settle();  // twice: learned
  const uint64_t inserted = stats().inserted;
  EXPECT_LE(inserted, 1u);  // the client, if its pod was walked before the server's
  Pair next = Connected(Blocking::kNo, Blocking::kYes);
  EXPECT_EQ(stats().inserted, inserted);
  for (Pair* pair : {&first, &next}) {
    SendAll(pair->client, "over tcp");
    EXPECT_EQ(ReceiveSome(pair->server, 8), "over tcp");
  }
  EXPECT_EQ(stats().messages, 0u);
  int queued = 0;
  SendAll(next.client, "12345");
  ASSERT_TRUE(WaitFor(next.server, POLLIN));
  ASSERT_EQ(ioctl(next.server.get(), FIONREAD, &queued), 0);
  EXPECT_EQ(queued, 5);  // 0 for a socket in the map
}

// What a client that turns blocking does, in a process of its own: hiredis (redis-cli) connects
// O_NONBLOCK, clears the flag and reads.
struct Outcome {
  ssize_t bytes;
  int error;
};

int report_fd = -1;

void OnSignal(int) {
  const char note = 's';
  (void)!write(report_fd, &note, 1);
}

class TurningBlocking {
 public:
  // Connects once for each byte it is told, and reports how its recv() ended.
  TurningBlocking(const Pod& pod, const SocketAddress& to) {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    fflush(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      close(pair[0]);
      Run(pod, to, pair[1]);
    }
    close(pair[1]);
    control_ = UniqueFd(pair[0]);
  }
  ~TurningBlocking() {
    control_ = UniqueFd();
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  void Go() { ASSERT_EQ(write(control_.get(), "g", 1), 1); }
  // Waits until it sleeps in recv(); false if it came back (or after 5 s).
  bool SleepsInRecv() {
    const std::string wanted = std::to_string(SYS_recvfrom) + " ";
    for (int i = 0; i < 5000; ++i) {
      std::ifstream file("/proc/" + std::to_string(pid_) + "/syscall");
      std::string line;
      std::getline(file, line);
      // Its main thread makes no other recv() on a stream than the one that is looked for.
      if (line.rfind(wanted, 0) == 0) return true;
      pollfd over{control_.get(), POLLIN, 0};
      if (poll(&over, 1, 1) != 0) return false;
    }
    return false;
  }
  void Signal() {
    ASSERT_EQ(kill(pid_, SIGUSR1), 0);
    char note = 0;
    ASSERT_TRUE(WaitFor(control_, POLLIN));
    ASSERT_EQ(read(control_.get(), &note, 1), 1);
    ASSERT_EQ(note, 's');
  }
  Outcome Result() {
    Outcome outcome{-2, 0};
    EXPECT_TRUE(WaitFor(control_, POLLIN)) << "still in recv()";
    EXPECT_EQ(recv(control_.get(), &outcome, sizeof outcome, MSG_DONTWAIT),
              static_cast<ssize_t>(sizeof outcome));
    return outcome;
  }

 private:
  [[noreturn]] static void Run(const Pod& pod, const SocketAddress& to, int control) {
    report_fd = control;
    struct sigaction action{};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    char go;
    while (read(control, &go, 1) == 1) {
      const UniqueFd fd = TcpSocket(pod, AF_INET, Blocking::kNo);
      if (Connect(fd, to) != 0 || fcntl(fd.get(), F_SETFL, 0) != 0) _exit(1);
      char buffer[16];
      Outcome outcome{};
      outcome.bytes = recv(fd.get(), buffer, sizeof buffer, 0);
      outcome.error = outcome.bytes < 0 ? errno : 0;
      if (write(control, &outcome, sizeof outcome) != sizeof outcome) _exit(2);
    }
    _exit(0);
  }

  pid_t pid_ = -1;
  UniqueFd control_;
};

struct TurnsBlocking {
  const char* name;
  bool signal;   // else the server closes
  bool walks;    // the due walks run while it sleeps in recv()
  bool proxied;  // else direct
};

class SpliceBlocking : public SpliceTest, public testing::WithParamInterface<TurnsBlocking> {};

TEST_P(SpliceBlocking, RecvNeverAnswersEagain) {
  const Node::Listeners listeners = node_.Listen(client_pod_);
  const SocketAddress to = GetParam().proxied ? SocketAddress{*IpAddress::Parse("203.0.113.9"), 443}
                                              : server_pod_.At(kPort);
  TurningBlocking client(client_pod_, to);
  for (int connection = 1; connection <= 3; ++connection) {
    SCOPED_TRACE(connection);
    client.Go();
    UniqueFd accepted = Accept(GetParam().proxied ? listeners.outbound : server_, Blocking::kNo);
    ASSERT_TRUE(client.SleepsInRecv());
    if (GetParam().walks) Settle();
    if (GetParam().signal) {
      client.Signal();
      ASSERT_TRUE(client.SleepsInRecv()) << "recv() failed: " << strerror(client.Result().error);
      SendAll(accepted, "hello");
    } else {
      accepted = UniqueFd();
    }
    const Outcome outcome = client.Result();
    EXPECT_EQ(outcome.bytes, GetParam().signal ? 5 : 0) << strerror(outcome.error);
  }
}

INSTANTIATE_TEST_SUITE_P(Clients, SpliceBlocking,
                         testing::Values(TurnsBlocking{"FinFirst", false, false, false},
                                         TurnsBlocking{"FinWalked", false, true, false},
                                         TurnsBlocking{"SignalFirst", true, false, false},
                                         TurnsBlocking{"SignalWalked", true, true, false},
                                         TurnsBlocking{"FinProxied", false, true, true},
                                         TurnsBlocking{"SignalProxied", true, true, true}),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_F(SpliceTest, AReaderThatBecomesBlockingIsServedByTcp) {
  Pair pair = Spliced();
  ASSERT_EQ(fcntl(pair.server.get(), F_SETFL, 0), 0);
  const uint64_t before = stats().messages;
  SendAll(pair.client, "by tcp");
  EXPECT_EQ(ReceiveSome(pair.server, 6), "by tcp");
  EXPECT_EQ(stats().messages, before);
  EXPECT_EQ(stats().peer_blocking, 1u);
}

TEST_F(SpliceTest, WithoutTheFlagNothingEnters) {
  node_.Announce(server_pod_, WEFT_WL_PROXY_READY);  // the server's annotation is off
  Pair pair = Connected(Blocking::kNo, Blocking::kNo);
  EXPECT_TRUE(node_.Events().size() <= 1);
  node_.kernel().RunDueLateInsertions();
  EXPECT_EQ(stats().inserted, 0u);
}

TEST_F(SpliceTest, BytesSentBeforeTheInsertionAreNotOvertaken) {
  for (int i = 0; i < 20; ++i) {
    server_ = Listener(server_pod_, static_cast<uint16_t>(9000 + i));
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
    ASSERT_EQ(Connect(client, server_pod_.At(static_cast<uint16_t>(9000 + i))), 0);
    SendAll(client, Bytes(0, 1000));
    UniqueFd accepted = Accept(server_, Blocking::kNo);
    Settle();
    const SpliceStats before = stats();
    SendAll(client, Bytes(1000, 1000));  // both in the map now, 1000 bytes unread
    EXPECT_EQ(stats().messages, before.messages);
    EXPECT_EQ(stats().not_quiet, before.not_quiet + 1);
    EXPECT_EQ(ReceiveSome(accepted, 2000), Bytes(0, 2000));
    SendAll(client, Bytes(2000, 1000));  // quiet again: the return rule lets it back
    EXPECT_EQ(ReceiveSome(accepted, 1000), Bytes(2000, 1000));
    EXPECT_EQ(stats().messages, before.messages + 1);
  }
}

// What TCP dropped in this netns for want of room in the receiver's buffer.
uint64_t Pruned(const Pod& pod) {
  uint64_t pruned = 0;
  EXPECT_TRUE(InNetns(pod.netns.get(), [&] {
                std::ifstream file("/proc/thread-self/net/netstat");
                std::string names, values, name, value;
                while (std::getline(file, names) && std::getline(file, values)) {
                  std::istringstream each_name(names), each_value(values);
                  while (each_name >> name && each_value >> value) {
                    if (name == "RcvPruned") pruned = std::stoull(value);
                  }
                }
                return absl::OkStatus();
              }).ok());
  return pruned;
}

// The parameter is the reader's SO_RCVBUF; 0: what the kernel gives it.
class SpliceFull : public SpliceTest, public testing::WithParamInterface<int> {};

TEST_P(SpliceFull, ASleepingReaderHoldsTheWriterAndLosesNothing) {
  Pair pair = Spliced();
  const int room = GetParam();
  if (room != 0) {
    ASSERT_EQ(setsockopt(pair.server.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
  }
  uint64_t sent = 0;
  // Until nothing goes for 300 ms; the bound is far above what TCP itself would buffer.
  while (sent < (64u << 20)) {
    pollfd writable{pair.client.get(), POLLOUT, 0};
    if (poll(&writable, 1, 300) == 0) break;
    const std::string bytes = Bytes(sent, 64 * 1024);
    const ssize_t n = send(pair.client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) continue;
    ASSERT_GT(n, 0) << strerror(errno);
    sent += static_cast<uint64_t>(n);
  }
  EXPECT_LT(sent, 16u << 20);
  EXPECT_GT(stats().peer_full, 0u);
  // A segment that finds no room would be sent again 200 ms later only.
  EXPECT_EQ(Pruned(server_pod_), 0u);
  RecordProperty("accepted_kib", static_cast<int>(sent / 1024));
  printf("sleeping reader: writer held after %zu KiB\n", static_cast<size_t>(sent / 1024));
  EXPECT_TRUE(ReceiveSome(pair.server, sent) == Bytes(0, sent));
  const uint64_t before = stats().messages;
  for (int i = 0; i < 100 && stats().messages == before; ++i) {  // and the splice comes back
    SendAll(pair.client, "x");
    EXPECT_EQ(ReceiveSome(pair.server, 1), "x");
  }
  EXPECT_GT(stats().messages, before);
}

INSTANTIATE_TEST_SUITE_P(Room, SpliceFull, testing::Values(0, 512 << 10));

TEST_F(SpliceTest, TheSwitchStopsLiveConnectionsAndLetsThemBack) {
  Pair pair = Spliced();
  SendAll(pair.client, "a");
  EXPECT_EQ(ReceiveSome(pair.server, 1), "a");
  const SpliceStats before = stats();
  ASSERT_TRUE(node_.kernel().SetSplice(false).ok());
  SendAll(pair.client, Bytes(0, 5000));
  EXPECT_EQ(ReceiveSome(pair.server, 5000), Bytes(0, 5000));
  EXPECT_EQ(stats().messages, before.messages);
  EXPECT_GT(stats().switched_off, before.switched_off);
  ASSERT_TRUE(node_.kernel().SetSplice(true).ok());
  SendAll(pair.client, "b");
  EXPECT_EQ(ReceiveSome(pair.server, 1), "b");
  EXPECT_EQ(stats().messages, before.messages + 1);
}

TEST_F(SpliceTest, HalfCloseKeepsTheOtherDirection) {
  Pair pair = Spliced();
  SendAll(pair.client, Bytes(0, 50'000));
  ASSERT_EQ(shutdown(pair.client.get(), SHUT_WR), 0);
  EXPECT_TRUE(ReceiveSome(pair.server, 50'001) == Bytes(0, 50'000));  // then EOF
  SendAll(pair.server, Bytes(0, 50'000));
  EXPECT_TRUE(ReceiveSome(pair.client, 50'000) == Bytes(0, 50'000));
  pair.server = UniqueFd();
  EXPECT_EQ(ReceiveSome(pair.client, 1), "");
}

TEST_F(SpliceTest, AResetArrivesAfterTheBytes) {
  Pair pair = Spliced();
  SendAll(pair.client, Bytes(0, 10'000));
  const linger abort{1, 0};
  ASSERT_EQ(setsockopt(pair.client.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort), 0);
  pair.client = UniqueFd();
  EXPECT_TRUE(ReceiveSome(pair.server, 10'000) == Bytes(0, 10'000));
  char byte;
  ASSERT_TRUE(WaitFor(pair.server, POLLIN));
  EXPECT_EQ(recv(pair.server.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST_F(SpliceTest, TheCloseEventCountsSplicedBytesAndTheMapsAreEmptyAfterwards) {
  Pair pair = Spliced();
  SendAll(pair.client, Bytes(0, 3000));
  EXPECT_EQ(ReceiveSome(pair.server, 3000), Bytes(0, 3000));
  SendAll(pair.server, Bytes(0, 500));
  EXPECT_EQ(ReceiveSome(pair.client, 500), Bytes(0, 500));
  node_.Events();
  pair.server = UniqueFd();
  EXPECT_EQ(ReceiveSome(pair.client, 1), "");
  pair.client = UniqueFd();
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CLOSE);
  EXPECT_EQ(event.sent_bytes, 3000u);
  EXPECT_EQ(event.received_bytes, 500u);
  EXPECT_EQ(stats().inserted, stats().removed);
}

TEST_F(SpliceTest, TheProxysLegsAreSplicedFromTheFirstByte) {
  Node::Listeners listeners = node_.Listen(client_pod_);
  const SocketAddress elsewhere{*IpAddress::Parse("203.0.113.9"), 443};
  UniqueFd first = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(first, elsewhere), 0);
  EXPECT_EQ(stats().inserted, 1u);  // the proxy's end: nothing is known of the client
  Settle();
  EXPECT_EQ(stats().inserted, 2u);
  UniqueFd waits = Accept(listeners.outbound, Blocking::kNo);
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, elsewhere), 0);
  EXPECT_EQ(stats().inserted, 4u);
  UniqueFd accepted = Accept(listeners.outbound, Blocking::kNo);
  Exchange({.from = client, .to = accepted, .total = 1'000'000},
           {.from = accepted, .to = client, .total = 1'000'000});
  EXPECT_GT(stats().messages, 0u);
}

TEST_F(SpliceTest, ToAppLegsAreSplicedOnceTheServerIsLearned) {
  Pair warm = Spliced();
  UniqueFd to_app = node_.Stamped(server_pod_, WEFT_ROLE_TO_APP, AF_INET);
  ASSERT_EQ(Connect(to_app, server_pod_.At(kPort)), 0);
  UniqueFd accepted = Accept(server_, Blocking::kNo);
  const uint64_t before = stats().messages;
  Exchange({.from = to_app, .to = accepted, .total = 1'000'000},
           {.from = accepted, .to = to_app, .total = 1'000'000});
  EXPECT_GT(stats().messages, before);
}

TEST_F(SpliceTest, APodThatReachesItselfByAVipIsRight) {
  const SocketAddress vip{*IpAddress::Parse("10.96.0.10"), 80};
  ASSERT_TRUE(node_.kernel()
                  .SetService({.id = 1, .vips = {vip}, .backends = {server_pod_.At(kPort)}})
                  .ok());
  UniqueFd client = TcpSocket(server_pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, vip), 0);
  UniqueFd accepted = Accept(server_, Blocking::kNo);
  Settle();
  EXPECT_EQ(stats().inserted, 2u);
  Exchange({.from = client, .to = accepted, .total = 1'000'000},
           {.from = accepted, .to = client, .total = 1'000'000});
  EXPECT_EQ(PeerName(client), vip);
}

// The client's first bytes are in the SYN, or go before its socket is in the map: they must not be
// overtaken.
TEST_F(SpliceTest, FastOpenKeepsTheOrder) {
  const int queue = 16;
  ASSERT_EQ(setsockopt(server_.get(), IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue), 0);
  Pair warm = Spliced();
  for (int i = 0; i < 20; ++i) {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
    const int one = 1;
    ASSERT_EQ(setsockopt(client.get(), IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one), 0);
    ASSERT_EQ(Connect(client, server_pod_.At(kPort)), 0);
    for (uint64_t sent = 0; sent < 5000; sent += 1000) SendAll(client, Bytes(sent, 1000));
    UniqueFd accepted = Accept(server_, Blocking::kNo);
    EXPECT_TRUE(ReceiveSome(accepted, 5000) == Bytes(0, 5000));
  }
}

TEST_F(SpliceTest, ManyConnectionsOfRandomSizesStayRight) {
  Pair warm = Spliced();
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
    ASSERT_EQ(Connect(client, server_pod_.At(kPort)), 0);
    const uint64_t early = random() % 5000;
    SendAll(client, Bytes(0, early));  // before it is accepted
    UniqueFd accepted = Accept(server_, Blocking::kNo);
    Direction there{.from = client, .to = accepted, .total = early + random() % 300'000 + 1};
    there.sent = early;
    there.piece = random() % 50'000 + 1;
    Exchange(there, {.from = accepted, .to = client, .total = random() % 100'000 + 1});
  }
  EXPECT_EQ(stats().redirect_failed, 0u);
  EXPECT_EQ(stats().insert_failed, 0u);
}

// Writers and readers on different CPUs, readers that stop now and then: the path changes under
// load, both ways.
TEST_F(SpliceTest, ChangesOfPathUnderLoadKeepEveryByte) {
  constexpr int kPairs = 6;
  constexpr uint64_t kTotal = 24u << 20;
  std::vector<Pair> pairs;
  for (int i = 0; i < kPairs; ++i) pairs.push_back(Spliced());
  const SpliceStats before = stats();
  std::vector<std::thread> threads;
  for (int i = 0; i < kPairs; ++i) {
    const Pair& pair = pairs[static_cast<size_t>(i)];
    threads.emplace_back([&pair, i] {
      std::mt19937_64 random(static_cast<uint64_t>(i));
      for (uint64_t sent = 0; sent < kTotal;) {
        const uint64_t piece = std::min<uint64_t>(random() % 200'000 + 1, kTotal - sent);
        SendAll(pair.client, Bytes(sent, piece));
        sent += piece;
      }
    });
    threads.emplace_back([&pair, i] {
      std::mt19937_64 random(static_cast<uint64_t>(i) + 1000);
      for (uint64_t got = 0; got < kTotal;) {
        const uint64_t piece = std::min<uint64_t>(random() % 100'000 + 1, kTotal - got);
        if (ReceiveSome(pair.server, piece) != Bytes(got, piece)) {
          ADD_FAILURE() << "wrong or missing bytes near " << got;
          return;
        }
        got += piece;
        if (random() % 50 == 0) {  // the shape of the load: lets the queue fill
          std::this_thread::sleep_for(std::chrono::milliseconds(random() % 5));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const SpliceStats after = stats();
  printf("under load: %zu messages spliced, by TCP: %zu peer full, %zu not quiet, %zu waits\n",
         static_cast<size_t>(after.messages - before.messages),
         static_cast<size_t>(after.peer_full - before.peer_full),
         static_cast<size_t>(after.not_quiet - before.not_quiet),
         static_cast<size_t>(after.peer_waits - before.peer_waits));
  EXPECT_GT(after.peer_full, before.peer_full);
  EXPECT_GT(after.messages, before.messages);
}

// p50 of a ping-pong over event-loop style sockets, in microseconds.
double PingPong(const Pair& pair, size_t size) {
  constexpr int kRounds = 4000;
  const std::string bytes = Bytes(0, size);
  std::thread echo([&] {
    for (int i = 0; i < kRounds; ++i) SendAll(pair.server, ReceiveSome(pair.server, size));
  });
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    SendAll(pair.client, bytes);
    EXPECT_EQ(ReceiveSome(pair.client, size).size(), size);
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  echo.join();
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

TEST_F(SpliceTest, LatencyIsPrinted) {
  const int one = 1;
  node_.Announce(server_pod_, WEFT_WL_PROXY_READY);
  Pair plain = Connected(Blocking::kNo, Blocking::kNo);
  node_.Announce(server_pod_, kFlags);
  Pair spliced = Spliced();
  for (const Pair* pair : {&plain, &spliced}) {
    for (const UniqueFd* fd : {&pair->client, &pair->server}) {
      setsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
  }
  const uint64_t before = stats().messages;
  for (const size_t size : {64u, 1024u, 16384u}) {
    const double tcp = PingPong(plain, size);
    const uint64_t between = stats().messages;
    const double splice = PingPong(spliced, size);
    printf("ping-pong %5zu B, p50: veth TCP %.1f us, spliced %.1f us (%.2fx), %.0f%% spliced\n",
           size, tcp, splice, splice / tcp,
           100.0 * static_cast<double>(stats().messages - between) / 8000);
  }
  EXPECT_GT(stats().messages, before);
}

}  // namespace
}  // namespace weft::bpf
