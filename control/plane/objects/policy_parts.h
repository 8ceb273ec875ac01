// SPDX-License-Identifier: Apache-2.0
// What NetworkPolicy and ProcessPolicy write alike: selectors, CIDR blocks, ports. Each function
// reads one field and reports into fields.problems(). Stateless.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "control/plane/fields.h"
#include "control/plane/objects/objects.h"

namespace weft::plane {

// A selector with matchLabels and matchExpressions; nullopt if the field is absent or null.
std::optional<LabelSelector> ParseLabelSelector(Fields& fields, std::string_view name);
// {cidr, except}; nullopt if absent or wrong.
std::optional<model::NetworkPolicy::Block> ParseIpBlock(Fields& fields, std::string_view name);
// The list `ports`: protocol, port (number or name), endPort.
std::vector<PolicyPort> ParsePolicyPorts(Fields& fields, std::string_view name);

}  // namespace weft::plane
