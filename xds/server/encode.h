// SPDX-License-Identifier: Apache-2.0
// The inverse of xds/decode: model values into resources. Equal values give equal bytes (maps are
// written in order), so the content can serve as the version. Decode(Encode(x)) == x for every
// value that decode can produce. Any thread.
#pragma once
#include <string>
#include <string_view>

#include "xds/decode/type_urls.h"
#include "xds/model/snapshot.h"

namespace weft::xds {

struct Encoded {
  std::string type_url;
  std::string name;
  std::string bytes;  // the value of an Any
};

Encoded Encode(const model::Listener&
                   listener);  // http/tcp chains with their filters and the inspectors they need
Encoded Encode(const model::RouteConfiguration& routes);
Encoded Encode(const model::Cluster& cluster);  // EDS over ADS if type is kEds
Encoded Encode(const model::Endpoints& endpoints);
Encoded Encode(const model::Workload& workload);  // as istio.workload.Address
Encoded Encode(const model::Service& service);    // as istio.workload.Address
Encoded Encode(const model::Authorization& policy);
Encoded Encode(const model::LocalWorkload& workload);
Encoded Encode(const model::Certificate& certificate);
Encoded Encode(const model::TrustBundle& bundle);
Encoded Encode(const model::NetworkPolicy& policy);
Encoded Encode(const model::ProcessPolicy& policy);

}  // namespace weft::xds
