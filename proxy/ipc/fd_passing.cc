// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/fd_passing.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace weft::ipc {
namespace {

// Room for exactly the descriptors that may come; more make the kernel set MSG_CTRUNC and drop the
// rest.
union ControlBuffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(kMaxPassedFds * sizeof(int))];
};

void CloseAll(std::vector<int>& fds) {
  for (const int fd : fds) (void)close(fd);
  fds.clear();
}

void CollectFds(msghdr& message, std::vector<int>* fds) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    const size_t old = fds->size();
    fds->resize(old + count);
    memcpy(fds->data() + old, CMSG_DATA(header), count * sizeof(int));
  }
}

bool FillAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address->sun_path) return false;
  memcpy(address->sun_path, path.data(), path.size());
  return true;
}

int CloseWith(int fd) {
  const int error = errno;
  (void)close(fd);
  return -error;
}

}  // namespace

int SendPacket(int socket, std::span<const uint8_t> bytes, std::span<const int> fds) {
  if (fds.size() > kMaxPassedFds) return EINVAL;
  iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ControlBuffer control{};
  if (!fds.empty()) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  for (;;) {
    const ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (n >= 0) return static_cast<size_t>(n) == bytes.size() ? 0 : EMSGSIZE;
    if (errno != EINTR) return errno;
  }
}

ReceivedPacket ReceivePacket(int socket, std::span<uint8_t> into) {
  ReceivedPacket out;
  iovec part{into.data(), into.size()};
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    out.error = errno;
    return out;
  }
  CollectFds(message, &out.fds);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    out.error = EMSGSIZE;
  } else if (n == 0) {
    out.error = ECONNRESET;  // end of file; our protocols have no empty packet
  }
  if (out.error != 0) CloseAll(out.fds);
  out.bytes = static_cast<size_t>(n);
  return out;
}

int64_t PeerUid(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return -1;
  return credentials.uid;
}

FdPair MakeSeqpacketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return {};
  return {.a = fds[0], .b = fds[1]};
}

int ConnectPackets(const std::string& path) {
  sockaddr_un address;
  if (!FillAddress(path, &address)) return -ENAMETOOLONG;
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return CloseWith(fd);
  return fd;
}

int ListenPackets(const std::string& path, unsigned mode) {
  sockaddr_un address;
  if (!FillAddress(path, &address)) return -ENAMETOOLONG;
  const int live = ConnectPackets(path);
  if (live >= 0) {
    (void)close(live);
    return -EADDRINUSE;
  }
  struct stat info{};
  if (live == -ECONNREFUSED && lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode))
    (void)unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  // On Linux the file takes the socket's own mode (less the umask), so it is never open to more for
  // a moment.
  if (fchmod(fd, mode) != 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      chmod(path.c_str(), mode) != 0 || listen(fd, 16) != 0) {
    return CloseWith(fd);
  }
  return fd;
}

}  // namespace weft::ipc
