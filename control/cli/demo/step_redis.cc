// SPDX-License-Identifier: Apache-2.0
// Step 6: redis over the mesh, same node and across, with data checked.
#include <random>

#include "control/cli/demo/story.h"

namespace weft::cli {
namespace {

constexpr size_t kValueBytes = 1 << 20;

// Random text with the canary in the middle.
std::string MakeValue(const std::string& canary, unsigned seed) {
  std::mt19937 random(seed);
  std::string value(kValueBytes, ' ');
  for (char& c : value) c = static_cast<char>('!' + random() % 90);
  return value.replace(kValueBytes / 2, canary.size(), canary);
}

absl::Status WriteAndRead(Story& story, const std::string& address, const std::string& value,
                          std::chrono::microseconds* took) {
  RunOptions options;
  options.netns = story.mesh().Netns("client");
  options.input = value;
  WEFT_ASSIGN_OR_RETURN(RunResult set,
                        Run({"redis-cli", "-h", address, "-x", "SET", "demo"}, options));
  if (set.out != "OK\n") return DoesNotHold(address + ": SET: " + set.out + set.err);
  WEFT_ASSIGN_OR_RETURN(RunResult get,
                        story.mesh().In("client", {"redis-cli", "-h", address, "GET", "demo"}));
  if (get.out != value + "\n") {
    return DoesNotHold(absl::StrCat(address, ": GET brought ", get.out.size(),
                                    " bytes, not what was stored. ", get.err));
  }
  *took = set.took + get.took;
  return absl::OkStatus();
}

}  // namespace

absl::Status StepRedis(Story& story) {
  unsigned seed = 1;
  for (const auto& [where, address] :
       {std::pair("same node", "10.244.1.20"), std::pair("across the nodes", "10.244.2.20")}) {
    std::chrono::microseconds took{};
    WEFT_RETURN_IF_ERROR(WriteAndRead(story, address, MakeValue(story.canary(), ++seed), &took));
    story.Say(absl::StrCat(where, ": redis-cli SET and GET of 1 MiB at ", address,
                           ", every byte the same, ", took.count() / 1000, " ms"));
    story.Figure(where, {{"bytes", kValueBytes}, {"ms", took.count() / 1000.0}});
  }
  for (int i = 0; i < 8; ++i) {
    WEFT_ASSIGN_OR_RETURN(RunResult ping,
                          story.mesh().In("client", {"redis-cli", "-h", "10.96.0.20", "ping"}));
    if (ping.out != "PONG\n") return DoesNotHold("redis by its VIP: " + ping.out + ping.err);
  }
  story.Say("by its VIP 10.96.0.20: 8 new connections, 8 x PONG");
  return story.CheckWire();
}

}  // namespace weft::cli
