// SPDX-License-Identifier: Apache-2.0
// Two pods with the splice between them, and streams of known bytes: what the tests of the splice
// share. Thread: the test's.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <thread>

#include "tests/bpf/testbed.h"

namespace weft::bpf {

inline constexpr uint16_t kPort = 8080;
inline constexpr uint32_t kFlags = WEFT_WL_PROXY_READY | WEFT_WL_SPLICE;

// Byte number `offset` of a stream: a mix that makes lost, doubled or moved blocks visible.
char ByteAt(uint64_t offset);
std::string Bytes(uint64_t from, size_t count);

// One direction of a transfer; offsets are those of the whole stream.
struct Direction {
  const UniqueFd& from;
  const UniqueFd& to;
  uint64_t total;
  uint64_t sent = 0;
  uint64_t received = 0;
  size_t piece = 64 * 1024;
};

// Sends what goes now. False on an error.
bool Push(Direction& d);
// Reads and checks what is there.
bool Pull(Direction& d);
// Both directions at once, until all has arrived.
void Exchange(Direction there, Direction back);

struct Pair {
  UniqueFd client, server;
};

class SpliceBed : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(client_pod_, kFlags);
    node_.Enrol(server_pod_, kFlags);
    server_ = Listener(server_pod_, kPort);
  }
  Pair Connected(Blocking client, Blocking server, int family = AF_INET);
  // A connection after server and client have been learned: spliced from its first byte.
  Pair Spliced(int family = AF_INET);
  // Runs the due walks, at the times the agent would, until `done` or until nobody waits for one.
  template <typename Done>
  void WalkUntil(Done done) {
    node_.Events();
    while (!done()) {
      const auto again = node_.kernel().RunDueLateInsertions();
      if (!again) return;
      std::this_thread::sleep_for(*again);
    }
  }
  void Settle() {
    WalkUntil([] { return false; });
  }
  // Walks of a netns that are due now; connections must be left that want another one.
  void FirstWalk() {
    node_.Events();
    EXPECT_TRUE(node_.kernel().RunDueLateInsertions());
  }
  SpliceStats stats() { return node_.kernel().GetSpliceStats(); }

  Network network_;
  Pod& client_pod_ = network_.pod(0);
  Pod& server_pod_ = network_.pod(1);
  Node node_{"splice"};
  UniqueFd server_;
};

}  // namespace weft::bpf
