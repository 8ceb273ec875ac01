// SPDX-License-Identifier: Apache-2.0
// The tables of facts/splice.md (a, b) as tests: what a program sees of a connection by plain TCP,
// in the splice's map with every byte by TCP, spliced, and changing from one to the other between
// two messages. Rows that a program may do are the same on every path. Rows that splicing breaks
// are the same by plain TCP and under `auto`, which keeps the program out; that they still differ
// when spliced is asserted as well, so that bpf/learn.h has no reason that is none. Rows of
// programs that block are in splice_blocking_rows_test.cc.
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <map>
#include <thread>

#include "tests/bpf/splice_bed.h"
#include "tests/bpf/uring.h"

namespace weft::bpf {
namespace {

constexpr int kHangMs = 500;                       // a wait that takes longer never ends
constexpr size_t kMessage = 100;                   // of two
constexpr std::chrono::milliseconds kBetween{20};  // the reader waits before each: the rows' shape

// How the two messages of a row go.
enum class Path { kPlain, kInMap, kSpliced, kSplicedThenTcp, kTcpThenSpliced, kAuto };
constexpr Path kPaths[] = {Path::kPlain,          Path::kInMap,          Path::kSpliced,
                           Path::kSplicedThenTcp, Path::kTcpThenSpliced, Path::kAuto};

const char* NameOf(Path path) {
  switch (path) {
    case Path::kPlain:
      return "plain";
    case Path::kInMap:
      return "in map";
    case Path::kSpliced:
      return "spliced";
    case Path::kSplicedThenTcp:
      return "spliced, then TCP";
    case Path::kTcpThenSpliced:
      return "TCP, then spliced";
    case Path::kAuto:
      return "auto";
  }
  return "";
}

bool IsSpliced(Path path, int message) {
  return path == Path::kSpliced || (path == Path::kSplicedThenTcp && message == 0) ||
         (path == Path::kTcpThenSpliced && message == 1);
}

std::string Errno(ssize_t result) {
  return result >= 0 ? std::to_string(result) : strerrorname_np(errno);
}

// One row on one path. What the program sees is written down with Note.
class Stage {
 public:
  Stage(Pair& pair, std::function<void(int)> steer) : pair_(pair), steer_(std::move(steer)) {}

  const UniqueFd& client() { return pair_.client; }
  const UniqueFd& server() { return pair_.server; }
  Pair& pair() { return pair_; }
  void Note(const std::string& what) { notes_ += what + "; "; }
  const std::string& notes() const { return notes_; }

  void Send(int message) {
    steer_(message);
    SendAll(pair_.client, Bytes(static_cast<uint64_t>(message) * kMessage, kMessage));
  }
  // Sets the path of what is sent as message `i` by other means.
  void Steer(int message) { steer_(message); }
  // Runs the reader beside the two messages; each is sent when the reader has had time to wait.
  void WhileSending(const std::function<void()>& reader) {
    std::thread thread(reader);
    for (int i = 0; i < 2; ++i) {
      std::this_thread::sleep_for(kBetween);
      Send(i);
    }
    thread.join();
  }
  bool Readable() {
    pollfd waiting{server().get(), POLLIN, 0};
    return poll(&waiting, 1, kHangMs) == 1;
  }
  // The bytes of both messages as the reader got them.
  void Got(const std::string& bytes) {
    Note(bytes == Bytes(0, bytes.size()) ? std::to_string(bytes.size()) + " right" : "WRONG BYTES");
  }
  void ReadRest(size_t expected) { Got(ReceiveSome(server(), expected)); }

 private:
  Pair& pair_;
  std::function<void(int)> steer_;
  std::string notes_;
};

struct Row {
  const char* name;
  bool broken;  // by the splice
  std::function<void(Stage&)> act;
};

class SpliceRows : public SpliceBed, public testing::WithParamInterface<Row> {
 protected:
  // What the program sees, on a connection of its own.
  std::string Run(Path path) {
    const bool in_map = path != Path::kPlain && path != Path::kAuto;
    const uint32_t flags = path == Path::kAuto    ? kFlags | WEFT_WL_SPLICE_AUTO
                           : path == Path::kPlain ? WEFT_WL_PROXY_READY
                                                  : kFlags;
    node_.Enrol(client_pod_, flags);
    node_.Enrol(server_pod_, flags);
    EXPECT_TRUE(node_.kernel().SetSplice(true).ok());
    Pair pair = in_map ? Spliced() : Connected(Blocking::kNo, Blocking::kNo);
    const uint64_t before = stats().inserted;
    Stage stage(pair, [&](int message) {
      EXPECT_TRUE(node_.kernel().SetSplice(IsSpliced(path, message)).ok());
    });
    GetParam().act(stage);
    EXPECT_TRUE(in_map || stats().inserted == before) << "entered the splice";
    return stage.notes();
  }
};

TEST_P(SpliceRows, SeesTheSame) {
  const std::string plain = Run(Path::kPlain);
  bool differs = false;
  for (const Path path : kPaths) {
    const std::string seen = Run(path);
    if (path == Path::kPlain || path == Path::kAuto || !GetParam().broken) {
      EXPECT_EQ(seen, plain) << NameOf(path);
    }
    if (seen != plain) {
      differs = true;
      printf("%s, %s: %s  plain: %s\n", GetParam().name, NameOf(path), seen.c_str(), plain.c_str());
    }
  }
  EXPECT_EQ(differs, GetParam().broken);
  EXPECT_EQ(plain.find("WRONG"), std::string::npos);
}

// Readers.
void ReceiveLoop(Stage& s) {
  s.WhileSending([&] { s.ReadRest(2 * kMessage); });
  char byte;
  s.Note(Errno(recv(s.server().get(), &byte, 1, 0)));
}

void ReadvLoop(Stage& s) {
  s.WhileSending([&] {
    std::string all;
    while (all.size() < 2 * kMessage && s.Readable()) {
      char a[30], b[30];
      iovec parts[2] = {{a, sizeof a}, {b, sizeof b}};
      const ssize_t n = readv(s.server().get(), parts, 2);
      if (n <= 0) break;
      all.append(a, std::min<size_t>(static_cast<size_t>(n), sizeof a));
      if (n > 30) all.append(b, static_cast<size_t>(n) - sizeof a);
    }
    s.Got(all);
  });
}

void DontWaitLoop(Stage& s) {
  s.WhileSending([&] {
    std::string all;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (all.size() < 2 * kMessage && std::chrono::steady_clock::now() < until) {
      char buffer[64];
      const ssize_t n = recv(s.server().get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) all.append(buffer, static_cast<size_t>(n));
    }
    s.Got(all);
  });
}

void Epoll(Stage& s, uint32_t edge) {
  const UniqueFd epoll(epoll_create1(0));
  epoll_event event{.events = EPOLLIN | edge, .data = {}};
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, s.server().get(), &event), 0);
  std::string all;
  for (int i = 0; i < 2; ++i) {
    s.Send(i);
    s.Note(std::to_string(epoll_wait(epoll.get(), &event, 1, kHangMs)) + " ready");
    char buffer[4096];
    ssize_t n = 0;
    while ((n = recv(s.server().get(), buffer, sizeof buffer, 0)) > 0) {
      all.append(buffer, static_cast<size_t>(n));
    }
    s.Note(Errno(n));
    s.Note(std::to_string(epoll_wait(epoll.get(), &event, 1, 0)) + " left");
  }
  s.Got(all);
}

void PeekOne(Stage& s) {
  s.WhileSending([&] {
    std::string all(2 * kMessage, '\0');
    size_t got = 0;
    while (got < all.size() && s.Readable()) {
      char first = 0;
      if (recv(s.server().get(), &first, 1, MSG_PEEK) != 1) break;
      const ssize_t n = recv(s.server().get(), &all[got], all.size() - got, 0);
      if (n <= 0 || all[got] != first) break;
      got += static_cast<size_t>(n);
    }
    all.resize(got);
    s.Got(all);
  });
}

// Readers that the splice breaks.
void LowWaterPoll(Stage& s) {
  const int low = 2 * kMessage;
  setsockopt(s.server().get(), SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
  for (int i = 0; i < 2; ++i) {
    s.Send(i);
    pollfd waiting{s.server().get(), POLLIN, 0};
    s.Note(poll(&waiting, 1, i == 0 ? 50 : kHangMs) == 1 ? "readable" : "not yet");
  }
}

void PeekAll(Stage& s) {
  s.WhileSending([&] {
    char buffer[4096];
    ssize_t most = 0;
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kHangMs);
    while (most < static_cast<ssize_t>(2 * kMessage) && std::chrono::steady_clock::now() < until) {
      most = std::max(most, recv(s.server().get(), buffer, sizeof buffer, MSG_PEEK));
    }
    s.Note("sees " + std::to_string(most));
  });
}

void Pending(Stage& s) {
  s.Send(0);
  s.Send(1);
  ASSERT_TRUE(s.Readable());
  int queued = 0;
  s.Note(Errno(ioctl(s.server().get(), FIONREAD, &queued)));
  s.Note(std::to_string(queued) + " queued");
}

void SpliceFrom(Stage& s) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  const UniqueFd out(ends[0]), in(ends[1]);
  s.WhileSending([&] {
    size_t got = 0;
    for (int i = 0; i < 50 && got < 2 * kMessage && s.Readable(); ++i) {
      const ssize_t n =
          splice(s.server().get(), nullptr, in.get(), nullptr, 4096, SPLICE_F_NONBLOCK);
      if (n > 0) got += static_cast<size_t>(n);
    }
    s.Note(std::to_string(got) + " spliced from it");
  });
}

void Discard(Stage& s) {
  s.Send(0);
  ASSERT_TRUE(s.Readable());
  s.Note(Errno(recv(s.server().get(), nullptr, kMessage, MSG_TRUNC)));
}

void ZeroCopyReceive(Stage& s) {
  const size_t size = 4 * 4096;
  void* area = mmap(nullptr, size, PROT_READ, MAP_SHARED, s.server().get(), 0);
  ASSERT_NE(area, MAP_FAILED) << strerror(errno);
  s.Steer(0);
  SendAll(s.client(), Bytes(0, size));
  ASSERT_TRUE(s.Readable());
  tcp_zerocopy_receive ask{};
  socklen_t length = sizeof ask;
  ask.address = reinterpret_cast<uintptr_t>(area);
  ask.length = size;
  const int result = getsockopt(s.server().get(), IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &ask, &length);
  s.Note(Errno(result));
  s.Note(ask.length + ask.recv_skip_hint > 0 ? "some" : "nothing");
  munmap(area, size);
}

void Urgent(Stage& s) {
  s.Send(0);
  s.ReadRest(kMessage);
  s.Steer(1);
  s.Note(Errno(send(s.client().get(), "!", 1, MSG_OOB)));
  pollfd waiting{s.server().get(), POLLPRI, 0};
  s.Note(poll(&waiting, 1, kHangMs) == 1 ? "POLLPRI" : "no POLLPRI");
  char byte = 0;
  s.Note(Errno(recv(s.server().get(), &byte, 1, MSG_OOB)));
}

void Information(Stage& s) {
  s.Send(0);
  s.Send(1);
  s.ReadRest(2 * kMessage);
  constexpr size_t kBytesReceivedAt = 128;
  char room[256] = {};
  socklen_t length = sizeof room;
  ASSERT_EQ(getsockopt(s.server().get(), IPPROTO_TCP, TCP_INFO, room, &length), 0);
  // bytes_received, which glibc's struct does not have
  uint64_t received = 0;
  memcpy(&received, &room[kBytesReceivedAt], sizeof received);
  s.Note(std::to_string(received) + " received");
}

// Senders.
void SendFile(Stage& s) {
  const UniqueFd file(memfd_create("weft-rows", 0));
  const std::string bytes = Bytes(0, 1 << 20);
  ASSERT_EQ(write(file.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  off_t at = 0;
  s.Steer(0);
  std::thread reader([&] { s.ReadRest(bytes.size()); });
  while (at < static_cast<off_t>(bytes.size())) {
    if (sendfile(s.client().get(), file.get(), &at, bytes.size() - static_cast<size_t>(at)) < 0 &&
        (errno != EAGAIN || !WaitFor(s.client(), POLLOUT))) {
      break;
    }
    s.Steer(1);  // the path changes under the transfer
  }
  reader.join();
  s.Note(std::to_string(at) + " sent");
}

void SpliceInto(Stage& s) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd out(ends[0]), in(ends[1]);
  std::string all;
  for (uint64_t at = 0; at < 40'000; at += 10'000) {
    s.Steer(at < 20'000 ? 0 : 1);
    ASSERT_EQ(write(in.get(), Bytes(at, 10'000).data(), 10'000), 10'000);
    s.Note(Errno(splice(out.get(), nullptr, s.client().get(), nullptr, 10'000, 0)));
    all += ReceiveSome(s.server(), 10'000);
  }
  s.Got(all);
}

void More(Stage& s) {
  s.Steer(0);
  for (uint64_t i = 0; i < 100; ++i) {
    const std::string piece = Bytes(i * 10, 10);
    ASSERT_EQ(send(s.client().get(), piece.data(), 10, i + 1 < 100 ? MSG_MORE : 0), 10);
  }
  ASSERT_TRUE(s.Readable());
  s.ReadRest(1000);
}

void ZeroCopySend(Stage& s) {
  const int one = 1;
  ASSERT_EQ(setsockopt(s.client().get(), SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one), 0);
  std::string all;
  for (int i = 0; i < 2; ++i) {
    s.Steer(i);
    const std::string bytes = Bytes(all.size(), 20'000);
    ASSERT_EQ(send(s.client().get(), bytes.data(), bytes.size(), MSG_ZEROCOPY), 20'000);
    all += ReceiveSome(s.server(), 20'000);
  }
  s.Got(all);
  uint32_t completions = 0;
  pollfd waiting{s.client().get(), 0, 0};
  while (completions < 2 && poll(&waiting, 1, kHangMs) == 1 && (waiting.revents & POLLERR) != 0) {
    char control[256];
    msghdr message{};
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (recvmsg(s.client().get(), &message, MSG_ERRQUEUE) < 0) break;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      sock_extended_err error{};
      memcpy(&error, CMSG_DATA(c), sizeof error);
      completions += error.ee_data - error.ee_info + 1;
    }
  }
  s.Note(std::to_string(completions) + " completions");
}

// Ends.
void HalfCloseLateReader(Stage& s) {
  s.Send(0);
  s.Send(1);
  s.Note(Errno(shutdown(s.client().get(), SHUT_WR)));
  s.ReadRest(2 * kMessage + 1);
  SendAll(s.server(), "back");
  s.Note(ReceiveSome(s.client(), 4));
}

void CloseLateReader(Stage& s) {
  s.Send(0);
  s.Send(1);
  s.pair().client = UniqueFd();
  s.ReadRest(2 * kMessage + 1);
  char byte;
  s.Note(Errno(recv(s.server().get(), &byte, 1, 0)));
}

void ReaderHalfClosedFirst(Stage& s) {
  s.Note(Errno(shutdown(s.server().get(), SHUT_WR)));
  char byte;
  ASSERT_TRUE(WaitFor(s.client(), POLLIN));
  s.Note(Errno(recv(s.client().get(), &byte, 1, 0)));
  s.Send(0);
  s.Send(1);
  s.pair().client = UniqueFd();
  s.ReadRest(2 * kMessage + 1);
}

void Linger(Stage& s) {
  s.Send(0);
  s.Send(1);
  const linger abort{1, 0};
  setsockopt(s.client().get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  s.pair().client = UniqueFd();
  s.ReadRest(2 * kMessage);
  ASSERT_TRUE(s.Readable());
  char byte;
  s.Note(Errno(recv(s.server().get(), &byte, 1, 0)));
  s.Note(Errno(send(s.server().get(), &byte, 1, MSG_NOSIGNAL)));
}

void WriterKilled(Stage& s) {
  s.Steer(0);
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    SendAll(s.client(), Bytes(0, 50'000));
    raise(SIGKILL);
  }
  s.pair().client = UniqueFd();
  waitpid(pid, nullptr, 0);
  s.ReadRest(50'001);
}

void ReaderClosesWithUnread(Stage& s) {
  s.Send(0);
  s.Send(1);
  ASSERT_TRUE(s.Readable());
  s.pair().server = UniqueFd();
  pollfd waiting{s.client().get(), POLLIN, 0};
  poll(&waiting, 1, kHangMs);
  for (int i = 0; i < 2; ++i) s.Note(Errno(send(s.client().get(), "x", 1, MSG_NOSIGNAL)));
}

void IoUring(Stage& s) {
  s.WhileSending([&] {
    std::string all;
    char buffer[4096];
    while (all.size() < 2 * kMessage) {
      if (!s.Readable()) break;
      const int n = ReceiveByIoUring(s.server().get(), buffer, sizeof buffer);
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
    }
    s.Got(all);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Facts, SpliceRows,
    testing::Values(Row{"ReceiveLoop", false, ReceiveLoop}, Row{"ReadvLoop", false, ReadvLoop},
                    Row{"DontWaitLoop", false, DontWaitLoop},
                    Row{"EpollLevel", false, [](Stage& s) { Epoll(s, 0); }},
                    Row{"EpollEdge", false, [](Stage& s) { Epoll(s, EPOLLET); }},
                    Row{"PeekOneByte", false, PeekOne}, Row{"IoUring", false, IoUring},
                    Row{"SendFile", false, SendFile}, Row{"SpliceInto", false, SpliceInto},
                    Row{"More", false, More},
                    Row{"HalfCloseLateReader", false, HalfCloseLateReader},
                    Row{"CloseLateReader", false, CloseLateReader},
                    Row{"ReaderHalfClosedFirst", false, ReaderHalfClosedFirst},
                    Row{"Linger", false, Linger}, Row{"WriterKilled", false, WriterKilled},
                    Row{"LowWaterPoll", true, LowWaterPoll}, Row{"PeekAll", true, PeekAll},
                    Row{"Fionread", true, Pending}, Row{"SpliceFrom", true, SpliceFrom},
                    Row{"Discard", true, Discard}, Row{"ZeroCopyReceive", true, ZeroCopyReceive},
                    Row{"Urgent", true, Urgent}, Row{"ZeroCopySend", true, ZeroCopySend},
                    Row{"TcpInfo", true, Information},
                    // A reset becomes an end: the one difference that no rule keeps away
                    // (docs/design/kernel.md).
                    Row{"ReaderClosesWithUnread", true, ReaderClosesWithUnread}),
    [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace weft::bpf
