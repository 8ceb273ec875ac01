// SPDX-License-Identifier: Apache-2.0
// Real programs over the splice: each pair of client and server, some with a forwarder between
// them, asked the same with the splice off, on and under `auto`. The answers must be the same, and
// what `auto` makes of each program is in the table that is printed at the end, and expected here.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <ostream>
#include <thread>

#include "bpf/learn.h"
#include "tests/bpf/programs_bed.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

constexpr uint32_t kOff = WEFT_WL_PROXY_READY;
constexpr uint32_t kOn = kOff | WEFT_WL_SPLICE;
constexpr uint32_t kAuto = kOn | WEFT_WL_SPLICE_AUTO;
constexpr int kConnections = 4;                               // off and on
constexpr int kConnectionsAuto = WEFT_LEARN_CONNECTIONS + 4;  // walks need a few of them

// What a program is found to be, on the side it was seen on.
struct Expected {
  uint32_t state = WEFT_BINARY_ELIGIBLE;
  uint32_t breaker = WEFT_BREAKER_NONE;
};
constexpr Expected kEligible{};
constexpr Expected kLearning{WEFT_BINARY_LEARNING, WEFT_BREAKER_NONE};
constexpr Expected Ineligible(weft_breaker breaker) { return {WEFT_BINARY_INELIGIBLE, breaker}; }

enum class Splice { kNo, kYes };

struct Chain {
  const char* name;
  const char* client;
  const char* how;
  const char* forwarder;  // or ""
  const char* server;
  Splice on;  // by hand: messages are spliced
  Splice automatic;
  Expected as_client;
  Expected as_server;
  Expected as_forwarder = {};  // both of its sides
  // False: it does what the splice breaks, which by hand nobody checks. nginx that buffers bodies
  // asks FIONREAD, is told 0 with bytes there, and waits for ever; splice(2) does not see them.
  bool by_hand = true;
};

void PrintTo(const Chain& chain, std::ostream* out) { *out << chain.name; }

struct Row {
  std::string role, program;
  BinaryVerdict verdict;
  weft_side side;
};

struct Outcome {
  SpliceStats stats;
  int first_spliced = 0;  // the connection; 0: none
  std::vector<Row> rows;
};

const char* TextOf(uint32_t state) {
  switch (state) {
    case WEFT_BINARY_ELIGIBLE:
      return "eligible";
    case WEFT_BINARY_INELIGIBLE:
      return "ineligible";
    default:
      return "learning";
  }
}

const char* BreakerText(uint32_t breaker) {
  static const char* const texts[] = {
#define X(name, text, meaning) text,
      WEFT_BREAKERS(X)
#undef X
  };
  return breaker < WEFT_BREAKER_MAX ? texts[breaker] : "?";
}

std::vector<std::string>& Table() {
  static std::vector<std::string> lines;
  return lines;
}

// One chain under one mode, on a node of its own.
class Trial final {
 public:
  Trial(const Workshop& shop, const Chain& chain, uint32_t flags)
      : shop_(shop), chain_(chain), flags_(flags) {
    for (int i = 0; i < 3; ++i) node_.Enrol(network_.pod(i), flags);
    EXPECT_TRUE(node_.kernel().watching().ok()) << node_.kernel().watching();
  }

  Outcome Go() {
    Program server(&network_.pod(1).netns, shop_.Server(chain_.server), Log(chain_.server),
                   Program::Stdio::kNone, Workshop::UidOf(chain_.server));
    if (!server.Listens(kProgramPort)) return Failed("server");
    std::unique_ptr<Program> forwarder;
    std::string to = kServerIp;
    if (*chain_.forwarder != '\0') {
      to = network_.pod(2).v4.ToString();
      forwarder =
          std::make_unique<Program>(&network_.pod(2).netns, shop_.Forwarder(chain_.forwarder),
                                    Log(chain_.forwarder), Program::Stdio::kNone);
      if (!forwarder->Listens(kProgramPort)) return Failed("forwarder");
    }
    Program client(&network_.pod(0).netns, shop_.Client(chain_.client, to, chain_.how),
                   Log(chain_.client), Program::Stdio::kPipes);
    Asker asker(shop_, chain_.client, to, client, node_.kernel().events_fd(),
                [this] { return Serve(); });
    AskAll(asker);
    Note("client", chain_.client, client, WEFT_SIDE_CONNECTING);
    if (forwarder) Note("accepting", chain_.forwarder, *forwarder, WEFT_SIDE_ACCEPTING);
    if (forwarder) Note("connecting", chain_.forwarder, *forwarder, WEFT_SIDE_CONNECTING);
    Note("server", chain_.server, server, WEFT_SIDE_ACCEPTING);
    outcome_.stats = node_.kernel().GetSpliceStats();
    return outcome_;
  }

 private:
  std::string Log(const std::string& program) const { return shop_.Log(program); }
  Outcome Failed(const char* who) {
    ADD_FAILURE() << who << " of " << chain_.name << " does not listen";
    return outcome_;
  }
  int Serve() {
    node_.Events();
    const auto again = node_.kernel().RunDueLateInsertions();
    constexpr int64_t kLongest = 100;
    if (!again) return kLongest;
    return static_cast<int>(
        std::clamp<int64_t>(*again / std::chrono::milliseconds(1), 1, kLongest));
  }
  // What the agent's walks find on this connection. A pair of them is 20 ms apart; what still waits
  // after half a second (an end that blocks) gains nothing from more.
  void Settle() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    node_.Events();
    for (auto again = node_.kernel().RunDueLateInsertions();
         again && std::chrono::steady_clock::now() + *again < end;
         again = node_.kernel().RunDueLateInsertions()) {
      std::this_thread::sleep_for(*again);
    }
  }
  // Each connection: small and large requests, what walks find meanwhile, and the same once more.
  void AskAll(Asker& asker) {
    const int connections = flags_ == kAuto ? kConnectionsAuto : kConnections;
    for (int i = 1; i <= connections && !testing::Test::HasFailure(); ++i) {
      ASSERT_TRUE(asker.Connect()) << chain_.name << ", connection " << i;
      AskSizes(asker, i);
      Settle();
      AskSizes(asker, i);
      if (outcome_.first_spliced == 0 && node_.kernel().GetSpliceStats().messages > 0) {
        outcome_.first_spliced = i;
      }
    }
  }
  void AskSizes(Asker& asker, int connection) {
    for (const size_t size : Workshop::Sizes()) {
      const std::string answer = asker.Ask(size);
      ASSERT_TRUE(answer == asker.Expected(size))
          << chain_.name << ", connection " << connection << ", " << size
          << " bytes: " << answer.substr(0, 200);
    }
  }
  void Note(const char* role, const char* name, const Program& program, weft_side side) {
    const auto [device, inode] = program.Binary();
    Row row{role, name, {}, side};
    for (const BinaryVerdict& verdict : node_.kernel().Binaries()) {
      if (verdict.device == device && verdict.inode == inode) row.verdict = verdict;
    }
    outcome_.rows.push_back(row);
  }

  const Workshop& shop_;
  const Chain& chain_;
  uint32_t flags_;
  Network network_;
  Node node_{"programs"};
  Outcome outcome_;
};

class ProgramsTest : public testing::TestWithParam<Chain> {
 protected:
  static void SetUpTestSuite() { shop_ = new Workshop; }
  static void TearDownTestSuite() {
    delete shop_;
    shop_ = nullptr;
    printf(
        "| client > server | role | program | verdict under auto | seen | spliced from connection "
        "| messages auto | messages on |\n");
    for (const std::string& line : Table()) printf("%s\n", line.c_str());
    Table().clear();
  }
  void SetUp() override { ASSERT_EQ(shop_->failure(), ""); }

  void ExpectVerdict(const Row& row, const Expected& expected) {
    const uint32_t state = row.verdict.state[row.side];
    EXPECT_TRUE(state == expected.state && row.verdict.breaker == expected.breaker)
        << row.role << " " << row.program << ": " << TextOf(state) << " "
        << BreakerText(row.verdict.breaker);
  }
  static void Print(const Outcome& automatic, const std::string& on) {
    for (const Row& row : automatic.rows) {
      const uint32_t state = row.verdict.state[row.side];
      char line[256];
      snprintf(line, sizeof line, "| %s | %s | %s | %s%s%s | %u | %d | %lu | %s |", GetParam().name,
               row.role.c_str(), row.program.c_str(), TextOf(state),
               state == WEFT_BINARY_INELIGIBLE ? ": " : "",
               state == WEFT_BINARY_INELIGIBLE ? BreakerText(row.verdict.breaker) : "",
               row.verdict.seen[row.side], automatic.first_spliced,
               static_cast<unsigned long>(automatic.stats.messages), on.c_str());
      Table().push_back(line);
    }
  }

  static Workshop* shop_;
};

Workshop* ProgramsTest::shop_ = nullptr;

TEST_P(ProgramsTest, AnswersTheSameOffOnAndAuto) {
  const Chain& chain = GetParam();
  const Outcome off = Trial(*shop_, chain, kOff).Go();
  EXPECT_EQ(off.stats.inserted + off.stats.messages, 0u);
  std::string on = "not tried";
  if (chain.by_hand) {
    const Outcome by_hand = Trial(*shop_, chain, kOn).Go();
    EXPECT_EQ(by_hand.stats.messages > 0, chain.on == Splice::kYes) << by_hand.stats.messages;
    on = std::to_string(by_hand.stats.messages);
  }
  const Outcome automatic = Trial(*shop_, chain, kAuto).Go();
  Print(automatic, on);
  ASSERT_GE(automatic.rows.size(), 2u);
  EXPECT_EQ(automatic.first_spliced > 0, chain.automatic == Splice::kYes);
  if (automatic.first_spliced > 0) {
    EXPECT_GT(automatic.first_spliced, WEFT_LEARN_CONNECTIONS);
  }
  ExpectVerdict(automatic.rows.front(), chain.as_client);
  ExpectVerdict(automatic.rows.back(), chain.as_server);
  for (size_t i = 1; i + 1 < automatic.rows.size(); ++i) {
    ExpectVerdict(automatic.rows[i], chain.as_forwarder);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ProgramsTest,
    testing::Values(
        Chain{"NodeNginx", "node", "get", "", "nginx", Splice::kYes, Splice::kYes, kEligible,
              kEligible},
        Chain{"NodeRedis", "node", "redis", "", "redis-server", Splice::kYes, Splice::kYes,
              kEligible, kEligible},
        Chain{"CliRedis", "redis-cli", "", "", "redis-server", Splice::kNo, Splice::kNo,
              Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE), kEligible},
        Chain{"PsqlPostgres", "psql", "", "", "postgres", Splice::kYes, Splice::kYes, kEligible,
              kEligible},
        Chain{"NodeNode", "node", "post", "", "node", Splice::kYes, Splice::kYes, kEligible,
              kEligible},
        Chain{"GoGo", "go", "post", "", "go", Splice::kYes, Splice::kYes, kEligible, kEligible},
        Chain{"AsyncioAsyncio", "asyncio", "post", "", "asyncio", Splice::kYes, Splice::kYes,
              kEligible, kEligible},
        Chain{"PythonPython", "python", "post", "", "python", Splice::kNo, Splice::kNo,
              Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE), Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE)},
        Chain{"NioNio", "nio", "post", "", "nio", Splice::kYes, Splice::kYes, kEligible, kEligible},
        Chain{"JavaJava", "java", "post", "", "java", Splice::kNo, Splice::kNo,
              Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE), Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE)},
        Chain{"PhpPhp", "php", "post", "", "php", Splice::kNo, Splice::kNo, kEligible, kEligible},
        Chain{"PythonNginx", "python", "get", "", "nginx", Splice::kNo, Splice::kNo,
              Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE), kEligible},
        Chain{"NodeJava", "node", "post", "", "java", Splice::kNo, Splice::kNo, kEligible,
              Ineligible(WEFT_BREAKER_BLOCKING_RECEIVE)},
        Chain{"NodePhp", "node", "post", "", "php", Splice::kNo, Splice::kNo, kEligible, kEligible},
        // nginx keeps one connection to its server: too few to learn from.
        Chain{"GoNginxNode", "go", "post", "nginx", "node", Splice::kNo, Splice::kNo, kEligible,
              kLearning, Ineligible(WEFT_BREAKER_PENDING_COUNT), false},
        Chain{"NodeHaproxyNode", "node", "post", "haproxy", "node", Splice::kYes, Splice::kYes,
              kEligible, kEligible, kEligible},
        Chain{"NodeHaproxySplicesGo", "node", "post", "haproxy-splice", "go", Splice::kYes,
              Splice::kNo, kEligible, kEligible, Ineligible(WEFT_BREAKER_SPLICE_FROM), false},
        Chain{"NodeGoCopyNode", "node", "post", "go-copy", "node", Splice::kYes, Splice::kNo,
              kEligible, kEligible, Ineligible(WEFT_BREAKER_SPLICE_FROM), false}),
    [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace weft::bpf
