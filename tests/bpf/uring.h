// SPDX-License-Identifier: Apache-2.0
// One receive by io_uring, without its library: what a program that uses it does. Thread: any.
#pragma once
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "control/bpf/pins.h"

namespace weft::bpf {

// What the completion says: bytes, or -errno. Waits until it is there.
inline int ReceiveByIoUring(int fd, void* buffer, uint32_t bytes, uint32_t flags = 0) {
  io_uring_params params{};
  const UniqueFd ring(static_cast<int>(syscall(SYS_io_uring_setup, 4, &params)));
  if (!ring.ok()) return -errno;
  const auto map = [&](size_t size, off_t offset) {
    return static_cast<char*>(
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.get(), offset));
  };
  const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  const size_t sqe_bytes = params.sq_entries * sizeof(io_uring_sqe);
  char* sq = map(sq_bytes, IORING_OFF_SQ_RING);
  char* cq = map(cq_bytes, IORING_OFF_CQ_RING);
  char* sqes = map(sqe_bytes, IORING_OFF_SQES);
  int result = -ENOMEM;
  if (sq != MAP_FAILED && cq != MAP_FAILED && sqes != MAP_FAILED) {
    auto* entry = reinterpret_cast<io_uring_sqe*>(sqes);
    *entry = {};
    entry->opcode = IORING_OP_RECV;
    entry->fd = fd;
    entry->addr = reinterpret_cast<uintptr_t>(buffer);
    entry->len = bytes;
    entry->msg_flags = flags;
    *reinterpret_cast<uint32_t*>(sq + params.sq_off.array) = 0;
    __atomic_store_n(reinterpret_cast<uint32_t*>(sq + params.sq_off.tail), 1u, __ATOMIC_RELEASE);
    const long entered =
        syscall(SYS_io_uring_enter, ring.get(), 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
    result = entered == 1 ? reinterpret_cast<io_uring_cqe*>(cq + params.cq_off.cqes)->res : -errno;
  }
  if (sq != MAP_FAILED) munmap(sq, sq_bytes);
  if (cq != MAP_FAILED) munmap(cq, cq_bytes);
  if (sqes != MAP_FAILED) munmap(sqes, sqe_bytes);
  return result;
}

}  // namespace weft::bpf
