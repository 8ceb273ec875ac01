// SPDX-License-Identifier: Apache-2.0
#include "control/policy/ports.h"

#include <algorithm>
#include <set>

namespace weft::rules {

std::vector<PortPrefix> PrefixesOf(uint16_t first, uint16_t last) {
  std::vector<PortPrefix> out;
  uint32_t at = first;
  while (at <= last) {
    // The largest aligned block that starts here and does not reach beyond the end.
    uint32_t bits = 0;
    while (bits < 16 && (at & ((2u << bits) - 1)) == 0 && at + (2u << bits) - 1 <= last) ++bits;
    out.push_back({static_cast<uint16_t>(at), static_cast<uint8_t>(16 - bits)});
    at += 1u << bits;
  }
  return out;
}

std::vector<NamedRange> Partition(const std::vector<NamedRange>& ranges) {
  struct Edge {
    uint32_t at;
    bool starts;
    size_t range;
  };
  std::vector<Edge> edges;
  for (size_t i = 0; i < ranges.size(); ++i) {
    edges.push_back({ranges[i].first, true, i});
    edges.push_back({uint32_t{ranges[i].last} + 1, false, i});
  }
  std::ranges::sort(edges, {}, &Edge::at);
  std::vector<NamedRange> out;
  std::set<size_t> open;  // ranges that cover what follows the edge
  for (size_t i = 0; i < edges.size(); ++i) {
    const Edge& edge = edges[i];
    if (edge.starts) open.insert(edge.range);
    if (!edge.starts) open.erase(edge.range);
    if (i + 1 == edges.size() || edges[i + 1].at == edge.at || open.empty()) continue;
    const uint32_t rule = ranges[*open.begin()].rule;
    const auto last = static_cast<uint16_t>(edges[i + 1].at - 1);
    if (!out.empty() && out.back().rule == rule && uint32_t{out.back().last} + 1 == edge.at) {
      out.back().last = last;
    } else {
      out.push_back({static_cast<uint16_t>(edge.at), last, rule});
    }
  }
  return out;
}

}  // namespace weft::rules
