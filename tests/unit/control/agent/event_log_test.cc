// SPDX-License-Identifier: Apache-2.0
// A kernel event as people and machines read it.
#include "control/agent/event_log.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <string.h>

#include <nlohmann/json.hpp>

namespace weft::agent {
namespace {

weft_addr Address(const char* ip, uint16_t port) {
  weft_addr out{};
  memcpy(out.ip, IpAddress::Parse(ip)->bytes.data(), sizeof out.ip);
  out.port_be = htons(port);
  return out;
}

weft_event Denied() {
  weft_event event{};
  event.kind = WEFT_EVENT_CONNECT;
  event.reason = WEFT_R_POLICY_DENIED;
  event.time_ns = 1'500'000'000;
  event.source_workload = 4;
  event.source_identity = 1;
  event.destination_identity = 2;
  event.rule = 1;
  event.pid = 4711;
  strcpy(reinterpret_cast<char*>(event.comm), "redis-cli");
  event.source = Address("10.244.1.66", 0);
  event.destination = Address("10.244.1.20", 6379);
  return event;
}

TEST(FormatEvent, NamesWhoWhatAndWhy) {
  KernelNumbers numbers;
  numbers.identities.Of("spiffe://cluster.local/ns/demo/sa/intruder");
  numbers.identities.Of("spiffe://cluster.local/ns/demo/sa/redis");
  numbers.rules.Of("demo/redis-only-client");
  model::Snapshot snapshot;
  auto redis = std::make_shared<model::Workload>();
  redis->uid = "u";
  redis->name = "redis-a";
  redis->namespace_name = "demo";
  redis->addresses = {*IpAddress::Parse("10.244.1.20")};
  snapshot.workloads["u"] = redis;
  snapshot.Finish();
  const EventNames names{&numbers, &snapshot,
                         [](uint32_t id) { return id == 4 ? "demo/intruder" : ""; }};
  const auto json = nlohmann::json::parse(FormatEvent(Denied(), names, 0));
  EXPECT_EQ(json["kind"], "connect");
  EXPECT_EQ(json["reason"], "policy_denied");
  EXPECT_EQ(json["refused"], true);
  EXPECT_EQ(json["source"]["workload"], "demo/intruder");
  EXPECT_EQ(json["source"]["identity"], "spiffe://cluster.local/ns/demo/sa/intruder");
  EXPECT_EQ(json["destination"]["workload"], "demo/redis-a");
  EXPECT_EQ(json["destination"]["address"], "10.244.1.20:6379");
  EXPECT_EQ(json["rule"], "demo/redis-only-client");
  EXPECT_EQ(json["process"], "redis-cli");
  EXPECT_EQ(json["pid"], 4711);
  EXPECT_EQ(json["time"], "1970-01-01T00:00:01.500000Z");
  EXPECT_FALSE(json.contains("picked"));
  EXPECT_FALSE(json.contains("sent_bytes"));
}

TEST(FormatEvent, EveryKindHasItsName) {
  const std::pair<weft_event_kind, const char*> kinds[] = {{WEFT_EVENT_CONNECT, "connect"},
                                                           {WEFT_EVENT_ACCEPT, "accept"},
                                                           {WEFT_EVENT_CLOSE, "close"},
                                                           {WEFT_EVENT_BIND, "bind"}};
  for (const auto& [kind, name] : kinds) {
    weft_event event = Denied();
    event.kind = kind;
    EXPECT_EQ(nlohmann::json::parse(FormatEvent(event, EventNames{}, 0))["kind"], name);
  }
}

TEST(FormatEvent, IsOneLineOfJsonWhateverAProcessCallsItself) {
  weft_event event = Denied();
  memcpy(event.comm, "\xff\"\n\\{}evil-name!", sizeof event.comm);  // no terminator either
  event.reason = 9999;
  event.kind = 77;
  const std::string line = FormatEvent(event, EventNames{}, 0);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["kind"], "unknown");
}

TEST(FormatEvent, NamesTheProgramAndWhoMadeTheSocket) {
  weft_event event = Denied();
  event.reason = WEFT_R_PROCESS_DENIED;
  event.binary = 3;
  event.maker_pid = 12;
  event.maker_binary = 4;
  const EventNames names{.binary = [](uint32_t number) -> std::optional<bpf::Binary> {
    if (number == 3) return bpf::Binary{.path = "/usr/bin/python3"};
    return std::nullopt;
  }};
  const auto json = nlohmann::json::parse(FormatEvent(event, names, 0));
  EXPECT_EQ(json["verdict"], "denied");
  EXPECT_EQ(json["binary"], "/usr/bin/python3");
  EXPECT_EQ(json["maker"]["pid"], 12);
  EXPECT_FALSE(json["maker"].contains("binary"));  // its number means nothing any more
}

TEST(FormatProcessEvent, SaysWhatRanWithWhatAndHowItEnded) {
  weft_process_event event{};
  event.kind = WEFT_EVENT_EXEC;
  event.reason = WEFT_R_PROCESS_KILLED;
  event.rule = 1;
  event.workload = 4;
  event.pid = 4711;
  event.uid = 1000;
  event.id = {.inode = 99, .device = 8u << 20 | 1};
  event.flags = WEFT_PROCESS_UNTRUSTED | WEFT_EVENT_ARGUMENTS_CUT;
  memset(event.path, 'p', sizeof event.path);  // cut: without a zero
  memset(event.comm, 'c', sizeof event.comm);
  constexpr char kArguments[] = "sh\0-c\0\0two words";
  event.argument_bytes = sizeof kArguments - 1;
  memcpy(event.arguments, kArguments, sizeof kArguments);
  event.parents[0] = {7, 2};
  KernelNumbers numbers;
  numbers.rules.Of("ProcessPolicy demo/p no-shells");
  const EventNames names{&numbers, nullptr, [](uint32_t) { return "demo/web"; },
                         [](uint32_t) { return bpf::Binary{.path = "/bin/init"}; }};
  const auto exec = nlohmann::json::parse(FormatProcessEvent(event, names, 0));
  EXPECT_EQ(exec["kind"], "exec");
  EXPECT_EQ(exec["verdict"], "killed");
  EXPECT_EQ(exec["rule"], "ProcessPolicy demo/p no-shells");
  EXPECT_EQ(exec["source"]["workload"], "demo/web");
  EXPECT_EQ(exec["arguments"], nlohmann::json({"sh", "-c", "", "two words"}));
  EXPECT_EQ(exec["arguments_cut"], true);
  EXPECT_EQ(exec["binary"], std::string(WEFT_PATH_BYTES, 'p'));
  EXPECT_EQ(exec["process"], std::string(16, 'c'));
  EXPECT_EQ(exec["device"], "8:1");
  EXPECT_EQ(exec["trusted"], false);
  EXPECT_EQ(exec["parents"].size(), 1u);
  EXPECT_EQ(exec["parents"][0]["binary"], "/bin/init");
  event.kind = WEFT_EVENT_EXIT;
  event.exit_code = 7u << 8;
  EXPECT_EQ(nlohmann::json::parse(FormatProcessEvent(event, names, 0))["exit_code"], 7);
  event.exit_code = 9;
  const auto killed = nlohmann::json::parse(FormatProcessEvent(event, names, 0));
  EXPECT_EQ(killed["signal"], 9);
  EXPECT_FALSE(killed.contains("exit_code"));
}

}  // namespace
}  // namespace weft::agent
