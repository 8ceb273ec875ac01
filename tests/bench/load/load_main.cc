// SPDX-License-Identifier: Apache-2.0
// Load generator. Open loop: request i is due at start + i / rate, whatever happened to those
// before it, and its latency counts from that moment, so a stall of the system under test is
// charged to every request that it delayed. With --rate 0 it is a closed loop: each connection
// sends its next request when the answer is complete.
//
// Pacing: while requests are under way it sleeps in epoll until an answer or the next due time
// (client and server may share a core: spinning would starve the server); with nothing under way it
// spins to the due time, exact to a microsecond. The time spun away is reported, to be taken off
// the machine's busy time.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string_view>
#include <vector>

#include "tests/bench/load/arguments.h"
#include "tests/bench/load/cpu_account.h"
#include "tests/bench/load/histogram.h"
#include "tests/bench/load/sockets.h"

namespace weft::bench {
namespace {

struct Connection {
  int fd = -1;
  bool busy = false;
  uint64_t due = 0;  // of the request under way
  size_t sent = 0;   // of the request's bytes
  size_t received = 0;
  size_t expected = 0;  // 0: not known yet (HTTP head incomplete)
  std::string head;
  std::deque<uint64_t> queue;  // due times of requests that wait for this connection
};

struct Settings {
  std::string target;
  bool http = false;
  bool bulk = false;
  size_t size = 64;
  double rate = 0;
  int connections = 1;
  double seconds = 5;
  double warmup = 1;
  std::string host;
  std::string charge;  // pids whose CPU time is measured
};

class Load final {
 public:
  explicit Load(Settings settings)
      : settings_(std::move(settings)),
        account_(settings_.charge),
        connections_(settings_.connections) {
    request_ = settings_.http ? "GET /" + std::to_string(settings_.size) +
                                    " HTTP/1.1\r\nHost: " + settings_.host + "\r\n\r\n"
                              : std::string(settings_.size, 'x');
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i].fd = ConnectTo(settings_.target);
      epoll_event event{.events = EPOLLIN | (settings_.bulk ? EPOLLOUT : 0u), .data = {.u64 = i}};
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i].fd, &event);
    }
  }

  void Run() {
    start_ = NowNanoseconds();
    measure_from_ = start_ + static_cast<uint64_t>(settings_.warmup * 1e9);
    end_ = measure_from_ + static_cast<uint64_t>(settings_.seconds * 1e9);
    if (settings_.rate == 0 && !settings_.bulk) {
      for (Connection& c : connections_) Begin(c, NowNanoseconds());
    }
    for (uint64_t now = start_; now < end_; now = NowNanoseconds()) {
      if (!measuring_ && now >= measure_from_) BeginMeasuring();
      IssueDue();
      Wait();
    }
    finished_ = NowNanoseconds();
    cpu_after_ = account_.Now();
  }

  void Print() const {
    const double seconds = static_cast<double>(finished_ - measure_from_) / 1e9;
    const auto answered = static_cast<double>(answered_ > 0 ? answered_ : 1);
    const double busy_s = cpu_after_.machine_s - cpu_before_.machine_s;
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.6f,\"rate\":%.1f,\"bytes\":%" PRIu64
           ",\"gib_per_s\":%.4f,\"late\":%zu,"
           "\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f,"
           "\"mean_us\":%.2f,\"answered\":%" PRIu64
           ",\"proxy_us\":%.3f,\"busy_s\":%.3f,\"spun_s\":%.3f,\"steal_s\":%.3f}\n",
           latency_.total(), seconds, static_cast<double>(latency_.total()) / seconds, bytes_,
           static_cast<double>(bytes_) / seconds / (1u << 30), Unanswered(),
           Us(latency_.Quantile(0.5)), Us(latency_.Quantile(0.9)), Us(latency_.Quantile(0.99)),
           Us(latency_.Quantile(0.999)), Us(latency_.max()), latency_.mean() / 1e3, answered_,
           (cpu_after_.processes_s - cpu_before_.processes_s) * 1e6 / answered, busy_s,
           static_cast<double>(spun_) / 1e9, cpu_after_.steal_s - cpu_before_.steal_s);
  }

 private:
  static double Us(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

  void BeginMeasuring() {
    measuring_ = true;
    cpu_before_ = account_.Now();
    answered_ = spun_ = 0;
  }

  size_t Unanswered() const {
    size_t n = 0;
    for (const Connection& c : connections_) n += c.queue.size() + (c.busy ? 1 : 0);
    return n;
  }

  void IssueDue() {
    if (settings_.rate <= 0) return;
    const uint64_t now = NowNanoseconds();
    for (uint64_t due = DueTime(issued_); due <= now && due < end_; due = DueTime(issued_)) {
      Connection& c = connections_[issued_ % connections_.size()];
      ++issued_;
      if (c.busy) {
        c.queue.push_back(due);
      } else {
        Begin(c, due);
      }
    }
  }

  uint64_t DueTime(uint64_t i) const {
    return start_ + static_cast<uint64_t>(static_cast<double>(i) * 1e9 / settings_.rate);
  }

  void Begin(Connection& c, uint64_t due) {
    c.busy = true;
    c.due = due;
    c.sent = c.received = 0;
    c.head.clear();
    c.expected = settings_.http ? 0 : settings_.size;
    ++under_way_;
    Send(c);
  }

  void Send(Connection& c) {
    while (c.sent < request_.size()) {
      const ssize_t n =
          send(c.fd, request_.data() + c.sent, request_.size() - c.sent, MSG_NOSIGNAL);
      if (n < 0) {
        if (errno != EAGAIN) Die("send to " + settings_.target);
        epoll_event event{.events = EPOLLIN | EPOLLOUT,
                          .data = {.u64 = static_cast<uint64_t>(&c - connections_.data())}};
        epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
        return;
      }
      c.sent += static_cast<size_t>(n);
    }
  }

  void Wait() {
    epoll_event events[64];
    timespec timeout{.tv_sec = 0, .tv_nsec = 20'000'000};
    const uint64_t now = NowNanoseconds();
    if (settings_.rate > 0) {
      const uint64_t due = DueTime(issued_);
      const uint64_t left = due > now ? due - now : 0;
      // Nothing under way: spin the last stretch, so that the request leaves when it is due.
      timeout.tv_nsec = under_way_ == 0 || left == 0
                            ? 0
                            : static_cast<long>(left < 20'000'000 ? left : 20'000'000);
    }
    const int n = epoll_pwait2(epoll_, events, 64, &timeout, nullptr);
    if (n == 0 && timeout.tv_nsec == 0) spun_ += NowNanoseconds() - now;
    for (int i = 0; i < n; ++i) {
      Connection& c = connections_[events[i].data.u64];
      if (settings_.bulk) {
        Pour(c);
        continue;
      }
      if (events[i].events & EPOLLOUT) {
        epoll_event event{.events = EPOLLIN, .data = events[i].data};
        epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
        Send(c);
      }
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) Receive(c);
    }
  }

  void Pour(Connection& c) {
    static const std::vector<char> kBlock(64 * 1024, 'b');
    const ssize_t n = send(c.fd, kBlock.data(), kBlock.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) Die("send to " + settings_.target);
    if (n > 0 && NowNanoseconds() >= measure_from_) bytes_ += static_cast<uint64_t>(n);
  }

  void Receive(Connection& c) {
    const ssize_t n = recv(c.fd, buffer_.data(), buffer_.size(), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) Die("the connection to " + settings_.target + " ended early");
    if (c.expected == 0) {
      c.head.append(buffer_.data(), static_cast<size_t>(n));
      const size_t end = c.head.find("\r\n\r\n");
      if (end == std::string::npos) return;
      if (c.head.compare(0, 12, "HTTP/1.1 200") != 0)
        Die("unexpected answer: " + c.head.substr(0, end));
      c.expected = end + 4 + ContentLength(c.head);
      c.received = c.head.size();
    } else {
      c.received += static_cast<size_t>(n);
    }
    if (c.received >= c.expected) Complete(c);
  }

  static size_t ContentLength(std::string_view head) {
    for (size_t at = 0; (at = head.find("\r\n", at)) != std::string_view::npos; at += 2) {
      static constexpr std::string_view kName = "content-length:";
      if (head.size() > at + 2 + kName.size() &&
          strncasecmp(head.data() + at + 2, kName.data(), kName.size()) == 0) {
        return strtoul(head.data() + at + 2 + kName.size(), nullptr, 10);
      }
    }
    Die("an answer without Content-Length");
  }

  void Complete(Connection& c) {
    const uint64_t now = NowNanoseconds();
    ++answered_;
    if (c.due >= measure_from_) {
      latency_.Add(now - c.due);
      bytes_ += c.received;
    }
    c.busy = false;
    --under_way_;
    if (settings_.rate == 0) {
      Begin(c, now);
    } else if (!c.queue.empty()) {
      const uint64_t due = c.queue.front();
      c.queue.pop_front();
      Begin(c, due);
    }
  }

  const Settings settings_;
  const CpuAccount account_;
  CpuTimes cpu_before_, cpu_after_;
  std::string request_;
  std::vector<Connection> connections_;
  std::vector<char> buffer_ = std::vector<char>(256 * 1024);
  Histogram latency_;
  int epoll_ = -1;
  uint64_t start_ = 0, measure_from_ = 0, end_ = 0, finished_ = 0, issued_ = 0, bytes_ = 0;
  uint64_t answered_ = 0, spun_ = 0;  // since measuring began
  bool measuring_ = false;
  size_t under_way_ = 0;
};

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) {
  using namespace weft::bench;
  const Arguments arguments(argc, argv);
  Settings settings{.target = arguments.Text("target", "127.0.0.1:9000"),
                    .http = arguments.Text("mode", "echo") == "http",
                    .bulk = arguments.Text("mode", "echo") == "bulk",
                    .size = static_cast<size_t>(arguments.Number("size", 64)),
                    .rate = arguments.Number("rate", 0),
                    .connections = static_cast<int>(arguments.Number("connections", 1)),
                    .seconds = arguments.Number("seconds", 5),
                    .warmup = arguments.Number("warmup", 1),
                    .host = arguments.Text("host", "bench"),
                    .charge = arguments.Text("charge", "")};
  PinTo(static_cast<int>(arguments.Number("cpu", -1)));
  Load load(std::move(settings));
  load.Run();
  load.Print();
}
