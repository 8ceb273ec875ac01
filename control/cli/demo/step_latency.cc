// SPDX-License-Identifier: Apache-2.0
// Step 8: same node, redis and redis-benchmark: direct TCP without the mesh beside spliced with it.
// redis-benchmark reads the server's configuration by a socket that blocks, so its others enter the
// splice late (bpf/sockops/late.bpf.c), some 60 ms after each start: a round must be much longer.
#include <algorithm>
#include <sstream>

#include "absl/strings/str_format.h"
#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

constexpr int kRounds = 5;
constexpr int kRequests = 40000;  // a round; a second or so

struct Benchmark {
  double requests_per_second = 0, p50_ms = 0, p99_ms = 0;
};

// redis-benchmark's CSV: "test","rps","avg_latency_ms","min","p50","p95","p99","max", a head line
// and one of figures.
absl::StatusOr<Benchmark> ParseCsv(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    if (!line.starts_with("\"GET\"")) continue;
    std::replace(line.begin(), line.end(), ',', ' ');
    std::erase(line, '"');
    std::istringstream fields(line);
    std::string name;
    double average, minimum, p95;
    Benchmark out;
    if (fields >> name >> out.requests_per_second >> average >> minimum >> out.p50_ms >> p95 >>
        out.p99_ms) {
      return out;
    }
  }
  return absl::DataLossError("redis-benchmark printed something else: " + text);
}

absl::StatusOr<Benchmark> RunBenchmark(Story& story, const std::string& pod,
                                       const std::string& address) {
  WEFT_ASSIGN_OR_RETURN(RunResult result,
                        story.mesh().In(pod,
                                        {"redis-benchmark", "-h", address, "-c", "1", "-n",
                                         std::to_string(kRequests), "-t", "get", "--csv"},
                                        std::chrono::seconds(60)));
  if (!result.ok()) return DoesNotHold("redis-benchmark: " + result.err);
  return ParseCsv(result.out);
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

absl::StatusOr<uint64_t> SplicedMessages(Story& story) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json status, story.Agent("node-a", "/status"));
  return status["splice"].value("messages", uint64_t{0});
}

// Without end, until it is seen in the splice's counts.
absl::Status SeeItSpliced(Story& story, uint64_t messages_before) {
  Topology& topology = story.mesh().topology();
  WEFT_ASSIGN_OR_RETURN(
      const ProcessId process,
      topology.Start("redis-benchmark",
                     {"redis-benchmark", "-h", "10.244.1.20", "-c", "1", "-t", "get", "-q", "-l"},
                     story.mesh().Netns("client")));
  absl::StatusOr<uint64_t> messages = messages_before;
  const bool spliced = WaitFor(std::chrono::seconds(30), [&] {
    messages = SplicedMessages(story);
    return !messages.ok() || *messages >= messages_before + 1000;
  });
  topology.Stop(process);
  WEFT_RETURN_IF_ERROR(messages.status());
  return spliced ? absl::OkStatus() : DoesNotHold("redis-benchmark is not spliced");
}

}  // namespace

absl::Status StepLatency(Story& story) {
  WEFT_ASSIGN_OR_RETURN(const uint64_t messages_at_first, SplicedMessages(story));
  WEFT_RETURN_IF_ERROR(SeeItSpliced(story, messages_at_first));
  WEFT_ASSIGN_OR_RETURN(const uint64_t messages_before, SplicedMessages(story));
  std::vector<double> bare_p50, mesh_p50, bare_rate, mesh_rate;
  for (int round = 0; round < kRounds; ++round) {
    WEFT_ASSIGN_OR_RETURN(const Benchmark bare, RunBenchmark(story, "bare-client", "10.244.1.31"));
    WEFT_ASSIGN_OR_RETURN(const Benchmark mesh, RunBenchmark(story, "client", "10.244.1.20"));
    bare_p50.push_back(bare.p50_ms * 1000);
    mesh_p50.push_back(mesh.p50_ms * 1000);
    bare_rate.push_back(bare.requests_per_second);
    mesh_rate.push_back(mesh.requests_per_second);
  }
  WEFT_ASSIGN_OR_RETURN(const uint64_t messages_after, SplicedMessages(story));
  story.Say(absl::StrFormat("%d rounds each, in turns, %d GETs a round, one connection:", kRounds,
                            kRequests));
  story.Say(absl::StrFormat("  direct TCP, no mesh:  p50 %5.1f us   %6.0f requests/s",
                            Median(bare_p50), Median(bare_rate)));
  story.Say(absl::StrFormat("  in the mesh, spliced: p50 %5.1f us   %6.0f requests/s   (%.2fx)",
                            Median(mesh_p50), Median(mesh_rate),
                            Median(mesh_p50) / Median(bare_p50)));
  story.Say(absl::StrCat("  messages spliced by the kernel meanwhile: ",
                         messages_after - messages_before));
  story.Figure("direct_p50_us", Median(bare_p50));
  story.Figure("spliced_p50_us", Median(mesh_p50));
  story.Figure("ratio", Median(mesh_p50) / Median(bare_p50));
  story.Figure("spliced_messages", messages_after - messages_before);
  // Two messages a GET; the first ones of a connection go by TCP.
  if (messages_after - messages_before < uint64_t{kRounds} * kRequests) {
    return DoesNotHold("most messages did not take the splice");
  }
  return absl::OkStatus();
}

}  // namespace weft::cli
