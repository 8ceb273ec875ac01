// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/telemetry/prometheus.h"

namespace weft::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

TrafficLabels TcpTo(std::string_view destination) {
  return {.source = {.workload = "web",
                     .namespace_name = "prod",
                     .principal = "spiffe://td/ns/prod/sa/web"},
          .destination = {.workload = destination, .namespace_name = "prod"},
          .mutual_tls = true};
}

TEST(Traffic, SameLabelsAreOneSeries) {
  auto traffic = std::make_unique<Traffic>();
  EXPECT_EQ(&traffic->Find(TcpTo("db")), &traffic->Find(TcpTo("db")));
  EXPECT_NE(&traffic->Find(TcpTo("db")), &traffic->Find(TcpTo("cache")));
  EXPECT_EQ(traffic->size(), 2u);
}

// A series is found by what the labels say, not by where they are: callers reuse their buffers.
TEST(Traffic, LabelsInReusedMemoryAreComparedByContent) {
  auto traffic = std::make_unique<Traffic>();
  char name[] = "db-1";
  const TrafficSeries* first = &traffic->Find(TcpTo({name, 4}));
  name[3] = '2';
  const TrafficSeries* second = &traffic->Find(TcpTo({name, 4}));
  EXPECT_NE(first, second);
  EXPECT_THAT(second->labels, HasSubstr("destination_workload=\"db-2\""));
  name[3] = '1';
  EXPECT_EQ(&traffic->Find(TcpTo({name, 4})), first);
  EXPECT_EQ(&traffic->Find(TcpTo(std::string("db-1"))), first);
  TrafficLabels plain = TcpTo({name, 4});
  plain.mutual_tls = false;
  EXPECT_NE(&traffic->Find(plain), first);
  EXPECT_EQ(traffic->size(), 3u);
}

TEST(Traffic, CardinalityIsBounded) {
  auto traffic = std::make_unique<Traffic>();
  for (size_t i = 0; i < Traffic::kMaxSeries + 100; ++i)
    traffic->Find(TcpTo(std::to_string(i))).opened.Add();
  EXPECT_EQ(traffic->size(), Traffic::kMaxSeries + 1);
  EXPECT_EQ((*traffic)[Traffic::kMaxSeries].opened.value(), 100u);
  EXPECT_THAT((*traffic)[Traffic::kMaxSeries].labels, HasSubstr("destination_workload=\"other\""));
}

TEST(Prometheus, SumsWorkersAndUsesIstiosNames) {
  auto a = std::make_unique<WorkerTelemetry>();
  auto b = std::make_unique<WorkerTelemetry>();
  a->traffic.Find(TcpTo("db")).opened.Add(2);
  b->traffic.Find(TcpTo("db")).opened.Add(3);
  b->counters.Closed(WEFT_R_CONNECT_FAILED);
  const WorkerTelemetry* workers[] = {a.get(), b.get()};
  std::string text = PrometheusText(workers);
  EXPECT_THAT(
      text,
      HasSubstr("istio_tcp_connections_opened_total{reporter=\"source\",source_workload=\"web\""));
  EXPECT_THAT(text, HasSubstr("connection_security_policy=\"mutual_tls\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("weft_closes_total{reason=\"connect_failed\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("reason=\"idle_timeout\"")));
}

TEST(Prometheus, HistogramIsCumulative) {
  auto worker = std::make_unique<WorkerTelemetry>();
  TrafficLabels labels = TcpTo("web");
  labels.protocol = "http";
  labels.response_code = 200;
  worker->traffic.CountRequest(labels, 0.4, 10, 100);
  worker->traffic.CountRequest(labels, 7, 10, 100);
  const WorkerTelemetry* workers[] = {worker.get()};
  std::string text = PrometheusText(workers);
  EXPECT_THAT(text, HasSubstr("response_code=\"200\",le=\"0.5\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("response_code=\"200\",le=\"10\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("response_code=\"200\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("istio_requests_total{"));
}

TEST(Prometheus, HostileLabelsAreEscaped) {
  auto worker = std::make_unique<WorkerTelemetry>();
  worker->traffic.Find(TcpTo("a\"} 1\nforged 2")).opened.Add();
  const WorkerTelemetry* workers[] = {worker.get()};
  EXPECT_THAT(PrometheusText(workers), HasSubstr("destination_workload=\"a\\\"} 1?forged 2\""));
}

TEST(FlowLog, KeepsTheLastOnes) {
  FlowLog log;
  for (uint16_t i = 1; i <= FlowLog::kCapacity + 10; ++i) log.Add({.source = {.port = i}});
  EXPECT_EQ(log.last_sequence(), FlowLog::kCapacity + 10);
  std::vector<FlowRecord> all = log.Since(0);
  ASSERT_EQ(all.size(), FlowLog::kCapacity);
  EXPECT_EQ(all.front().sequence, 11u);
  EXPECT_EQ(all.front().source.port, 11);
  EXPECT_EQ(log.Since(FlowLog::kCapacity + 8).size(), 2u);
  EXPECT_TRUE(log.Since(FlowLog::kCapacity + 10).empty());
  EXPECT_TRUE(log.Since(UINT64_MAX).empty());
}

}  // namespace
}  // namespace weft::telemetry
