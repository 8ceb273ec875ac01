// SPDX-License-Identifier: Apache-2.0
// Port 15053 of a workload: datagrams and streams, answered from the mesh, forwarded, refused.
#include "proxy/worker/dns_service.h"

#include "tests/unit/proxy/worker/mesh_world.h"

namespace weft::worker {
namespace {

using telemetry::Counter;

constexpr const char* kWeb = "\3web\4prod\3svc";
constexpr const char* kOther = "\5other\7example";

std::string Query(std::string_view name, const std::string& id = "ab") {
  std::string out = id;
  out += std::string("\1\0\0\1\0\0\0\0\0\0", 10);
  out += name;
  out += std::string("\0\0\1\0\1", 5);
  return out;
}
std::string Framed(const std::string& message) {
  return std::string{static_cast<char>(message.size() >> 8), static_cast<char>(message.size())} +
         message;
}
int RcodeOf(const std::string& answer) { return answer.size() < 12 ? -1 : answer[3] & 15; }

class DnsServiceTest : public MeshWorld {
 protected:
  DnsServiceTest() {
    auto service = std::make_shared<model::Service>();
    service->namespace_name = "prod";
    service->hostname = "web.prod.svc";
    service->addresses = {*IpAddress::Parse("10.96.0.10")};
    services_[service->Key()] = service;
    Publish();
    Listen();
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    client_ = std::make_unique<net::DatagramSocket>(io_.get_executor(), fd);
    EXPECT_EQ(client_->Connect(a_.At(WEFT_PORT_DNS)), 0);
  }
  // service_ must outlive its connections.
  ~DnsServiceTest() override {
    a_.state.connections.CloseAll(WEFT_R_DRAINING);
    EXPECT_TRUE(RunUntil([&] { return service_.outstanding(a_.local->id) == 0; }));
  }
  static std::span<const uint8_t> Bytes(const std::string& text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  }
  // The answer to a datagram, or nothing.
  std::string Ask(const std::string& message) {
    EXPECT_EQ(client_->TrySend(Bytes(message)), 0);
    std::string answer(4096, '\0');
    net::DatagramSocket::Received received{.error = EAGAIN};
    RunUntil([&] {
      received = client_->TryReceive({reinterpret_cast<uint8_t*>(answer.data()), answer.size()});
      return received.error == 0;
    });
    answer.resize(received.error == 0 ? received.bytes : 0);
    return answer;
  }
  uint64_t Count(Counter counter) { return a_.state.telemetry.counters[counter].value(); }
  // The program's end of a captured TCP connection to `resolver`.
  std::unique_ptr<net::Stream> Stream(SocketAddress resolver) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    a_.state.gate.Spawn(
        service_.ServeStream({.stream = net::MakeSocketStream(io_.get_executor(), fds[0]),
                              .workload = a_.local,
                              .client = {a_.ip, 40001},
                              .resolver = resolver}));
    return net::MakeSocketStream(io_.get_executor(), fds[1]);
  }
  // Empty: the stream ended instead.
  std::string ReadMessage(net::Stream& stream) {
    std::string& got = pending_[&stream];
    for (;;) {
      const size_t length = got.size() < 2 ? 0
                                           : static_cast<size_t>(static_cast<uint8_t>(got[0]) << 8 |
                                                                 static_cast<uint8_t>(got[1]));
      if (got.size() >= 2 && got.size() >= 2 + length) {
        const std::string message = got.substr(2, length);
        got.erase(0, 2 + length);
        return message;
      }
      const std::string more = Read(stream, 1);
      if (more.empty() || more.front() == '<') return "";
      got += more;
    }
  }
  DnsService service_{a_.state};
  std::map<net::Stream*, std::string> pending_;
  std::unique_ptr<net::DatagramSocket> client_;
};

TEST_F(DnsServiceTest, ANameOfTheMeshIsAnsweredAtOnce) {
  const std::string answer = Ask(Query(kWeb));
  EXPECT_EQ(RcodeOf(answer), 0);
  EXPECT_EQ(answer.substr(answer.size() - 4), std::string("\x0a\x60\0\x0a", 4));
  EXPECT_EQ(Count(Counter::kDnsAnswered), 1u);
}

TEST_F(DnsServiceTest, WithoutAResolverAndMalformed) {
  EXPECT_EQ(RcodeOf(Ask(Query(kOther))), dns::kServFail);
  EXPECT_EQ(RcodeOf(Ask(Query("\300\14"))), dns::kFormErr);
  EXPECT_EQ(Count(Counter::kDnsFailed), 2u);
  std::string response = Query(kWeb);
  response[2] = '\x81';
  EXPECT_EQ(client_->TrySend(Bytes(response)), 0);
  EXPECT_TRUE(RunUntil([&] { return Count(Counter::kDnsDropped) == 1; }));
  EXPECT_EQ(Count(Counter::kDnsQueries), 2u);
}

TEST_F(DnsServiceTest, ANewServiceIsFoundWithTheNextSnapshot) {
  EXPECT_EQ(RcodeOf(Ask(Query(kOther))), dns::kServFail);
  auto service = std::make_shared<model::Service>();
  service->namespace_name = "prod";
  service->hostname = "other.example";
  service->addresses = {*IpAddress::Parse("10.96.0.11")};
  services_[service->Key()] = service;
  Publish();
  EXPECT_EQ(RcodeOf(Ask(Query(kOther))), 0);
}

TEST_F(DnsServiceTest, AStreamCarriesManyMessagesInAnyPieces) {
  auto stream = Stream({TestIp(9), 53});
  const std::string two = Framed(Query(kWeb, "id")) + Framed(Query(kWeb, "xy"));
  for (const char c : two) Write(*stream, std::string(1, c));
  EXPECT_EQ(ReadMessage(*stream).substr(0, 2), "id");
  EXPECT_EQ(ReadMessage(*stream).substr(0, 2), "xy");
  stream->Close(WEFT_R_CLOSED);
  EXPECT_TRUE(RunUntil([&] { return service_.outstanding(a_.local->id) == 0; }));
}

TEST_F(DnsServiceTest, AStreamIsForwardedTheWayOfAnyConnection) {
  App& resolver = StartApp(TestIp(9));
  auto stream = Stream(resolver.address());
  for (const char* id : {"id", "xy"}) {  // both over one connection
    Write(*stream, Framed(Query(kOther, id)));
    ASSERT_TRUE(RunUntil([&] { return resolver.accepted.size() == 1; }));
    std::string answer = ReadMessage(*resolver.accepted[0]);
    EXPECT_EQ(answer, Query(kOther, id));
    answer[2] = '\x81';
    answer += "unchanged";
    Write(*resolver.accepted[0], Framed(answer));
    EXPECT_EQ(ReadMessage(*stream), answer);
  }
  // A resolver that closed an idle connection is called again.
  resolver.accepted[0]->Close(WEFT_R_CLOSED);
  Write(*stream, Framed(Query(kOther, "zz")));
  ASSERT_TRUE(RunUntil([&] { return resolver.accepted.size() == 2; }));
  std::string wrong = ReadMessage(*resolver.accepted[1]);
  wrong[0] = 'q';  // another id: no answer to what was asked
  wrong[2] = '\x81';
  Write(*resolver.accepted[1], Framed(wrong));
  EXPECT_EQ(RcodeOf(ReadMessage(*stream)), dns::kServFail);
  EXPECT_EQ(Count(Counter::kDnsForwarded), 2u);
  EXPECT_EQ(Count(Counter::kDnsFailed), 1u);
}

}  // namespace
}  // namespace weft::worker
