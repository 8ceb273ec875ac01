// SPDX-License-Identifier: Apache-2.0
// Short forms for the tests of this folder: manifests as text in, objects and problems out.
#pragma once
#include <string>
#include <vector>

#include "control/plane/manifest_set.h"

namespace weft::plane {

inline LoadResult Load(const std::string& text, const ManifestSet& last_good = {}) {
  return LoadManifests({{.name = "f.yaml", .text = text}}, last_good);
}

inline std::vector<std::string> Texts(const Problems& problems) {
  std::vector<std::string> texts;
  for (const Problem& problem : problems) texts.push_back(problem.ToString());
  return texts;
}

// A Service `name` of namespace demo at `address`:80 -> 8080 for app=`name`, with extra metadata
// lines ("  annotations: ...").
inline std::string ServiceYaml(const std::string& name, const std::string& address,
                               const std::string& extra = "",
                               const std::string& port_name = "http") {
  return "apiVersion: v1\nkind: Service\nmetadata:\n  name: " + name + "\n  namespace: demo\n" +
         extra + "spec:\n  clusterIP: " + address + "\n  selector: {app: " + name +
         "}\n  ports:\n    - {name: " + port_name + ", port: 80, targetPort: 8080}\n---\n";
}

// A route on Service web of namespace demo; `rules` is the YAML of spec.rules, indented by two.
inline std::string RouteYaml(const std::string& rules, const std::string& name = "web") {
  return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " + name +
         ", namespace: demo}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: web, port: "
         "80}]\n  rules:\n" +
         rules + "---\n";
}

inline std::string WorkloadYaml(const std::string& name, const std::string& address,
                                const std::string& app, const std::string& extra = "") {
  return "apiVersion: weft.dev/v1\nkind: Workload\nmetadata: {name: " + name +
         ", namespace: demo, labels: {app: " + app + "}}\nspec:\n  addresses: [" + address +
         "]\n  serviceAccount: " + app + "\n" + extra + "---\n";
}

}  // namespace weft::plane
