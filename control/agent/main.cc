// SPDX-License-Identifier: Apache-2.0
// weft-agent: one node of the mesh. See agent.h; here only flags and signals.
#include <signal.h>
#include <stdio.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <filesystem>

#include "control/agent/agent.h"
#include "proxy/base/log.h"

namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 64;

}  // namespace

int main(int argc, char** argv) {
  auto options = weft::agent::ParseOptions({argv + 1, static_cast<size_t>(argc - 1)});
  if (!options.ok()) {
    fprintf(stderr, "weft-agent: %s\n", std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  if (options->help) {
    fputs(weft::agent::kUsage, stdout);
    return 0;
  }
  weft::ConfigureLog({.json = options->json_log, .process = "weft-agent"});
  if (options->bin_dir.empty()) {
    std::error_code error;
    options->bin_dir = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  }
  signal(SIGPIPE, SIG_IGN);
  boost::asio::io_context io(1);
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  auto agent = weft::agent::Agent::Create(io, std::move(*options));
  if (!agent.ok()) {
    weft::LogError("weft-agent cannot start", {{"error", std::string(agent.status().message())}});
    return kExitFailure;
  }
  signals.async_wait([&](boost::system::error_code error, int) {
    if (error) return;
    (*agent)->Shutdown();
    io.stop();
  });
  weft::LogInfo("weft-agent runs");
  io.run();
  return 0;
}
