// SPDX-License-Identifier: Apache-2.0
// `weft`: the program people type. Picks the subcommand; each is in a file of its own name.
#include <signal.h>
#include <stdio.h>

#include <string_view>

#include "control/cli/command.h"

namespace {

using weft::cli::Command;

const Command kCommands[] = {
    {"demo",
     "two nodes, real programs, mutual TLS: the whole path, told as it goes",
     "usage: weft demo [--keep] [--down] [--json] [--bin-dir DIR] [--manifests DIR]\n"
     "\nBuilds two nodes and nine pods from network namespaces, runs unmodified nginx, redis and\n"
     "curl in them, and shows step by step what the mesh does. Needs root. Everything it makes is\n"
     "called weft-demo-* and is removed at the end.\n"
     "\n  --keep       leave it running at the end and say what to try"
     "\n  --down       remove a demo that was kept or crashed"
     "\n  --json       one JSON object at the end instead of the story"
     "\n  --bin-dir    where weft-agent and its siblings are (default: beside weft)"
     "\n  --manifests  the folder to serve (default: deploy/demo/manifests of the source tree)\n",
     {"keep", "down", "json", "bin-dir", "manifests"},
     weft::cli::RunDemo},
    {"status",
     "workloads, identities, certificates, tunnels, splice and xDS of the agents here",
     "usage: weft status [--node NAME] [-o text|json]\n"
     "\nAsks the agents of this machine (/run/weft/NAME/agent.sock).\n"
     "exit code: 0 all is well, 2 something needs attention, 1 an agent does not answer\n",
     {"node", "json"},
     weft::cli::RunStatus},
    {"check",
     "what this kernel offers, with the consequence and the remedy of what is missing",
     "usage: weft check [-o text|json]\n"
     "\nTries each kernel feature that Weft uses. Needs root.\n"
     "exit code: 0 everything is there, 2 something optional is missing, 1 Weft cannot run here\n",
     {"json"},
     weft::cli::RunCheck},
    {"events",
     "who connected to whom, what ran and ended, the verdict and its reason",
     "usage: weft events [--node NAME] [--follow] [--pod [NAMESPACE/]NAME] [--namespace "
     "NAMESPACE]\n"
     "                   [--verdict V[,V]] [--reason R[,R]] [--binary PATH] [-o text|json]\n"
     "\nPrints the last events of the agents here (json: one object a line); --follow goes on "
     "until\n"
     "interrupted (one agent: name it if there are several). All filters must match:\n"
     "\n  --pod, --namespace  one of the ends of a connection, or whose process it is"
     "\n  --verdict           allowed, denied, killed or audited"
     "\n  --reason            as in `weft status`, for example process_denied"
     "\n  --binary            that runs, or made the socket: a path, a path with '*' at its end,\n"
     "                      or a name without '/'\n",
     {"node", "follow", "json", "pod", "namespace", "verdict", "reason", "binary"},
     weft::cli::RunEvents},
    {"why",
     "whether a connection is allowed, by which rule of which policy, and which way it goes",
     "usage: weft why SRC DST [PORT] [--protocol tcp|udp|sctp|icmp] [--node NAME] [-o text|json]\n"
     "\nSRC and DST are NAMESPACE/NAME of a workload, or an address; DST may also be a service\n"
     "(NAMESPACE/HOSTNAME or its VIP, with its PORT). Asks the kernel's maps, layer by layer: "
     "each\n"
     "must allow. Of two ends on two nodes each node answers for its own.\n"
     "exit code: 0 allowed, 2 denied, 1 nobody here knows them\n",
     {"node", "json", "protocol"},
     weft::cli::RunWhy,
     3},
};

void PrintUsage(FILE* to) {
  fprintf(to, "usage: weft COMMAND [FLAGS]\n\n");
  for (const Command& command : kCommands) {
    fprintf(to, "  %-8s %s\n", command.name.data(), command.summary.data());
  }
  fprintf(to, "\nweft COMMAND --help says more. Colours: off with NO_COLOR=1.\n");
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_DFL);
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    PrintUsage(stdout);
    return weft::cli::kExitOk;
  }
  for (const Command& command : kCommands) {
    if (command.name != name) continue;
    auto options = weft::cli::ParseOptions(command, {argv + 2, static_cast<size_t>(argc - 2)});
    if (!options.ok()) {
      fprintf(stderr, "weft %s: %s (weft %s --help)\n", command.name.data(),
              std::string(options.status().message()).c_str(), command.name.data());
      return weft::cli::kExitUsage;
    }
    if (options->help) {
      fputs(command.help.data(), stdout);
      return weft::cli::kExitOk;
    }
    return command.run(*options);
  }
  if (argc > 1) fprintf(stderr, "weft: there is no command %s\n\n", argv[1]);
  PrintUsage(stderr);
  return weft::cli::kExitUsage;
}
