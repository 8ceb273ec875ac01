// SPDX-License-Identifier: Apache-2.0
// What manifests say about each other: addresses that two objects claim, Services that routes name.
// Pure.
#pragma once
#include <vector>

#include "control/plane/manifest_set.h"

namespace weft::plane {

struct Conflict {
  ObjectKey loser;
  Problem problem;
};
// Addresses of workloads and virtual addresses of Services with more than one owner. Whoever had it
// in `last_good` keeps it; else the first by file and line.
std::vector<Conflict> FindConflicts(const ManifestSet& set, const ManifestSet& last_good);

// Routes that name a Service or a port that is not there, or a port that is declared TCP. Appends
// the problems.
std::vector<ObjectKey> RoutesWithProblems(const ManifestSet& set, Problems* problems);

// Does `parent` of a route mean this port of its Service?
bool AttachesTo(const HttpRoute::Parent& parent, const Service::Port& port);
// A port that cannot carry HTTP because it says so.
bool IsDeclaredTcp(const Service& service, const Service::Port& port);

}  // namespace weft::plane
