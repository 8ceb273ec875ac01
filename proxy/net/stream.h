// SPDX-License-Identifier: Apache-2.0
// A connected byte stream: TCP, TLS over TCP, or one HBONE tunnel stream. Readiness is awaited,
// bytes are moved by calls that never wait, so that an idle stream holds no buffer and a wake-up
// costs one read and one write. Thread: the one whose io_context made it. Implementations:
// proxy/net/tcp_stream.h, proxy/tls/tls_stream.h, proxy/tunnel/.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "proxy/base/reason.h"
#include "proxy/base/task.h"

namespace weft::net {

enum class IoStatus : uint8_t {
  kOk,          // bytes > 0 moved
  kWouldBlock,  // nothing moved: await Readable() or Writable()
  kEof,  // reads only: the other side sent FIN (TLS: close_notify; tunnel: END_STREAM). Writing may
         // go on
  kError,  // the stream is dead: `reason` says why; only Close() makes sense now
};

struct IoResult {
  size_t bytes = 0;
  IoStatus status = IoStatus::kOk;
  Reason reason = WEFT_R_NONE;
};

class Stream {
 public:
  virtual ~Stream() = default;

  // Reads what is there, up to into.size() (> 0). A short read means that the stream was drained:
  // await Readable() next rather than probing for kWouldBlock.
  virtual IoResult TryRead(std::span<uint8_t> into) = 0;
  // Writes as much as fits; `bytes` may be less than asked for. The spans need to stay valid only
  // during the call.
  virtual IoResult TryWrite(std::span<const iovec> from) = 0;

  // Resume when a TryRead / TryWrite may make progress, or after Close() or an error. At most one
  // waiter for each. Both complete on the stream's executor. Spurious wake-ups are allowed.
  virtual Task<void> Readable() = 0;
  virtual Task<void> Writable() = 0;

  // Sends FIN / close_notify / END_STREAM once everything accepted by TryWrite has left; the
  // reading side stays open.
  virtual void ShutdownWrite() = 0;
  // Ends both directions at once and wakes both waiters; later calls return kError. WEFT_R_CLOSED
  // closes in order (unread input aside), anything else resets the transport where it can.
  // Idempotent: the first reason stays.
  virtual void Close(Reason reason) = 0;

  // The descriptor whose readiness drives this stream; -1 for a tunnel stream. For socket options
  // and tests only.
  virtual int native_handle() const = 0;
};

}  // namespace weft::net
