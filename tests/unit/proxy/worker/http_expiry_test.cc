// SPDX-License-Identifier: Apache-2.0
// Pooled upstream connections whose tunnel rests on certificates that end: no request after that.
#include "tests/unit/proxy/worker/http_world.h"

namespace weft::worker {
namespace {

using namespace std::chrono_literals;  // NOLINT: tests

class HttpExpiry : public HttpWorld {
 protected:
  HttpExpiry() { connector.expiry = wall_now + 10s; }
};

TEST_F(HttpExpiry, APooledConnectionServesUntilTheEndAndThenCloses) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  Pass(9s);
  connector.expiry = wall_now + 1min;  // renewed
  Ask(client, kGet);
  EXPECT_EQ(connector.connects[1], 1);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  EXPECT_FALSE(Upstream().eof || Upstream().error);
  Pass(1020ms);
  EXPECT_TRUE(Upstream().eof || Upstream().error) << "an idle connection outlives its certificate";
  Ask(client, kGet);
  EXPECT_EQ(connector.connects[1], 2);
  Upstream(1, 1).Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
}

// The wall clock alone decides: it may be set, and machines sleep.
TEST_F(HttpExpiry, ARequestAfterTheEndIsRefusedWithTheReason) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  wall_now += 10s;
  connector.refuse[1] = WEFT_R_CERT_EXPIRED;
  const std::string answer = Ask(client, kGet);
  EXPECT_EQ(StatusOf(answer), 503) << answer;
  EXPECT_NE(answer.find("cert_expired"), std::string::npos) << answer;
  EXPECT_EQ(records.back().reason, WEFT_R_CERT_EXPIRED);
  EXPECT_TRUE(Upstream().eof || Upstream().error);
}

TEST_F(HttpExpiry, ARequestThatRunsIsFinishedAndIsTheLast) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Pass(10s + 20ms);
  connector.expiry = wall_now + 1min;
  EXPECT_FALSE(Upstream().eof || Upstream().error);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  EXPECT_TRUE(Upstream().eof || Upstream().error);
  Ask(client, kGet);
  EXPECT_EQ(connector.connects[1], 2);
}

TEST_F(HttpExpiry, StreamsOfHttp2FinishAndNewOnesGoElsewhere) {
  cluster->http = model::HttpVersion::kHttp2;
  connector.http2 = true;
  Start();
  Peer& first = Client();
  Ask(first, kGet);
  wall_now += 10s;
  connector.expiry = wall_now + 1min;
  Peer& second = Client();
  Ask(second, kGet);
  EXPECT_EQ(connector.connects[1], 2);
  EXPECT_EQ(Upstream(1, 0).events.size(), 1u);
  Upstream(1, 0).session->SubmitResponse(1, {.status = 200}, true);
  Run();
  EXPECT_EQ(StatusOf(first.Take()), 200);
  EXPECT_TRUE(Upstream(1, 0).eof || Upstream(1, 0).error);
}

TEST_F(HttpExpiry, AConnectionThatComesTooLateIsNotUsed) {
  connector.expiry = wall_now;
  Start();
  const std::string answer = Ask(Client(), kGet);
  EXPECT_EQ(StatusOf(answer), 503) << answer;
  EXPECT_EQ(records.back().reason, WEFT_R_CERT_EXPIRED);
  EXPECT_EQ(InUse(upstream::Limit::kConnections), 0u);
}

}  // namespace
}  // namespace weft::worker
