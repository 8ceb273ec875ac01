// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/flags.h"

#include <charconv>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <utility>

namespace weft::server {
namespace {

absl::Status Bad(std::string_view flag, std::string_view value, std::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(AbslView(flag), ": ", AbslView(value), " is not ", AbslView(wanted)));
}

template <typename T>
bool ParseNumber(std::string_view text, T low, T high, T* out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && *out >= low && *out <= high;
}

template <typename T>
absl::Status Number(std::string_view flag, std::string_view text, T low, T high, T* out) {
  if (ParseNumber(text, low, high, out)) return absl::OkStatus();
  return Bad(flag, text, absl::StrCat("a number from ", low, " to ", high));
}

absl::Status FdList(std::string_view flag, std::string_view text, std::vector<int>* out) {
  while (true) {
    size_t comma = text.find(',');
    int fd = -1;
    WEFT_RETURN_IF_ERROR(Number(flag, text.substr(0, comma), 3, 1 << 20, &fd));
    out->push_back(fd);
    if (comma == std::string_view::npos) return absl::OkStatus();
    text.remove_prefix(comma + 1);
  }
}

absl::Status OneOf(std::string_view flag, std::string_view text,
                   std::initializer_list<std::string_view> allowed) {
  std::string names;
  for (std::string_view name : allowed) {
    if (text == name) return absl::OkStatus();
    names += names.empty() ? "" : ", ";
    names += name;
  }
  return Bad(flag, text, "one of " + names);
}

struct Flag {
  const char* name;
  const char* value;  // null: a switch
  const char* help;
  std::function<absl::Status(Config&, const std::string&)> set;
};

absl::Status ReadBootstrap(Config& config, const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::DataLossError("--config: cannot read " + path);
  std::stringstream text;
  text << file.rdbuf();
  absl::Status status = ApplyBootstrap(text.str(), config);
  return status.ok() ? status : absl::DataLossError(absl::StrCat(path, ": ", status.message()));
}

const std::vector<Flag>& Flags() {
  static const std::vector<Flag> flags = {
      {"--xds", "TARGET", "xDS server: unix:PATH or HOST:PORT",
       [](Config& c, const std::string& v) {
         c.xds = v;
         return absl::OkStatus();
       }},
      {"--xds-variant", "delta|sotw", "variant of the xDS protocol (delta)",
       [](Config& c, const std::string& v) {
         c.xds_delta = v == "delta";
         return OneOf("--xds-variant", v, {"delta", "sotw"});
       }},
      {"--config", "FILE",
       "Envoy bootstrap (YAML or JSON): node, admin, ads_config; flags after it override it",
       ReadBootstrap},
      {"--node", "NAME", "node id towards the xDS server (weft)",
       [](Config& c, const std::string& v) {
         c.node = v;
         return absl::OkStatus();
       }},
      {"--cluster-id", "ID", "cluster this node belongs to",
       [](Config& c, const std::string& v) {
         c.cluster_id = v;
         return absl::OkStatus();
       }},
      {"--trust-domain", "TD", "own trust domain (cluster.local)",
       [](Config& c, const std::string& v) {
         c.trust_domain = v;
         return absl::OkStatus();
       }},
      {"--admin", "ADDR:PORT", "serve the admin interface here",
       [](Config& c, const std::string& v) {
         c.admin = SocketAddress::Parse(v);
         return c.admin ? absl::OkStatus() : Bad("--admin", v, "an address with a port");
       }},
      {"--admin-fd", "N", "serve the admin interface on this listening socket",
       [](Config& c, const std::string& v) {
         return Number("--admin-fd", v, 3, 1 << 20, &c.admin_fd);
       }},
      {"--sockets-fds", "N,N",
       "channels to weft-sockets, one per worker; without them the proxy runs alone",
       [](Config& c, const std::string& v) { return FdList("--sockets-fds", v, &c.sockets_fds); }},
      {"--keyd-fds", "N,N", "channels to weft-keyd, one per worker",
       [](Config& c, const std::string& v) { return FdList("--keyd-fds", v, &c.keyd_fds); }},
      {"--workers", "N", "threads of the data path (1)",
       [](Config& c, const std::string& v) { return Number("--workers", v, 1u, 64u, &c.workers); }},
      {"--uid", "N", "become this user",
       [](Config& c, const std::string& v) {
         return Number<int64_t>("--uid", v, 0, UINT32_MAX - 1, &c.uid);
       }},
      {"--gid", "N", "become this group",
       [](Config& c, const std::string& v) {
         return Number<int64_t>("--gid", v, 0, UINT32_MAX - 1, &c.gid);
       }},
      {"--sandbox", nullptr,
       "drop all privileges and filter system calls (always with --sockets-fds)",
       [](Config& c, const std::string&) {
         c.sandbox = true;
         return absl::OkStatus();
       }},
      {"--drain-time-ms", "N", "time for open connections after SIGTERM (5000)",
       [](Config& c, const std::string& v) {
         int64_t ms = 0;
         absl::Status status = Number<int64_t>("--drain-time-ms", v, 0, 3600000, &ms);
         c.drain_time = std::chrono::milliseconds(ms);
         return status;
       }},
      {"--log-level", "LEVEL", "debug, info, warning or error (info)",
       [](Config& c, const std::string& v) {
         c.log_level = v;
         return OneOf("--log-level", v, {"debug", "info", "warning", "error"});
       }},
      {"--log-json", nullptr, "log lines as JSON",
       [](Config& c, const std::string&) {
         c.log_json = true;
         return absl::OkStatus();
       }},
  };
  return flags;
}

absl::Status Validate(const Config& config) {
  if (config.xds.empty()) return absl::InvalidArgumentError("--xds: missing");
  if (config.admin && config.admin_fd >= 0) {
    return absl::InvalidArgumentError("--admin and --admin-fd: only one of them");
  }
  for (const auto& [flag, fds] :
       {std::pair("--sockets-fds", &config.sockets_fds), {"--keyd-fds", &config.keyd_fds}}) {
    if (!fds->empty() && fds->size() != config.workers) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": ", fds->size(), " descriptors for ", config.workers, " workers"));
    }
  }
  if (config.alone() && !config.keyd_fds.empty()) {
    return absl::InvalidArgumentError("--keyd-fds: only with --sockets-fds");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ParsedFlags> ParseFlags(const std::vector<std::string>& arguments) {
  ParsedFlags parsed;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    if (name == "--help" || name == "-h") parsed.help = true;
    if (name == "--version") parsed.version = true;
    if (parsed.help || parsed.version) return parsed;
    std::optional<std::string> value;
    if (size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    const Flag* flag = nullptr;
    for (const Flag& candidate : Flags()) {
      if (name == candidate.name) flag = &candidate;
    }
    if (flag == nullptr) return absl::InvalidArgumentError(name + ": unknown flag");
    if (flag->value == nullptr && value)
      return absl::InvalidArgumentError(name + ": takes no value");
    if (flag->value != nullptr && !value) {
      if (++i == arguments.size()) return absl::InvalidArgumentError(name + ": needs a value");
      value = arguments[i];
    }
    WEFT_RETURN_IF_ERROR(flag->set(parsed.config, value.value_or("")));
  }
  WEFT_RETURN_IF_ERROR(Validate(parsed.config));
  return parsed;
}

std::string HelpText() {
  std::string text =
      "weft-proxy: the data plane of Weft.\n"
      "\n"
      "In the mesh weft-agent starts it and gives it its descriptors. Alone it binds the addresses "
      "of its\n"
      "listeners: weft-proxy --xds 127.0.0.1:18000 --xds-variant sotw --admin 127.0.0.1:15000\n"
      "\n"
      "Flags:\n";
  for (const Flag& flag : Flags()) {
    std::string left =
        std::string("  ") + flag.name + (flag.value ? std::string(" ") + flag.value : "");
    left.resize(std::max<size_t>(left.size() + 1, 28), ' ');
    text += left + flag.help + "\n";
  }
  text +=
      "  --help, --version\n"
      "\n"
      "Exit codes: 0 ended as asked, 1 failure, 64 usage, 65 bad input.\n";
  return text;
}

}  // namespace weft::server
