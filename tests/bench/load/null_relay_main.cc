// SPDX-License-Identifier: Apache-2.0
// The floor for every proxy: accepts, connects to one upstream, copies bytes both ways. One thread,
// epoll, no parsing, no TLS, no policy. A proxy that does more at twice this price does well.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "tests/bench/load/arguments.h"
#include "tests/bench/load/sockets.h"

namespace weft::bench {
namespace {

struct End {
  int fd = -1;
  End* other = nullptr;
  bool ended = false;  // FIN read from this end
  std::string unsent;  // read here, not yet taken by the other end
};

class Relay final {
 public:
  Relay(const std::string& address, std::string upstream)
      : upstream_(std::move(upstream)), listener_(ListenAt(address)) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    Watch(EPOLL_CTL_ADD, listener_, EPOLLIN, nullptr);
  }

  [[noreturn]] void Run() {
    epoll_event events[256];
    for (;;) {
      const int n = epoll_wait(epoll_, events, 256, -1);
      dead_.clear();
      for (int i = 0; i < n; ++i) {
        auto* end = static_cast<End*>(events[i].data.ptr);
        if (end == nullptr) {
          Accept();
        } else if (end->fd >= 0) {
          if (events[i].events & EPOLLOUT) Drain(*end->other);
          if (end->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) Copy(*end);
        }
      }
      for (End* end : dead_) delete end;
    }
  }

 private:
  void Watch(int operation, int fd, uint32_t what, End* end) const {
    epoll_event event{.events = what, .data = {.ptr = end}};
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void Accept() {
    const int fd = AcceptFrom(listener_);
    if (fd < 0) return;
    auto* downstream = new End{.fd = fd};
    auto* upstream = new End{.fd = ConnectTo(upstream_), .other = downstream};
    downstream->other = upstream;
    Watch(EPOLL_CTL_ADD, fd, EPOLLIN, downstream);
    Watch(EPOLL_CTL_ADD, upstream->fd, EPOLLIN, upstream);
  }

  void Copy(End& from) {
    if (!from.unsent.empty()) return;  // back-pressure: the other end is full
    const ssize_t n = recv(from.fd, buffer_.data(), buffer_.size(), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      Ended(from, n < 0);
      return;
    }
    const ssize_t sent = send(from.other->fd, buffer_.data(), static_cast<size_t>(n), MSG_NOSIGNAL);
    if (sent == n) return;
    if (sent < 0 && errno != EAGAIN) {
      Ended(from, true);
      return;
    }
    const size_t taken = sent < 0 ? 0 : static_cast<size_t>(sent);
    from.unsent.assign(buffer_.data() + taken, static_cast<size_t>(n) - taken);
    Watch(EPOLL_CTL_MOD, from.other->fd, EPOLLIN | EPOLLOUT, from.other);
    Watch(EPOLL_CTL_MOD, from.fd, 0, &from);
  }

  void Drain(End& from) {
    const ssize_t sent = send(from.other->fd, from.unsent.data(), from.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      Ended(from, true);
      return;
    }
    if (sent > 0) from.unsent.erase(0, static_cast<size_t>(sent));
    if (!from.unsent.empty()) return;
    Watch(EPOLL_CTL_MOD, from.other->fd, EPOLLIN, from.other);
    Watch(EPOLL_CTL_MOD, from.fd, EPOLLIN, &from);
  }

  void Ended(End& end, bool broken) {
    End& other = *end.other;
    end.ended = true;
    if (!broken && !other.ended) {
      shutdown(other.fd, SHUT_WR);
      Watch(EPOLL_CTL_MOD, end.fd, 0, &end);
      return;
    }
    for (End* each : {&end, &other}) {
      close(each->fd);
      each->fd = -1;
      dead_.push_back(each);
    }
  }

  const std::string upstream_;
  const int listener_;
  int epoll_ = -1;
  std::vector<End*> dead_;
  std::vector<char> buffer_ = std::vector<char>(256 * 1024);
};

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) {
  using namespace weft::bench;
  const Arguments arguments(argc, argv);
  PinTo(static_cast<int>(arguments.Number("cpu", -1)));
  Relay(arguments.Text("listen", "127.0.0.1:9100"), arguments.Text("upstream", "127.0.0.1:9000"))
      .Run();
}
