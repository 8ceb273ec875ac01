// SPDX-License-Identifier: Apache-2.0
#include "proxy/dns/forwarder.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "proxy/net/deadline.h"

namespace weft::dns {

Task<ForwardResult> Forwarder::Run(ForwardRequest request) {
  ForwardResult result;
  const size_t count = request.resolvers.size();
  const size_t tries = count == 0 ? 0 : std::clamp(count, kMinTries, kMaxTries);
  for (size_t i = 0; i < tries && !cancelled_; ++i) {
    const bool answered = co_await Try(request, request.resolvers[i % count], result);
    if (answered) break;
  }
  co_return result;
}

void Forwarder::Cancel() {
  cancelled_ = true;
  if (socket_) socket_->Close();
}

Task<bool> Forwarder::Try(const ForwardRequest& request, SocketAddress resolver,
                          ForwardResult& result) {
  net::SocketSource::Result taken =
      co_await sockets_.Take({.kind = net::SocketKind::kDatagram,
                              .workload = request.workload,
                              .generation = request.generation,
                              .family = resolver.ip.is_v4() ? AF_INET : AF_INET6});
  if (taken.fd < 0) co_return false;
  socket_ = std::make_unique<net::DatagramSocket>(executor_, taken.fd);
  if (cancelled_) socket_->Close();
  const uint16_t id = random_id_();
  std::vector<uint8_t> message = request.message;
  SetId(id, message);
  if (socket_->Connect(resolver) != 0 || socket_->TrySend(message) != 0) co_return false;
  net::Deadline limit(executor_, request.try_limit, [this] { socket_->Close(); });
  buffer_.resize(kMaxStreamBytes);
  for (;;) {
    bool ended = false;
    if (Receive(request, id, result, &ended)) co_return true;
    if (ended) co_return false;
    co_await socket_->Readable();
  }
}

// Everything that is there. True: the answer came. `ended`: it cannot come any more.
bool Forwarder::Receive(const ForwardRequest& request, uint16_t id, ForwardResult& result,
                        bool* ended) {
  for (;;) {
    const net::DatagramSocket::Received received = socket_->TryReceive(buffer_);
    if (received.error == EAGAIN) return false;
    if (received.error != 0) {  // closed, or the resolver's host says that nobody listens
      *ended = true;
      return false;
    }
    const Bytes answer = Bytes(buffer_).first(received.bytes);
    if (!received.truncated && Answers(answer, id, request.message, request.query)) {
      result.answer.assign(answer.begin(), answer.end());
      SetId(request.query.id, result.answer);
      return true;
    }
    if (++result.strays % kMaxStrayAnswers == 0) {
      *ended = true;
      return false;
    }
  }
}

}  // namespace weft::dns
