// SPDX-License-Identifier: Apache-2.0
// One YAML document -> the objects it declares. Strict: unknown kinds and fields, and what Weft
// cannot honour, are problems with file, line and name; an object with a problem is refused as a
// whole. Stateless.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "control/plane/fields.h"
#include "control/plane/objects/objects.h"
#include "control/plane/yaml_source.h"

namespace weft::plane {

struct Declared {
  // Kind and name, where they could be read; none: the document declares something, nobody knows
  // what.
  std::optional<ObjectKey> key;
  std::string file;
  std::optional<Object> object;  // none: refused, the problems say why
};

// Appends what `document` declares: one object, or each item of a List or WorkloadList.
void ParseDocument(const Document& document, std::vector<Declared>* declared, Problems* problems);

// ---- For the files of this folder: one parser a kind. Each reads all fields and reports into
// fields.problems(). ---- "apiVersion" and "kind" are known already; `meta` is read. The object is
// used only if nothing was reported.
Workload ParsePod(Fields& fields, Meta meta);
Workload ParseWorkloadEntry(Fields& fields, Meta meta);  // flat: an item of a WorkloadList
Workload ParseWorkload(Fields& fields, Meta meta);       // kind: Workload, with metadata and spec
Service ParseService(Fields& fields, Meta meta, const LocatedMap& annotations);
EndpointSlice ParseEndpointSlice(Fields& fields, Meta meta);
HttpRoute ParseHttpRoute(Fields& fields, Meta meta);
AuthorizationPolicy ParseAuthorizationPolicy(Fields& fields, Meta meta);
PeerAuthentication ParsePeerAuthentication(Fields& fields, Meta meta);
NetworkPolicy ParseNetworkPolicy(Fields& fields, Meta meta);
ProcessPolicy ParseProcessPolicy(Fields& fields, Meta meta);

// selector: {matchLabels: {...}} as Istio writes it.
std::map<std::string, std::string> ParseMatchLabels(Fields& fields, std::string_view name);
std::map<std::string, std::string> Values(const LocatedMap& located);
// Lower-case letters, digits, '-' and '.', as Kubernetes names its objects: such a name is safe in
// resource names and SPIFFE ids.
bool IsObjectName(std::string_view name);
std::optional<IpAddress> ParseAddress(Fields& fields, const LocatedText& text,
                                      std::string_view path);

}  // namespace weft::plane
