// SPDX-License-Identifier: Apache-2.0
// The few socket calls that the load generator, the null relay and the bench server share. Errors
// end the program with a message that names the address: these are benchmarks, and a half-working
// run has no result.
#pragma once
#include <cstdint>
#include <string>

namespace weft::bench {

uint64_t NowNanoseconds();  // CLOCK_MONOTONIC
// "10.0.0.1:80" only. Non-blocking, TCP_NODELAY, established.
int ConnectTo(const std::string& target);
int ListenAt(const std::string& address);
// -1 if nothing is waiting. The socket is non-blocking with TCP_NODELAY.
int AcceptFrom(int listener);
// Runs this process on one CPU; -1: leaves it alone.
void PinTo(int cpu);
[[noreturn]] void Die(const std::string& what);

}  // namespace weft::bench
