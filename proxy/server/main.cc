// SPDX-License-Identifier: Apache-2.0
// weft-proxy: reads flags, wires, runs. Exit codes: 0 ended as asked, 1 failure, 64 usage, 65 bad
// input.
#include <cstdio>
#include <string>
#include <vector>

#include "proxy/base/log.h"
#include "proxy/server/flags.h"
#include "proxy/server/server.h"

namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 64;
constexpr int kBadInput = 65;

weft::LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return weft::LogLevel::kDebug;
  if (name == "warning") return weft::LogLevel::kWarning;
  return name == "error" ? weft::LogLevel::kError : weft::LogLevel::kInfo;
}

}  // namespace

int main(int argc, char** argv) {
  auto parsed = weft::server::ParseFlags(std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed.ok()) {
    fprintf(stderr, "weft-proxy: %s\nTry weft-proxy --help\n",
            std::string(parsed.status().message()).c_str());
    return parsed.status().code() == absl::StatusCode::kDataLoss ? kBadInput : kUsage;
  }
  if (parsed->help) {
    fputs(weft::server::HelpText().c_str(), stdout);
    return 0;
  }
  if (parsed->version) {
    puts("weft-proxy " WEFT_VERSION);
    return 0;
  }
  weft::ConfigureLog({.level = LevelOf(parsed->config.log_level),
                      .json = parsed->config.log_json,
                      .process = "weft-proxy"});
  auto server = weft::server::Server::Create(std::move(parsed->config));
  absl::Status status = server.ok() ? (*server)->Run() : server.status();
  if (!status.ok()) {
    weft::LogError("cannot run", {{"error", std::string(status.message())}});
    return kFailure;
  }
  return 0;
}
