// SPDX-License-Identifier: Apache-2.0
#include "control/plane/options.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/identity/ca.h"
#include "control/plane/fields.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {

const char kUsage[] =
    "weft-control: reads manifests from a folder, serves them as xDS, signs certificates.\n"
    "\n"
    "  weft-control --manifests DIR --state-dir DIR [--listen ADDR:PORT] [...]\n"
    "  weft-control --check --manifests DIR\n"
    "\n"
    "  --manifests DIR       folder of *.yaml, *.yml, *.json; watched for changes\n"
    "  --state-dir DIR       the CA's key and root.pem; created with mode 0700\n"
    "  --listen ADDR:PORT    xDS and CA over TLS (default 0.0.0.0:15012)\n"
    "  --join-tokens FILE    lines \"NODE TOKEN\", mode 0600; without it no node can join\n"
    "  --plaintext ADDR:PORT xDS without TLS and without authentication, loopback only: for tests\n"
    "  --status ADDR:PORT    GET /status and /healthz/ready, loopback only (default "
    "127.0.0.1:15014),\n"
    "           unix:PATH    or on a unix socket that only this user may use\n"
    "  --trust-domain TD     of all identities (default cluster.local)\n"
    "  --cluster-domain D    hosts are NAME.NAMESPACE.svc.D (default cluster.local)\n"
    "  --root-namespace NS   whose policies hold for the whole mesh (default istio-system)\n"
    "  --server-names A,B    further names or addresses that nodes find weft-control by\n"
    "  --cert-ttl TIME       lifetime of certificates, 5s to 24h (default 1h)\n"
    "  --check               read the folder, print each problem as file:line: text, and exit: 0 "
    "or 65\n"
    "  --annotations         print the table of Service annotations\n"
    "  --json-logs  --help  --version\n"
    "\n"
    "Exit codes: 0 ok, 1 failure, 64 usage, 65 bad manifests (--check).\n";

namespace {

absl::Status Bad(const std::string& flag, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", why));
}

absl::Status SetAddress(const std::string& flag, const std::string& value, bool loopback_only,
                        std::optional<SocketAddress>* out) {
  *out = SocketAddress::Parse(value);
  if (!out->has_value()) return Bad(flag, "\"" + value + "\" is no ADDRESS:PORT");
  if (loopback_only && !(*out)->ip.is_loopback()) {
    return Bad(flag,
               "\"" + value + "\" is not a loopback address; this port knows no authentication");
  }
  return absl::OkStatus();
}

absl::Status SetStatus(const std::string& value, Options* options) {
  constexpr char kUnix[] = "unix:";
  if (!value.starts_with(kUnix)) return SetAddress("--status", value, true, &options->status);
  options->status_unix = value.substr(sizeof kUnix - 1);
  return options->status_unix.empty() ? Bad("--status", "unix: needs a path") : absl::OkStatus();
}

absl::Status SetTtl(const std::string& value, Options* options) {
  const auto ms = ParseDurationMs(value);
  if (!ms.has_value() || *ms < 5'000 || *ms > 24 * 3'600'000) {
    return Bad("--cert-ttl", "\"" + value + "\" is no time from 5s to 24h");
  }
  options->cert_ttl = std::chrono::seconds(*ms / 1000);
  return absl::OkStatus();
}

absl::Status SetText(const std::string& flag, const std::string& value, std::string* out) {
  if (value.empty()) return Bad(flag, "needs a value");
  *out = value;
  return absl::OkStatus();
}

absl::Status SetName(const std::string& flag, const std::string& value, std::string* out) {
  if (!IsObjectName(value))
    return Bad(flag, "\"" + value + "\": lower-case letters, digits, '-' and '.' only");
  return SetText(flag, value, out);
}

absl::Status AddServerNames(const std::string& value, Options* options) {
  for (size_t at = 0; at <= value.size();) {
    const size_t end = std::min(value.find(',', at), value.size());
    const std::string name = value.substr(at, end - at);
    if (!IsObjectName(name) && !IpAddress::Parse(name).has_value()) {
      return Bad("--server-names", "\"" + name + "\" is neither a host name nor an address");
    }
    options->server_names.push_back(name);
    at = end + 1;
  }
  return absl::OkStatus();
}

absl::Status SetValue(const std::string& flag, const std::string& value, Options* options) {
  if (flag == "--manifests") return SetText(flag, value, &options->manifests);
  if (flag == "--state-dir") return SetText(flag, value, &options->state_dir);
  if (flag == "--join-tokens") return SetText(flag, value, &options->join_tokens);
  if (flag == "--listen") return SetAddress(flag, value, false, &options->listen);
  if (flag == "--plaintext") return SetAddress(flag, value, true, &options->plaintext);
  if (flag == "--status") return SetStatus(value, options);
  if (flag == "--trust-domain") return SetName(flag, value, &options->trust_domain);
  if (flag == "--cluster-domain") return SetName(flag, value, &options->cluster_domain);
  if (flag == "--root-namespace") return SetName(flag, value, &options->root_namespace);
  if (flag == "--server-names") return AddServerNames(value, options);
  if (flag == "--cert-ttl") return SetTtl(value, options);
  return Bad(flag, "unknown flag; see --help");
}

bool* FindSwitch(const std::string& flag, Options* options) {
  if (flag == "--check") return &options->check;
  if (flag == "--annotations") return &options->annotations;
  if (flag == "--json-logs") return &options->json_logs;
  if (flag == "--help" || flag == "-h") return &options->help;
  if (flag == "--version") return &options->version;
  return nullptr;
}

absl::Status Complete(Options* options) {
  if (options->help || options->version || options->annotations) return absl::OkStatus();
  if (options->manifests.empty()) return Bad("--manifests", "missing");
  // "a/b/" would show as "a/b//x.yaml" in every problem.
  while (options->manifests.size() > 1 && options->manifests.back() == '/')
    options->manifests.pop_back();
  if (options->check) return absl::OkStatus();
  if (options->state_dir.empty()) return Bad("--state-dir", "missing");
  if (!options->listen.has_value()) options->listen = SocketAddress::Parse("0.0.0.0:15012");
  if (!options->status.has_value() && options->status_unix.empty()) {
    options->status = SocketAddress::Parse("127.0.0.1:15014");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string flag = arguments[i];
    if (bool* is_on = FindSwitch(flag, &options); is_on != nullptr) {
      *is_on = true;
      continue;
    }
    std::string value;
    if (const size_t equals = flag.find('='); equals != std::string::npos) {
      value = flag.substr(equals + 1);
      flag.resize(equals);
    } else if (flag.starts_with("--") && i + 1 < arguments.size()) {
      value = arguments[++i];
    } else if (flag.starts_with("--")) {
      return Bad(flag, "unknown flag, or its value is missing; see --help");
    } else {
      return absl::InvalidArgumentError("\"" + flag + "\": only flags are expected; see --help");
    }
    WEFT_RETURN_IF_ERROR(SetValue(flag, value, &options));
  }
  WEFT_RETURN_IF_ERROR(Complete(&options));
  return options;
}

}  // namespace weft::plane
