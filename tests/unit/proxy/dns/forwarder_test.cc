// SPDX-License-Identifier: Apache-2.0
// A query on its way to resolvers that answer, lie, are silent or are not there.
#include "proxy/dns/forwarder.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <set>

#include "proxy/net/local_sockets.h"
#include "tests/support/run_task.h"

namespace weft::dns {
namespace {

using std::chrono::milliseconds;

std::vector<uint8_t> QueryFor(const char* label, uint16_t id) {
  std::vector<uint8_t> out = {
      static_cast<uint8_t>(id >> 8),      static_cast<uint8_t>(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0,
      static_cast<uint8_t>(strlen(label))};
  out.insert(out.end(), label, label + strlen(label));
  out.insert(out.end(), {0, 0, 1, 0, 1});
  return out;
}

// A resolver on loopback: `answer` makes the datagrams it sends back for each one that comes.
class FakeResolver {
 public:
  using Answer = std::function<std::vector<std::vector<uint8_t>>(std::vector<uint8_t>)>;
  FakeResolver(test::TaskRunner& runner, Answer answer)
      : socket_(runner.executor(), Bound()), answer_(std::move(answer)) {}
  SocketAddress address() const { return socket_.local_address(); }
  // Until Stop().
  Task<void> Serve() {
    std::vector<uint8_t> buffer(4096);
    while (!socket_.closed()) {
      const auto received = socket_.TryReceive(buffer);
      if (received.error != 0) {
        co_await socket_.Readable();
        continue;
      }
      const std::vector<uint8_t> query(buffer.begin(),
                                       buffer.begin() + static_cast<ptrdiff_t>(received.bytes));
      ids.insert(IdOf(query));
      ports.insert(received.from.port);
      ++queries;
      for (const auto& bytes : answer_(query)) {
        EXPECT_EQ(socket_.TrySendTo(bytes, received.from, received.to), 0);
      }
    }
  }
  void Stop() { socket_.Close(); }
  int queries = 0;
  std::set<uint16_t> ids, ports;

 private:
  static int Bound() {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_storage address;
    const socklen_t length =
        SocketAddress{*IpAddress::Parse("127.0.0.1"), 0}.ToSockaddr(AF_INET, &address);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
    return fd;
  }
  net::DatagramSocket socket_;
  Answer answer_;
};

std::vector<uint8_t> Honest(std::vector<uint8_t> query) {
  query[2] |= 0x80;
  query.push_back(0x55);  // what is behind the question comes through unchanged
  return query;
}

std::vector<std::vector<uint8_t>> One(std::vector<uint8_t> answer) {
  std::vector<std::vector<uint8_t>> all;
  all.push_back(std::move(answer));
  return all;
}

class ForwarderTest : public testing::Test {
 protected:
  ForwardRequest To(std::vector<SocketAddress> resolvers) {
    ForwardRequest request{.resolvers = std::move(resolvers),
                           .message = QueryFor("web", 0x4242),
                           .query = {},
                           .try_limit = milliseconds(200)};
    EXPECT_EQ(ParseQuery(request.message, &request.query), Parsed::kQuery);
    return request;
  }
  Task<void> RunOne(ForwardRequest request) {
    Forwarder forwarder(runner_.executor(), sockets_, [this] { return next_id_++; });
    under_way_ = &forwarder;
    ForwardResult result = co_await forwarder.Run(std::move(request));
    under_way_ = nullptr;
    result_ = std::move(result);
    for (FakeResolver* resolver : resolvers_) resolver->Stop();
  }
  void Run(std::vector<FakeResolver*> resolvers, ForwardRequest request) {
    resolvers_ = resolvers;
    for (FakeResolver* resolver : resolvers) runner_.Spawn(resolver->Serve());
    runner_.Run(RunOne(std::move(request)));
  }
  // A port of loopback where nobody listens.
  SocketAddress Nobody() {
    FakeResolver gone(runner_, nullptr);
    return gone.address();
  }
  test::TaskRunner runner_;
  net::LocalSocketSource sockets_;
  uint16_t next_id_ = 100;
  Forwarder* under_way_ = nullptr;
  std::vector<FakeResolver*> resolvers_;
  ForwardResult result_;
};

TEST_F(ForwarderTest, TheAnswerComesBackUnchangedUnderTheQuerysId) {
  FakeResolver resolver(runner_, [](auto query) { return One(Honest(query)); });
  Run({&resolver}, To({resolver.address()}));
  EXPECT_EQ(result_.answer, Honest(QueryFor("web", 0x4242)));
  EXPECT_EQ(result_.strays, 0);
  EXPECT_EQ(resolver.ids, std::set<uint16_t>{100}) << "the query's own id does not leave";
}

TEST_F(ForwarderTest, AnswersToOtherQueriesAreNotTaken) {
  FakeResolver resolver(runner_, [](std::vector<uint8_t> query) {
    auto other_id = Honest(query);
    other_id[1] ^= 1;
    auto other_question = Honest(query);
    other_question[13] ^= 1;
    return std::vector{other_id, other_question, query, std::vector<uint8_t>{}, Honest(query)};
  });
  Run({&resolver}, To({resolver.address()}));
  EXPECT_EQ(result_.answer, Honest(QueryFor("web", 0x4242)));
  EXPECT_EQ(result_.strays, 4);
}

TEST_F(ForwarderTest, ASilentResolverIsAskedAgainFromAnotherPortAndThenTheNext) {
  FakeResolver silent(runner_, [](auto) { return std::vector<std::vector<uint8_t>>{}; });
  FakeResolver honest(runner_, [](auto query) { return One(Honest(query)); });
  Run({&silent, &honest}, To({silent.address(), honest.address()}));
  EXPECT_FALSE(result_.answer.empty());
  EXPECT_EQ(silent.queries, 1);
  EXPECT_EQ(honest.queries, 1);
}

TEST_F(ForwarderTest, TriesAreBounded) {
  FakeResolver silent(runner_, [](auto) { return std::vector<std::vector<uint8_t>>{}; });
  Run({&silent}, To({silent.address()}));
  EXPECT_TRUE(result_.answer.empty());
  EXPECT_EQ(silent.queries, static_cast<int>(kMinTries));
  EXPECT_EQ(silent.ids.size(), kMinTries) << "a new id for each";
  EXPECT_EQ(silent.ports.size(), kMinTries) << "a new port for each";
}

TEST_F(ForwarderTest, WhereNobodyListensTheNextIsAskedAtOnce) {
  FakeResolver honest(runner_, [](auto query) { return One(Honest(query)); });
  ForwardRequest request = To({Nobody(), honest.address()});
  request.try_limit = std::chrono::seconds(20);  // longer than the test may take
  Run({&honest}, std::move(request));
  EXPECT_FALSE(result_.answer.empty());
}

TEST_F(ForwarderTest, AFloodOfWrongAnswersEndsATry) {
  FakeResolver liar(runner_, [](std::vector<uint8_t> query) {
    query[1] ^= 1;
    return std::vector<std::vector<uint8_t>>(kMaxStrayAnswers, Honest(query));
  });
  ForwardRequest request = To({liar.address()});
  request.try_limit = std::chrono::seconds(20);
  Run({&liar}, std::move(request));
  EXPECT_TRUE(result_.answer.empty());
  EXPECT_EQ(result_.strays, static_cast<int>(kMinTries) * kMaxStrayAnswers);
}

TEST_F(ForwarderTest, CancelEndsItSoon) {
  FakeResolver silent(runner_, [this](auto) {
    under_way_->Cancel();
    return std::vector<std::vector<uint8_t>>{};
  });
  ForwardRequest request = To({silent.address()});
  request.try_limit = std::chrono::seconds(20);
  Run({&silent}, std::move(request));
  EXPECT_TRUE(result_.answer.empty());
  EXPECT_EQ(silent.queries, 1);
}

}  // namespace
}  // namespace weft::dns
