// SPDX-License-Identifier: Apache-2.0
// weft-control: wires the parts, turns signals into an orderly end and errors into exit codes.
// Thread: main only.
#include <signal.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "control/plane/annotations.h"
#include "control/plane/control_server.h"
#include "control/plane/manifest_folder.h"
#include "control/plane/options.h"
#include "control/plane/publisher.h"
#include "proxy/base/log.h"

namespace weft::plane {
namespace {

enum ExitCode { kExitOk = 0, kExitFailure = 1, kExitUsage = 64, kExitBadInput = 65 };

int Check(const Options& options) {
  ManifestFolder folder(options.manifests);
  const auto files = folder.Read(ManifestFolder::Time{});
  if (!files.ok()) {
    fprintf(stderr, "weft-control: %s\n", std::string(files.status().message()).c_str());
    return kExitBadInput;
  }
  LoadResult loaded = LoadManifests(*files, {});
  Problems problems = std::move(loaded.problems);
  const Configuration configuration = Translate(loaded.set,
                                                {.trust_domain = options.trust_domain,
                                                 .cluster_domain = options.cluster_domain,
                                                 .root_namespace = options.root_namespace},
                                                &problems);
  for (const Problem& problem : problems) printf("%s\n", problem.ToString().c_str());
  fprintf(stderr,
          "%zu files, %zu objects, %zu problems; %zu listeners, %zu clusters, %zu workloads, %zu "
          "policies\n",
          files->size(), loaded.set.objects.size(), problems.size(), configuration.listeners.size(),
          configuration.clusters.size(), configuration.workloads.size(),
          configuration.authorizations.size());
  return problems.empty() ? kExitOk : kExitBadInput;
}

int Run(Options options) {
  ConfigureLog({.json = options.json_logs, .process = "weft-control"});
  signal(SIGPIPE, SIG_IGN);
  boost::asio::io_context io(1);
  const std::string manifests = options.manifests;
  auto server = ControlServer::Start(io.get_executor(), std::move(options));
  if (!server.ok()) {
    fprintf(stderr, "weft-control: %s\n", std::string(server.status().message()).c_str());
    return kExitFailure;
  }
  LogInfo("Serving", {{"tls", (*server)->tls_address().ToString()},
                      {"plaintext", (*server)->plaintext_address().ToString()},
                      {"status", (*server)->status_address().ToString()},
                      {"manifests", manifests}});
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](const boost::system::error_code& error, int) {
    if (error) return;
    LogInfo("Ending");
    server->reset();
  });
  io.run();  // until nothing is left to do: the server is gone and its connections have ended
  return kExitOk;
}

}  // namespace
}  // namespace weft::plane

int main(int argc, char** argv) {
  using namespace weft::plane;
  auto options = ParseOptions(std::vector<std::string>(argv + 1, argv + argc));
  if (!options.ok()) {
    fprintf(stderr, "weft-control: %s\n", std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  if (options->help) {
    fputs(kUsage, stdout);
    return kExitOk;
  }
  if (options->version) {
    puts("weft-control 0.1.0");
    return kExitOk;
  }
  if (options->annotations) {
    fputs(AnnotationTable().c_str(), stdout);
    return kExitOk;
  }
  if (options->check) return Check(*options);
  return Run(*std::move(options));
}
