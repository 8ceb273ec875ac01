// SPDX-License-Identifier: Apache-2.0
// The other life of a test's executable: called as `PATH --helper WORD ...` it does what WORD says,
// before any test is looked at, and ends. Its exit code is the errno of what it tried.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Words = std::vector<std::string>;

int NewSocket() { return socket(AF_INET, SOCK_STREAM, 0); }

int ConnectTo(int fd, const std::string& ip, const std::string& port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(atoi(port.c_str())));
  inet_pton(AF_INET, ip.c_str(), &to.sin_addr);
  return connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ? 0 : errno;
}

[[noreturn]] void Execute(const Words& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(200);
}

int SendSocket(int channel, int fd) {
  char byte = 'x';
  iovec bytes{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(channel, &message, 0) == 1 ? 0 : errno;
}

int ReceiveSocket(int channel) {
  char byte = 0;
  iovec bytes{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  int fd = -1;
  if (recvmsg(channel, &message, 0) != 1 || CMSG_FIRSTHDR(&message) == nullptr) return -1;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

// Runs PATH from memory.
[[noreturn]] void FromMemory(const Words& words) {
  FILE* in = fopen(words[0].c_str(), "rb");
  const int fd = memfd_create(words[0].c_str(), 0);
  char block[65536];
  size_t got = 0;
  while ((got = fread(block, 1, sizeof block, in)) > 0) {
    if (write(fd, block, got) != static_cast<ssize_t>(got)) _exit(201);
  }
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  fexecve(fd, arguments.data(), environ);
  _exit(200);
}

int Do(const Words& w) {
  const std::string& word = w[0];
  if (word == "connect") return ConnectTo(NewSocket(), w[1], w[2]);
  // connect, then execute the rest, which learns the first errno as its last word.
  if (word == "connect-exec") {
    Words rest(w.begin() + 3, w.end());
    rest.push_back(std::to_string(ConnectTo(NewSocket(), w[1], w[2])));
    Execute(rest);
  }
  // FIRST-errno expected, SECOND-errno expected ... first errno found.
  if (word == "report") {
    const int second = ConnectTo(NewSocket(), w[1], w[2]);
    return w.back() == w[3] && second == atoi(w[4].c_str()) ? 0 : 99;
  }
  if (word == "make-exec") {  // a socket that lives on over exec(), as descriptor 9
    const int fd = NewSocket();
    if (dup2(fd, 9) != 9) return 98;
    Execute(Words(w.begin() + 1, w.end()));
  }
  if (word == "connect-9") return ConnectTo(9, w[1], w[2]);
  if (word == "send-socket") return SendSocket(atoi(w[1].c_str()), NewSocket());
  if (word == "connect-received") return ConnectTo(ReceiveSocket(atoi(w[1].c_str())), w[2], w[3]);
  if (word == "exec") Execute(Words(w.begin() + 1, w.end()));
  if (word == "from-memory") FromMemory(Words(w.begin() + 1, w.end()));
  if (word == "chroot-exec") {
    if (chroot(w[1].c_str()) != 0 || chdir("/") != 0) return 94;
    Execute(Words(w.begin() + 2, w.end()));
  }
  if (word == "wait-connect") {  // when its standard input says so
    char byte = 0;
    if (read(0, &byte, 1) < 0) return 97;
    return ConnectTo(NewSocket(), w[1], w[2]);
  }
  if (word == "connect-wait") {  // and lives on while its standard input does
    const int fd = NewSocket();
    const int error = ConnectTo(fd, w[1], w[2]);
    if (error != 0) return error;
    char byte = 0;
    const ssize_t got = recv(fd, &byte, 1, 0);
    return got < 0 ? errno : 96;
  }
  if (word == "connect-pause") {  // whatever comes of it
    ConnectTo(NewSocket(), w[1], w[2]);
    pause();
  }
  if (word == "connect-often") {  // until one is let through, which ends it by SIGUSR1
    for (;;) {
      const int fd = NewSocket();
      if (ConnectTo(fd, w[1], w[2]) == 0) raise(SIGUSR1);
      close(fd);
    }
  }
  if (word == "exit") return atoi(w[1].c_str());
  if (word == "flood") {  // N connects that are refused, and N programs
    for (int i = 0; i < atoi(w[3].c_str()); ++i) {
      const int fd = NewSocket();
      ConnectTo(fd, w[1], w[2]);
      close(fd);
      if (i % 8 != 0) continue;
      const pid_t child = fork();
      if (child == 0) Execute({"/bin/true"});
      waitpid(child, nullptr, 0);
    }
    return 0;
  }
  return 95;
}

__attribute__((constructor)) void BecomeHelper(int argc, char** argv, char**) {
  if (argc < 3 || strcmp(argv[1], "--helper") != 0) return;
  // Words that only rules look at begin with '-'.
  int first = 2;
  while (first < argc && argv[first][0] == '-') ++first;
  fflush(stdout);
  _exit(Do(Words(argv + first, argv + argc)));
}

}  // namespace
