// SPDX-License-Identifier: Apache-2.0
// A Stream over a connected socket of this process: TCP, or a unix stream socket.
// Thread: the one that runs the executor. Owns the descriptor.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "proxy/net/stream.h"

namespace weft::net {

// Takes the connected socket `fd` (made non-blocking if it is not). Sets TCP_NODELAY and keepalive
// (180 s, 9 probes) on TCP. Always returns a stream; if the descriptor cannot be watched, it is one
// that is closed with IO_ERROR.
std::unique_ptr<Stream> MakeSocketStream(asio::any_io_executor executor, int fd);

// The Reason for the errno with which a connect ended; NONE for 0.
Reason ReasonOfConnectErrno(int error);

}  // namespace weft::net
