// SPDX-License-Identifier: Apache-2.0
// Preloaded into weft-proxy: plays the kernel program that tells what a captured connection asked
// for, which is the same for all of them: WEFT_TEST_ORIGINAL, "IPV4:PORT". Any thread.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "bpf/abi.h"

extern "C" int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  if (level != WEFT_SOL || name != WEFT_SO_ORIGINAL)
    return static_cast<int>(syscall(SYS_getsockopt, fd, level, name, value, length));
  char ip[INET_ADDRSTRLEN] = "";
  const char* text = getenv("WEFT_TEST_ORIGINAL");
  const char* colon = text == nullptr ? nullptr : strchr(text, ':');
  if (colon == nullptr || colon - text >= INET_ADDRSTRLEN || *length < sizeof(weft_original))
    return -1;
  memcpy(ip, text, static_cast<size_t>(colon - text));
  weft_original original = {};
  original.dst.ip[10] = original.dst.ip[11] = 0xff;
  if (inet_pton(AF_INET, ip, &original.dst.ip[12]) != 1) return -1;
  original.dst.port_be = htons(static_cast<uint16_t>(atoi(colon + 1)));
  memcpy(value, &original, sizeof original);
  *length = sizeof original;
  return 0;
}
