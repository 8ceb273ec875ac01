// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/self_test.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "control/bpf/scratch_node.h"

namespace weft::bpf {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{30};  // for the whole child
constexpr int kStuckMs = 3000;                 // a byte that takes longer does not come
constexpr int kHeldMs = 50;               // a writer that waits so long is held by back-pressure
constexpr size_t kHoldBelow = 16u << 20;  // far above what TCP itself buffers
constexpr uint16_t kPort = 4711;

absl::Status Fails(const std::string& how) { return absl::InternalError(how); }

// Byte number `offset` of a stream: a mix that makes lost, doubled or moved blocks visible.
char ByteAt(uint64_t offset) {
  uint64_t x = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull;
  x ^= x >> 29;
  return static_cast<char>(x >> (8 * (offset % 8)));
}

// One direction of a connection, with what went and came so far.
class Stream {
 public:
  Stream(const UniqueFd& from, const UniqueFd& to) : from_(from), to_(to) {}

  // Sends what goes at once of so many bytes; 0: the writer is held.
  absl::StatusOr<size_t> SendSome(size_t bytes) {
    std::string piece(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) piece[i] = ByteAt(sent_ + i);
    const ssize_t n = send(from_.get(), piece.data(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) return ErrnoStatus(errno, "send");
    sent_ += static_cast<uint64_t>(n);
    return static_cast<size_t>(n);
  }
  absl::Status Send(size_t bytes) {
    WEFT_ASSIGN_OR_RETURN(const size_t n, SendSome(bytes));
    return n == bytes ? absl::OkStatus() : Fails("a small message was not taken");
  }
  // Reads and compares until everything that was sent has come.
  absl::Status ReceiveAll() {
    static char buffer[256 * 1024];
    while (received_ < sent_) {
      pollfd waiting{to_.get(), POLLIN, 0};
      if (poll(&waiting, 1, kStuckMs) != 1) {
        return Fails(absl::StrCat("stuck at byte ", received_, " of ", sent_));
      }
      const ssize_t n = recv(to_.get(), buffer, sizeof buffer, 0);
      if (n == 0) return Fails(absl::StrCat("ended at byte ", received_, " of ", sent_));
      if (n < 0 && errno != EAGAIN) return ErrnoStatus(errno, "recv");
      for (ssize_t i = 0; i < n; ++i) {
        if (buffer[i] == ByteAt(received_ + static_cast<uint64_t>(i))) continue;
        return Fails(absl::StrCat("wrong byte at ", received_ + static_cast<uint64_t>(i)));
      }
      if (n > 0) received_ += static_cast<uint64_t>(n);
    }
    return received_ == sent_ ? absl::OkStatus() : Fails("bytes that nobody sent");
  }
  // What recv() answers when nothing is left: 0 at the end, else the errno.
  int End() {
    pollfd waiting{to_.get(), POLLIN, 0};
    if (poll(&waiting, 1, kStuckMs) != 1) return EAGAIN;
    char byte;
    const ssize_t n = recv(to_.get(), &byte, 1, 0);
    return n < 0 ? errno : n == 0 ? 0 : EBADMSG;
  }

 private:
  const UniqueFd& from_;
  const UniqueFd& to_;
  uint64_t sent_ = 0, received_ = 0;
};

uint64_t Spliced(ScratchNode& node) { return node.kernel().GetSpliceStats().messages; }

absl::Status Moves(ScratchNode& node, Stream& stream, bool spliced) {
  const uint64_t before = Spliced(node);
  WEFT_RETURN_IF_ERROR(stream.Send(1000));
  WEFT_RETURN_IF_ERROR(stream.ReceiveAll());
  if ((Spliced(node) > before) == spliced) return absl::OkStatus();
  return Fails(spliced ? "a message went by TCP" : "a message was spliced");
}

// Rows. `pair` is a spliced connection, of this row alone.
absl::Status Redirects(ScratchNode& node, ScratchPair& pair) {
  Stream there(pair.client, pair.server), back(pair.server, pair.client);
  for (int i = 0; i < 100; ++i) {
    WEFT_RETURN_IF_ERROR(Moves(node, there, true));
    WEFT_RETURN_IF_ERROR(Moves(node, back, true));
  }
  return absl::OkStatus();
}

absl::Status TellsReadiness(ScratchNode& node, ScratchPair& pair) {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, pair.server.get(), &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  char byte;
  Stream stream(pair.client, pair.server);
  for (int i = 0; i < 3; ++i) {
    if (recv(pair.server.get(), &byte, 1, 0) != -1 || errno != EAGAIN) {
      return Fails("an empty socket does not answer EAGAIN");
    }
    if (epoll_wait(epoll.get(), &event, 1, 0) != 0) return Fails("ready without data");
    const uint64_t before = Spliced(node);
    WEFT_RETURN_IF_ERROR(stream.Send(100));
    if (Spliced(node) == before) return Fails("a message went by TCP");
    if (epoll_wait(epoll.get(), &event, 1, kStuckMs) != 1) return Fails("data without an edge");
    WEFT_RETURN_IF_ERROR(stream.ReceiveAll());
  }
  return absl::OkStatus();
}

// Bytes that are under way by TCP are not overtaken, and the splice comes back behind them.
absl::Status KeepsOrder(ScratchNode& node, ScratchPair& pair) {
  Stream stream(pair.client, pair.server);
  WEFT_RETURN_IF_ERROR(node.kernel().SetSplice(false));
  WEFT_RETURN_IF_ERROR(stream.Send(1000));
  WEFT_RETURN_IF_ERROR(node.kernel().SetSplice(true));
  const uint64_t before = Spliced(node);
  WEFT_RETURN_IF_ERROR(stream.Send(1000));
  if (Spliced(node) != before) return Fails("overtakes bytes that are not read yet");
  WEFT_RETURN_IF_ERROR(stream.ReceiveAll());
  return Moves(node, stream, true);
}

absl::Status HoldsTheWriter(ScratchNode& node, ScratchPair& pair) {
  Stream stream(pair.client, pair.server);
  size_t sent = 0;
  while (sent < kHoldBelow) {
    pollfd writable{pair.client.get(), POLLOUT, 0};
    if (poll(&writable, 1, kHeldMs) == 0) break;
    WEFT_ASSIGN_OR_RETURN(const size_t n, stream.SendSome(64 * 1024));
    sent += n;
  }
  if (sent >= kHoldBelow) return Fails("a sleeping reader does not hold the writer");
  WEFT_RETURN_IF_ERROR(stream.ReceiveAll());
  const uint64_t before = Spliced(node);
  for (int i = 0; i < 100 && Spliced(node) == before; ++i) {
    WEFT_RETURN_IF_ERROR(stream.Send(1));
    WEFT_RETURN_IF_ERROR(stream.ReceiveAll());
  }
  return Spliced(node) > before ? absl::OkStatus() : Fails("never returns to the splice");
}

absl::Status Switches(ScratchNode& node, ScratchPair& pair) {
  Stream stream(pair.client, pair.server);
  WEFT_RETURN_IF_ERROR(Moves(node, stream, true));
  WEFT_RETURN_IF_ERROR(node.kernel().SetSplice(false));
  WEFT_RETURN_IF_ERROR(Moves(node, stream, false));
  WEFT_RETURN_IF_ERROR(node.kernel().SetSplice(true));
  return Moves(node, stream, true);
}

absl::Status HalfCloses(ScratchNode& node, ScratchPair& pair) {
  Stream there(pair.client, pair.server), back(pair.server, pair.client);
  const uint64_t before = Spliced(node);
  WEFT_RETURN_IF_ERROR(there.Send(50'000));
  if (Spliced(node) == before) return Fails("a message went by TCP");
  if (shutdown(pair.client.get(), SHUT_WR) != 0) return ErrnoStatus(errno, "shutdown");
  WEFT_RETURN_IF_ERROR(there.ReceiveAll());
  if (const int end = there.End(); end != 0) return ErrnoStatus(end, "no end of the stream");
  WEFT_RETURN_IF_ERROR(back.Send(50'000));
  return back.ReceiveAll();
}

absl::Status Resets(ScratchNode& node, ScratchPair& pair) {
  Stream there(pair.client, pair.server);
  const uint64_t before = Spliced(node);
  WEFT_RETURN_IF_ERROR(there.Send(10'000));
  if (Spliced(node) == before) return Fails("a message went by TCP");
  const linger abort{1, 0};
  setsockopt(pair.client.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  pair.client = UniqueFd();
  WEFT_RETURN_IF_ERROR(there.ReceiveAll());
  if (const int end = there.End(); end != ECONNRESET) {
    return ErrnoStatus(end, "a reset does not arrive after the bytes");
  }
  return absl::OkStatus();
}

struct Row {
  const char* name;
  absl::Status (*run)(ScratchNode&, ScratchPair&);
};
constexpr Row kRows[] = {
    {"redirect", Redirects}, {"readiness", TellsReadiness},
    {"order", KeepsOrder},   {"back_pressure", HoldsTheWriter},
    {"switch", Switches},    {"half_close", HalfCloses},
    {"reset", Resets},
};

// In the child. Both programs are learned by the first connection.
absl::Status Walk(const SelfTestOptions& options, ScratchNode& node,
                  const std::function<void(const char*, const absl::Status&)>& report) {
  WEFT_RETURN_IF_ERROR(node.Listen(kPort));
  WEFT_ASSIGN_OR_RETURN(const ScratchPair first, node.Connect(kPort));
  node.Settle();
  for (const Row& row : kRows) {
    WEFT_ASSIGN_OR_RETURN(ScratchPair pair, node.Connect(kPort));
    if (options.sabotage) options.sabotage(node.kernel(), row.name);
    const absl::Status status = row.run(node, pair);
    report(row.name, status);
    if (!status.ok()) break;
  }
  return absl::OkStatus();
}

void WriteLine(int fd, std::string_view name, std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  const std::string line = absl::StrCat(AbslView(name), "\t", text, "\n");
  if (write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(3);
}

[[noreturn]] void RunChild(const SelfTestOptions& options, const ScratchNode::Traces& traces,
                           int out) {
  signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<std::unique_ptr<ScratchNode>> node = ScratchNode::Create(traces);
  absl::Status status = node.status();
  if (status.ok()) {
    status = Walk(options, **node, [&](const char* row, const absl::Status& held) {
      WriteLine(out, row, std::string(held.message()));
    });
  }
  if (!status.ok()) WriteLine(out, "", std::string(status.message()));
  WriteLine(out, "end", "");
  _exit(0);
}

// Everything the child writes, until it ends or the time is over.
std::string ReadUntilEnd(int fd, Clock::time_point deadline) {
  std::string all;
  char buffer[4096];
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd waiting{fd, POLLIN, 0};
    if (left.count() <= 0 || poll(&waiting, 1, static_cast<int>(left.count())) != 1) return all;
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) return all;
    all.append(buffer, static_cast<size_t>(n));
  }
}

void Parse(const std::string& text, SelfTestReport* report) {
  bool ended = false;
  for (size_t at = 0; at < text.size();) {
    const size_t tab = text.find('\t', at), line = text.find('\n', at);
    if (tab == std::string::npos || line == std::string::npos) break;
    const std::string name = text.substr(at, tab - at);
    const std::string error = text.substr(tab + 1, line - tab - 1);
    at = line + 1;
    if (name == "end") {
      ended = true;
    } else if (name.empty()) {
      report->error = error;
    } else {
      report->rows.push_back({name, error});
    }
  }
  if (!ended && report->error.empty()) report->error = "did not come to its end";
}

}  // namespace

bool SelfTestReport::ok() const {
  return error.empty() && rows.size() == std::size(kRows) &&
         std::all_of(rows.begin(), rows.end(), [](const auto& row) { return row.error.empty(); });
}

std::string SelfTestReport::Summary() const {
  if (!error.empty()) return "the self-test could not be run: " + error;
  for (const SelfTestRow& row : rows) {
    if (!row.error.empty()) return row.name + " does not hold on this kernel: " + row.error;
  }
  return absl::StrCat(rows.size(), " rows hold, in ", took.count(), " ms");
}

SelfTestReport RunSelfTest(const SelfTestOptions& options) {
  const Clock::time_point start = Clock::now();
  SelfTestReport report;
  const absl::StatusOr<ScratchNode::Traces> traces = ScratchNode::PlaceOf(options);
  int ends[2];
  if (!traces.ok() || pipe(ends) != 0) {
    report.error = traces.ok() ? strerror(errno) : std::string(traces.status().message());
    return report;
  }
  UniqueFd in(ends[0]), out(ends[1]);
  const pid_t child = fork();
  if (child == 0) RunChild(options, *traces, out.get());
  out = UniqueFd();
  if (child < 0) {
    report.error = strerror(errno);
    return report;
  }
  Parse(ReadUntilEnd(in.get(), start + kPatience), &report);
  kill(child, SIGKILL);  // it has ended by itself, or is stuck
  waitpid(child, nullptr, 0);
  const absl::Status cleaned = traces->CleanUp();
  if (!cleaned.ok() && report.error.empty()) report.error = std::string(cleaned.message());
  report.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  return report;
}

}  // namespace weft::bpf
