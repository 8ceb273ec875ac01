// SPDX-License-Identifier: Apache-2.0
// The application of the benchmarks: echoes, answers HTTP/1.1 "GET /N" with N bytes, or swallows.
// One thread, epoll, non-blocking sockets (so that it may be spliced), no parsing beyond what the
// answer needs.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/bench/load/arguments.h"
#include "tests/bench/load/sockets.h"

namespace weft::bench {
namespace {

struct Peer {
  std::string in;   // HTTP: an incomplete request
  std::string out;  // what did not fit into the socket yet
};

class Server final {
 public:
  Server(const std::string& address, std::string mode)
      : mode_(std::move(mode)), listener_(ListenAt(address)) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    Watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  [[noreturn]] void Run() {
    epoll_event events[256];
    for (;;) {
      const int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          Accept();
        } else if (!Serve(fd, events[i].events)) {
          close(fd);
          peers_.erase(fd);
        }
      }
    }
  }

 private:
  void Watch(int operation, int fd, uint32_t what) const {
    epoll_event event{.events = what, .data = {.fd = fd}};
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void Accept() {
    for (int fd = AcceptFrom(listener_); fd >= 0; fd = AcceptFrom(listener_)) {
      peers_[fd];
      Watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
  }

  bool Serve(int fd, uint32_t events) {
    Peer& peer = peers_[fd];
    if ((events & EPOLLOUT) && !Flush(fd, peer)) return false;
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !peer.out.empty()) return true;
    const ssize_t n = recv(fd, buffer_.data(), buffer_.size(), 0);
    if (n == 0) return false;
    if (n < 0) return errno == EAGAIN;
    const std::string_view bytes(buffer_.data(), static_cast<size_t>(n));
    if (mode_ == "sink") return true;
    if (mode_ == "http") {
      AnswerHttp(peer, bytes);
    } else {
      peer.out.append(bytes);
    }
    return Flush(fd, peer);
  }

  void AnswerHttp(Peer& peer, std::string_view bytes) {
    peer.in.append(bytes);
    for (size_t end; (end = peer.in.find("\r\n\r\n")) != std::string::npos;
         peer.in.erase(0, end + 4)) {
      const size_t path = peer.in.find(' ');
      const size_t size = path < end ? strtoul(peer.in.c_str() + path + 2, nullptr, 10) : 0;
      peer.out += "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n";
      peer.out.append(size, 'r');
    }
  }

  bool Flush(int fd, Peer& peer) {
    while (!peer.out.empty()) {
      const ssize_t n = send(fd, peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
      if (n < 0) {
        if (errno != EAGAIN) return false;
        Watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
        return true;
      }
      peer.out.erase(0, static_cast<size_t>(n));
      if (peer.out.empty()) Watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    }
    return true;
  }

  const std::string mode_;
  const int listener_;
  int epoll_ = -1;
  std::unordered_map<int, Peer> peers_;
  std::vector<char> buffer_ = std::vector<char>(256 * 1024);
};

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) {
  using namespace weft::bench;
  const Arguments arguments(argc, argv);
  PinTo(static_cast<int>(arguments.Number("cpu", -1)));
  Server(arguments.Text("listen", "127.0.0.1:9000"), arguments.Text("mode", "echo")).Run();
}
