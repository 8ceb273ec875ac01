// SPDX-License-Identifier: Apache-2.0
#include "control/agent/options.h"

#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>

#include "proxy/base/address.h"

namespace weft::agent {

const char kUsage[] =
    "usage: weft-agent --node NAME --control ADDRESS:15012 --control-root ROOT.pem --join-token "
    "FILE [FLAGS]\n"
    "\nRuns one node of the mesh: loads the kernel programs, enrols workloads, starts "
    "weft-sockets,\n"
    "weft-keyd and weft-proxy, and feeds them from weft-control. Needs root.\n"
    "\n  --node NAME            this node's name in the control plane"
    "\n  --run-dir DIR          sockets and pid files (default /run/weft/NAME)"
    "\n  --bpffs DIR            where pins go (default /sys/fs/bpf)"
    "\n  --cgroup2 DIR          mount point of cgroup v2 (default: from the mount table)"
    "\n  --control ADDR:PORT    weft-control's TLS port"
    "\n  --control-root FILE    PEM certificate of the mesh's root"
    "\n  --join-token FILE      proves to weft-control that this node may join"
    "\n  --trust-domain TD      default cluster.local"
    "\n  --workloads DIR        YAML entries of workloads to enrol; watched"
    "\n  --bin-dir DIR          where the other programs are (default: beside weft-agent)"
    "\n  --zone ZONE            where this node is, for services that prefer their client's zone"
    "\n                         (default: the zone of its workloads)"
    "\n  --service-memory MIB   kernel memory for endpoints of services (default 16); counts when"
    "\n                         the maps are made"
    "\n  --proxy-uid N, --keyd-uid N, --proxy-workers N"
    "\n  --splice=on|off        node-wide switch at start (default on; workloads choose for "
    "themselves)"
    "\n  --keep-running-on-exit SIGTERM ends the agent only"
    "\n  --unload-on-exit       SIGTERM also detaches and unpins the kernel programs"
    "\n  --xds-plaintext ADDR:PORT  tests: configuration without TLS, no certificates; loopback "
    "only"
    "\n  --log-json\n";

namespace {

struct Flag {
  std::string_view name;
  std::string Options::* text = nullptr;
  uint32_t Options::* number = nullptr;
  bool Options::* boolean = nullptr;
};
constexpr Flag kFlags[] = {
    {"node", &Options::node},
    {"run-dir", &Options::run_dir},
    {"bpffs", &Options::bpffs},
    {"cgroup2", &Options::cgroup2},
    {"control", &Options::control},
    {"control-root", &Options::control_root},
    {"join-token", &Options::join_token_file},
    {"xds-plaintext", &Options::xds_plaintext},
    {"trust-domain", &Options::trust_domain},
    {"workloads", &Options::workloads_dir},
    {"bin-dir", &Options::bin_dir},
    {"zone", &Options::zone},
    {"service-memory", nullptr, &Options::service_memory_mib},
    {"proxy-uid", nullptr, &Options::proxy_uid},
    {"keyd-uid", nullptr, &Options::keyd_uid},
    {"proxy-workers", nullptr, &Options::proxy_workers},
    {"keep-running-on-exit", nullptr, nullptr, &Options::keep_running_on_exit},
    {"unload-on-exit", nullptr, nullptr, &Options::unload_on_exit},
    {"log-json", nullptr, nullptr, &Options::json_log},
    {"help", nullptr, nullptr, &Options::help},
};

absl::Status Bad(std::string_view flag, std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", AbslView(flag), ": ", AbslView(why), " (weft-agent --help)"));
}

absl::Status SetValue(const Flag& flag, std::string_view value, Options* options) {
  if (flag.text != nullptr) {
    options->*flag.text = value;
    return absl::OkStatus();
  }
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number == 0) {
    return Bad(flag.name, "a number above 0 is needed");
  }
  options->*flag.number = number;
  return absl::OkStatus();
}

// Whoever answers there decides what this node does, and nothing proves who it is.
absl::Status CheckPlaintext(const std::string& target) {
  const std::optional<SocketAddress> address = SocketAddress::Parse(target);
  if (!address) return Bad("xds-plaintext", "\"" + target + "\" is no ADDRESS:PORT");
  if (address->ip.is_loopback()) return absl::OkStatus();
  return Bad("xds-plaintext",
             "\"" + target + "\" is not a loopback address; this port knows no authentication");
}

absl::Status Check(Options* o) {
  if (o->help) return absl::OkStatus();
  if (o->node.empty()) return Bad("node", "is required");
  if (o->run_dir.empty()) o->run_dir = "/run/weft/" + o->node;
  while (o->run_dir.size() > 1 && o->run_dir.back() == '/') o->run_dir.pop_back();
  if (o->proxy_workers > 64) return Bad("proxy-workers", "at most 64");
  if (o->service_memory_mib > 4096) return Bad("service-memory", "at most 4096");
  if (!o->xds_plaintext.empty()) return CheckPlaintext(o->xds_plaintext);
  if (o->control.empty()) return Bad("control", "is required");
  if (o->control_root.empty()) return Bad("control-root", "is required");
  if (o->join_token_file.empty()) return Bad("join-token", "is required");
  return absl::OkStatus();
}

}  // namespace

std::string Options::instance() const { return std::filesystem::path(run_dir).filename(); }

absl::StatusOr<Options> ParseOptions(std::span<char* const> arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    if (argument == "-h") argument = "--help";
    if (argument == "--splice=on" || argument == "--splice=off") {
      options.splice = argument == "--splice=on";
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string_view name = argument.starts_with("--") ? argument.substr(2, equals - 2) : "";
    const Flag* flag = nullptr;
    for (const Flag& f : kFlags) {
      if (f.name == name) flag = &f;
    }
    if (flag == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown argument ", AbslView(argument), " (weft-agent --help)"));
    }
    if (flag->boolean != nullptr) {
      options.*flag->boolean = true;
    } else if (equals != std::string_view::npos) {
      WEFT_RETURN_IF_ERROR(SetValue(*flag, argument.substr(equals + 1), &options));
    } else if (++i < arguments.size()) {
      WEFT_RETURN_IF_ERROR(SetValue(*flag, arguments[i], &options));
    } else {
      return Bad(flag->name, "needs a value");
    }
  }
  WEFT_RETURN_IF_ERROR(Check(&options));
  return options;
}

}  // namespace weft::agent
