// SPDX-License-Identifier: Apache-2.0
// Manifests to resources in one step, and what tests look for in the result.
#pragma once
#include <string>
#include <vector>

#include "control/plane/translate.h"
#include "tests/unit/control/plane/manifests.h"

namespace weft::plane {

inline constexpr char kWeb[] = "outbound|80||web.demo.svc.cluster.local";

struct Translated {
  Configuration config;
  Problems problems;
};
inline Translated From(const std::string& text) {
  LoadResult loaded = Load(text);
  Translated out{.problems = loaded.problems};
  out.config = Translate(loaded.set, {}, &out.problems);
  return out;
}

template <typename T>
const T* ByName(const std::vector<T>& all, const std::string& name) {
  for (const T& each : all) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

inline std::vector<std::string> AddressesOf(const Configuration& config,
                                            const std::string& cluster) {
  std::vector<std::string> out;
  for (const model::Endpoints& each : config.endpoints) {
    if (each.cluster != cluster) continue;
    for (const model::Endpoint& endpoint : each.endpoints) {
      out.push_back(endpoint.address.ToString() +
                    (endpoint.health == model::HealthStatus::kDraining ? " draining" : ""));
    }
  }
  return out;
}

inline std::string Annotations(const std::string& lines) { return "  annotations:\n" + lines; }

}  // namespace weft::plane
