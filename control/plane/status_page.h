// SPDX-License-Identifier: Apache-2.0
// GET /status and /healthz/ready: what weft-control knows, as JSON. Thread: one. Pure but for the
// clock's values it is given.
#pragma once
#include <string>

#include "control/plane/nodes.h"
#include "control/plane/publisher.h"
#include "proxy/base/address.h"

namespace weft::plane {

struct StatusSources {
  const Publisher& publisher;
  const xds::ResourceCache& cache;
  const Nodes& nodes;
  std::string manifests;
  std::string join_tokens_problem;               // empty: tokens are accepted
  SocketAddress tls_address, plaintext_address;  // port 0: not open
};

std::string StatusJson(const StatusSources& sources);

}  // namespace weft::plane
