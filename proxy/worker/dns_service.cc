// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/dns_service.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "proxy/net/deadline.h"
#include "proxy/net/io.h"

namespace weft::worker {
namespace {

using std::chrono::milliseconds;
using telemetry::Counter;

// Of one workload and worker: each holds a socket for seconds if its resolver is silent.
constexpr size_t kMaxOutstanding = 256;
constexpr int kDatagramsPerWakeup = 64;
// RFC 7766 6.2.3 leaves it to the server; a resolver library sends its queries at once.
constexpr milliseconds kStreamIdle{10000};
constexpr milliseconds kUpstreamLimit{5000};

uint16_t RandomId() {
  uint16_t id = 0;
  const bool drawn = getrandom(&id, sizeof id, 0) == sizeof id;
  WEFT_CHECK(drawn);  // cannot fail for so few bytes once the machine is up
  return id;
}

// The port is for the workload itself: its own addresses, or loopback.
bool MayAsk(const model::LocalWorkload& workload, const IpAddress& ip) {
  return ip.is_loopback() || std::ranges::count(workload.addresses, ip) > 0;
}

std::vector<uint8_t> ServFail(dns::Bytes message, const dns::Query& query) {
  return dns::WriteAnswer(message, query, {.rcode = dns::kServFail, .addresses = {}},
                          dns::kMaxDatagramBytes);
}

// The next message of a stream, after its length; `buffer` keeps what was read beyond it. Empty:
// the stream has ended.
Task<std::vector<uint8_t>> ReadMessage(net::Stream& stream, std::vector<uint8_t>& buffer) {
  for (;;) {
    if (buffer.size() >= 2) {
      const size_t length = static_cast<size_t>(buffer[0] << 8 | buffer[1]);
      if (buffer.size() >= 2 + length) {
        const auto end = buffer.begin() + 2 + static_cast<ptrdiff_t>(length);
        std::vector<uint8_t> message(buffer.begin() + 2, end);
        buffer.erase(buffer.begin(), end);
        co_return message;
      }
    }
    const size_t had = buffer.size();
    buffer.resize(had + 4096);
    const net::IoResult read = co_await net::ReadSome(stream, std::span(buffer).subspan(had));
    buffer.resize(had + (read.status == net::IoStatus::kOk ? read.bytes : 0));
    if (read.status != net::IoStatus::kOk) co_return std::vector<uint8_t>{};
  }
}

Task<std::vector<uint8_t>> ReadMessageWithin(asio::any_io_executor executor, milliseconds limit,
                                             net::Stream& stream, std::vector<uint8_t>& buffer) {
  net::Deadline deadline(executor, limit, [&stream] { stream.Close(WEFT_R_IDLE_TIMEOUT); });
  std::vector<uint8_t> message = co_await ReadMessage(stream, buffer);
  co_return message;
}

Task<bool> WriteMessage(net::Stream& stream, const std::vector<uint8_t>& message) {
  std::vector<uint8_t> framed;
  framed.reserve(message.size() + 2);
  framed.push_back(static_cast<uint8_t>(message.size() >> 8));
  framed.push_back(static_cast<uint8_t>(message.size()));
  framed.insert(framed.end(), message.begin(), message.end());
  const net::IoResult written = co_await net::WriteAll(stream, std::span<const uint8_t>(framed));
  co_return written.status == net::IoStatus::kOk;
}

}  // namespace

// One of a workload's kMaxOutstanding, taken for the life of this.
class DnsService::Place final {
 public:
  Place(DnsService& service, uint32_t workload) : service_(service), workload_(workload) {
    ++service_.outstanding_[workload_];
  }
  ~Place() {
    const auto found = service_.outstanding_.find(workload_);
    if (--found->second == 0) service_.outstanding_.erase(found);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  DnsService& service_;
  uint32_t workload_;
};

struct DnsService::DatagramQuery {
  std::shared_ptr<const model::LocalWorkload> workload;
  std::shared_ptr<net::DatagramSocket> socket;
  SocketAddress from;
  IpAddress to;
  std::vector<uint8_t> message;
  dns::Query query;
};

// The way of one downstream connection to its resolver, opened when first needed.
struct DnsService::StreamUpstream {
  TcpUpstream upstream;
  std::vector<uint8_t> buffer;
  uint64_t sent_bytes = 0, received_bytes = 0;
  std::chrono::steady_clock::time_point started{};
};

size_t DnsService::outstanding(uint32_t workload) const {
  const auto found = outstanding_.find(workload);
  return found == outstanding_.end() ? 0 : found->second;
}

const dns::Table& DnsService::table() {
  if (table_of_ == state_.snapshot) return table_;
  const bool same = table_of_ != nullptr && table_of_->services == state_.snapshot->services &&
                    table_of_->workloads == state_.snapshot->workloads;
  if (!same) table_ = dns::Table(*state_.snapshot);
  table_of_ = state_.snapshot;
  return table_;
}

void DnsService::ServeDatagrams(std::string uid, std::shared_ptr<net::DatagramSocket> socket) {
  net::DatagramSocket* const waiting = socket.get();
  waiting->WhenReadable([this, uid = std::move(uid), socket = std::move(socket)] {
    ReceiveSome(uid, socket);
    ServeDatagrams(uid, socket);
  });
}

void DnsService::ReceiveSome(const std::string& uid,
                             const std::shared_ptr<net::DatagramSocket>& socket) {
  for (int i = 0; i < kDatagramsPerWakeup; ++i) {
    const net::DatagramSocket::Received received = socket->TryReceive(buffer_);
    if (received.error == EAGAIN || received.error == EBADF) return;
    // Anything else is what became of an earlier answer.
    if (received.error == 0) {
      OnDatagram(uid, socket, dns::Bytes(buffer_).first(received.bytes), received);
    }
  }
}

void DnsService::OnDatagram(const std::string& uid,
                            const std::shared_ptr<net::DatagramSocket>& socket, dns::Bytes message,
                            const net::DatagramSocket::Received& received) {
  const auto found = state_.snapshot->local_workloads.find(uid);
  if (found == state_.snapshot->local_workloads.end()) return;  // its snapshot has not come yet
  const std::shared_ptr<const model::LocalWorkload>& workload = found->second;
  dns::Query query;
  const dns::Parsed parsed = dns::ParseQuery(message, &query);
  if (!MayAsk(*workload, received.from.ip) || parsed == dns::Parsed::kIgnore ||
      received.truncated) {
    Count(Counter::kDnsDropped).Add();
    return;
  }
  // An answer that cannot be sent is lost, as any datagram may be: the program asks again.
  const auto reply = [&](const std::vector<uint8_t>& answer) {
    (void)socket->TrySendTo(answer, received.from, received.to);
  };
  Count(Counter::kDnsQueries).Add();
  if (parsed == dns::Parsed::kMalformed) {
    Count(Counter::kDnsFailed).Add();
    return reply(dns::WriteFormErr(message));
  }
  const auto answer = dns::Resolve(query, table(), workload->namespace_name, rotation_++);
  if (answer) {
    Count(Counter::kDnsAnswered).Add();
    return reply(dns::WriteAnswer(message, query, *answer, query.datagram_limit()));
  }
  if (workload->resolvers.empty() || state_.draining ||
      outstanding(workload->id) >= kMaxOutstanding) {
    Count(Counter::kDnsFailed).Add();
    return reply(ServFail(message, query));
  }
  state_.gate.Spawn(ForwardDatagram({.workload = workload,
                                     .socket = socket,
                                     .from = received.from,
                                     .to = received.to,
                                     .message = {message.begin(), message.end()},
                                     .query = query}));
}

Task<void> DnsService::ForwardDatagram(DatagramQuery query) {
  const Place place(*this, query.workload->id);
  dns::Forwarder forwarder(state_.executor, state_.sockets, RandomId);
  ConnectionSet::Membership member(
      state_.connections,
      {.workload = query.workload->uid, .close = [&forwarder](Reason) { forwarder.Cancel(); }});
  dns::ForwardRequest request{.workload = query.workload->id,
                              .generation = query.workload->generation,
                              .resolvers = {},
                              .message = query.message,
                              .query = query.query};
  for (const IpAddress& ip : query.workload->resolvers)
    request.resolvers.push_back({ip, dns::kPort});
  dns::ForwardResult result = co_await forwarder.Run(std::move(request));
  Count(Counter::kDnsStrays).Add(static_cast<uint64_t>(result.strays));
  if (result.answer.empty()) {
    Count(Counter::kDnsFailed).Add();
    result.answer = ServFail(query.message, query.query);
  } else {
    Count(Counter::kDnsForwarded).Add();
  }
  if (result.answer.size() > query.query.datagram_limit()) {
    result.answer = dns::WriteTruncated(query.message, query.query, result.answer);
  }
  (void)query.socket->TrySendTo(result.answer, query.from, query.to);
}

Task<void> DnsService::ServeStream(DnsStreamArgs args) {
  net::Stream* const downstream = args.stream.get();
  if (outstanding(args.workload->id) >= kMaxOutstanding) {
    Count(Counter::kDnsFailed).Add();
    downstream->Close(WEFT_R_OVERFLOW_CONNECTIONS);
    co_return;
  }
  const Place place(*this, args.workload->id);
  ConnectionSet::Membership member(
      state_.connections, {.workload = args.workload->uid,
                           .close = [downstream](Reason reason) { downstream->Close(reason); }});
  StreamUpstream upstream;
  std::vector<uint8_t> buffer;
  for (;;) {
    const std::vector<uint8_t> message =
        co_await ReadMessageWithin(state_.executor, kStreamIdle, *downstream, buffer);
    if (message.empty()) break;
    const std::vector<uint8_t> answer = co_await AnswerOnStream(args, upstream, message);
    if (answer.empty()) break;
    const bool written = co_await WriteMessage(*downstream, answer);
    if (!written) break;
  }
  downstream->Close(WEFT_R_CLOSED);
  if (upstream.upstream.stream == nullptr) co_return;
  telemetry::FlowRecord record = TcpRecord({.source = args.workload,
                                            .client = args.client,
                                            .original_destination = args.resolver,
                                            .picked = {},
                                            .listener = nullptr},
                                           upstream.upstream);
  record.sent_bytes = upstream.sent_bytes;
  record.received_bytes = upstream.received_bytes;
  record.reason = WEFT_R_CLOSED;
  state_.Record(std::move(record), upstream.started);
}

// Empty: nothing can be answered.
Task<std::vector<uint8_t>> DnsService::AnswerOnStream(const DnsStreamArgs& args,
                                                      StreamUpstream& upstream,
                                                      const std::vector<uint8_t>& message) {
  dns::Query query;
  const dns::Parsed parsed = dns::ParseQuery(message, &query);
  if (parsed == dns::Parsed::kIgnore) {
    Count(Counter::kDnsDropped).Add();
    co_return std::vector<uint8_t>{};
  }
  Count(Counter::kDnsQueries).Add();
  if (parsed == dns::Parsed::kMalformed) {
    Count(Counter::kDnsFailed).Add();
    co_return dns::WriteFormErr(message);
  }
  const auto answer = dns::Resolve(query, table(), args.workload->namespace_name, rotation_++);
  if (answer) {
    Count(Counter::kDnsAnswered).Add();
    co_return dns::WriteAnswer(message, query, *answer, dns::kMaxStreamBytes);
  }
  std::vector<uint8_t> forwarded;
  // A second time on a new connection: the resolver may have closed one that was idle.
  for (int attempt = 0; attempt < 2 && forwarded.empty(); ++attempt) {
    const bool reused = upstream.upstream.stream != nullptr;
    forwarded = co_await AskUpstream(args, upstream, message, query);
    if (!reused) break;
  }
  Count(forwarded.empty() ? Counter::kDnsFailed : Counter::kDnsForwarded).Add();
  if (forwarded.empty()) forwarded = ServFail(message, query);
  co_return forwarded;
}

// Empty, and the upstream is closed: no answer.
Task<std::vector<uint8_t>> DnsService::AskUpstream(const DnsStreamArgs& args,
                                                   StreamUpstream& upstream,
                                                   const std::vector<uint8_t>& message,
                                                   const dns::Query& query) {
  if (upstream.upstream.stream == nullptr) {
    upstream.started = std::chrono::steady_clock::now();
    upstream.buffer.clear();
    TcpDownstreamArgs tcp{.source = args.workload,
                          .client = args.client,
                          .original_destination = args.resolver,
                          .picked = {},
                          .listener = state_.listeners.Find(args.resolver)};
    TcpUpstream opened = co_await OpenTcpUpstream(state_, std::move(tcp));
    upstream.upstream = std::move(opened);
    if (upstream.upstream.stream == nullptr) co_return std::vector<uint8_t>{};
  }
  net::Stream* const stream = upstream.upstream.stream.get();
  const bool sent = co_await WriteMessage(*stream, message);
  if (!sent) stream->Close(WEFT_R_UPSTREAM_RESET);  // so that the read ends at once
  const std::vector<uint8_t> answer =
      co_await ReadMessageWithin(state_.executor, kUpstreamLimit, *stream, upstream.buffer);
  upstream.sent_bytes += message.size() + 2;
  if (dns::Answers(answer, query.id, message, query)) {
    upstream.received_bytes += answer.size() + 2;
    co_return answer;
  }
  stream->Close(WEFT_R_UPSTREAM_RESET);
  upstream.upstream.stream.reset();
  co_return std::vector<uint8_t>{};
}

}  // namespace weft::worker
