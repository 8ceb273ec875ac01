// SPDX-License-Identifier: Apache-2.0
// weft-keyd: makes and holds the mesh's private keys and signs TLS 1.3 handshakes for who may use
// them. One thread, no network.
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "control/identity/confine.h"
#include "control/identity/keyd_server.h"
#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/packet_server.h"

namespace weft::identity {
namespace {

constexpr char kUsage[] =
    "usage: weft-keyd --control PATH [--uid UID] [--log-json]\n"
    "Makes and holds the private keys of a node's workloads. Started by weft-agent.\n"
    "  --control PATH  its socket (/run/weft/NAME/keyd.sock), for the uid that starts it only\n"
    "  --uid UID       whom to become once the socket exists; default: stays who it is\n";

struct Flags {
  std::string control;
  uint32_t uid = 0;
  bool log_json = false;
};

bool ParseNumber(std::string_view text, uint32_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

std::optional<Flags> Parse(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    if (argument == "--log-json") {
      flags.log_json = true;
      continue;
    }
    std::string_view value;
    if (equals != std::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < argc) {
      value = argv[++i];
    }
    if (name == "--control" && !value.empty()) {
      flags.control = value;
    } else if (name != "--uid" || !ParseNumber(value, &flags.uid)) {
      fprintf(stderr, "weft-keyd: unknown flag or bad value: %s\n%s", argv[i], kUsage);
      return std::nullopt;
    }
  }
  if (!flags.control.empty()) return flags;
  fprintf(stderr, "weft-keyd: --control is required\n%s", kUsage);
  return std::nullopt;
}

int Main(int argc, char** argv) {
  const std::optional<Flags> flags = Parse(argc, argv);
  if (!flags) return 64;
  ConfigureLog({.json = flags->log_json, .process = "weft-keyd"});
  ipc::WatchStopSignals();
  const uid_t starter = geteuid();
  const int listener = ipc::ListenPackets(flags->control, 0600);
  if (listener < 0) {
    LogError("cannot listen", {{"path", flags->control}, {"error", strerror(-listener)}});
    return 1;
  }
  if (const absl::Status confined = Confine(flags->uid); !confined.ok()) {
    LogError("cannot give up privileges", {{"error", confined.ToString()}});
    return 1;
  }
  KeydServer server(listener, starter);
  LogInfo("ready", {{"path", flags->control}, {"uid", std::to_string(flags->uid)}});
  while (!ipc::StopRequested()) server.Turn(-1);
  return 0;
}

}  // namespace
}  // namespace weft::identity

int main(int argc, char** argv) { return weft::identity::Main(argc, argv); }
