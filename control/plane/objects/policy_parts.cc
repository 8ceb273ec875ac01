// SPDX-License-Identifier: Apache-2.0
#include "control/plane/objects/policy_parts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

using Resolved = model::NetworkPolicy;
using Operator = LabelSelector::Operator;

LabelSelector::Expression ReadExpression(Fields& fields) {
  LabelSelector::Expression expression;
  expression.key = fields.RequiredText("key");
  if (!expression.key.empty() && !IsLabelKey(expression.key)) {
    fields.AddProblem(
        absl::StrCat(fields.PathOf("key"), ": \"", expression.key, "\" is no label key"));
  }
  const std::string op = fields.RequiredText("operator");
  const bool takes_values = op == "In" || op == "NotIn";
  if (op == "In") {
    expression.op = Operator::kIn;
  } else if (op == "NotIn") {
    expression.op = Operator::kNotIn;
  } else if (op == "Exists") {
    expression.op = Operator::kExists;
  } else if (op == "DoesNotExist") {
    expression.op = Operator::kDoesNotExist;
  } else if (!op.empty()) {
    fields.AddProblem(absl::StrCat(fields.PathOf("operator"),
                                   ": expected In, NotIn, Exists or DoesNotExist, found \"", op,
                                   "\""));
  }
  for (const LocatedText& text : fields.Texts("values")) {
    if (!IsLabelValue(text.value)) {
      fields.problems()->push_back(
          {text.at,
           absl::StrCat(fields.PathOf("values"), ": \"", text.value, "\" is no label value"), ""});
    }
    expression.values.push_back(text.value);
  }
  if (takes_values && expression.values.empty()) {
    fields.AddProblem(absl::StrCat(fields.PathOf("values"), ": ", op, " needs at least one"));
  }
  if (!takes_values && !expression.values.empty()) {
    fields.AddProblem(absl::StrCat(fields.PathOf("values"), ": does not go with ", op));
  }
  fields.Done();
  return expression;
}

std::optional<Resolved::Prefix> ReadPrefix(Fields& fields, const LocatedText& text,
                                           std::string_view path) {
  const size_t slash = text.value.find('/');
  const auto address = IpAddress::Parse(text.value.substr(0, slash));
  const int64_t width = address.has_value() && address->is_v4() ? 32 : 128;
  const auto length = slash == std::string::npos
                          ? std::nullopt
                          : ParseInteger(std::string_view(text.value).substr(slash + 1), 0, width);
  if (!address.has_value() || !length.has_value()) {
    fields.problems()->push_back(
        {text.at,
         absl::StrCat(std::string(path), ": \"", text.value,
                      "\" is no CIDR block such as 10.0.0.0/8 or fd00::/8"),
         ""});
    return std::nullopt;
  }
  Resolved::Prefix prefix{*address, static_cast<uint32_t>(*length)};
  // 10.1.2.3/8 means 10.0.0.0/8, as Kubernetes reads it.
  const size_t first = static_cast<size_t>(*length + (128 - width));
  for (size_t bit = first; bit < 128; ++bit) {
    prefix.address.bytes[bit / 8] &= static_cast<uint8_t>(~(0x80u >> bit % 8));
  }
  return prefix;
}

// A port's name as IANA has it: letters, digits and '-', with a letter.
bool IsPortName(std::string_view name) {
  if (name.empty() || name.size() > 15 || name.front() == '-' || name.back() == '-') return false;
  bool has_letter = false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool is_letter = c >= 'a' && c <= 'z';
    has_letter |= is_letter;
    if (!is_letter && !(c >= '0' && c <= '9') && c != '-') return false;
    if (c == '-' && name[i - 1] == '-') return false;
  }
  return has_letter;
}

void ReadNumbers(Fields& fields, PolicyPort* out) {
  const Yaml* node = fields.Find("port");
  const auto end = fields.Integer("endPort", 1, 65535);
  const bool has_end = fields.Find("endPort") != nullptr;
  if (node == nullptr) {
    if (has_end) fields.AddProblem(fields.PathOf("endPort") + ": needs port");
    return;
  }
  if (node->kind == Yaml::Kind::kScalar && !node->quoted) {
    if (const auto number = ParseInteger(node->scalar, 1, 65535); number.has_value()) {
      out->port.first = out->port.last = static_cast<uint16_t>(*number);
      if (!end.has_value()) return;
      out->port.last = static_cast<uint16_t>(*end);
      if (*end < *number) fields.AddProblem(fields.PathOf("endPort") + ": less than port");
      return;
    }
  }
  if (node->kind != Yaml::Kind::kScalar || !IsPortName(node->scalar)) {
    return fields.AddProblem(
        *node,
        fields.PathOf("port") + ": expected a port number or the name of a container's port");
  }
  out->name = node->scalar;
  if (has_end) fields.AddProblem(fields.PathOf("endPort") + ": needs a port number, not a name");
}

}  // namespace

std::optional<LabelSelector> ParseLabelSelector(Fields& fields, std::string_view name) {
  const Yaml* node = fields.Find(name);
  if (node == nullptr) return std::nullopt;
  Fields selector(*node, fields.file(), fields.PathOf(name), fields.problems());
  LabelSelector out;
  for (const auto& [key, value] : selector.TextMap("matchLabels")) {
    if (!IsLabelKey(key) || !IsLabelValue(value.value)) {
      fields.problems()->push_back({value.at,
                                    absl::StrCat(selector.PathOf("matchLabels"), ": \"", key, "=",
                                                 value.value, "\" is no label"),
                                    ""});
    }
    out.labels[key] = value.value;
  }
  const std::vector<const Yaml*> items = selector.List("matchExpressions");
  for (size_t i = 0; i < items.size(); ++i) {
    Fields item(*items[i], fields.file(), selector.PathOf("matchExpressions", i),
                fields.problems());
    out.expressions.push_back(ReadExpression(item));
  }
  selector.Done();
  return out;
}

std::optional<Resolved::Block> ParseIpBlock(Fields& fields, std::string_view name) {
  const Yaml* node = fields.Find(name);
  if (node == nullptr) return std::nullopt;
  Fields block(*node, fields.file(), fields.PathOf(name), fields.problems());
  const LocatedText cidr{block.RequiredText("cidr"), block.origin()};
  const std::vector<LocatedText> excepts = block.Texts("except");
  block.Done();
  if (cidr.value.empty()) return std::nullopt;
  const auto prefix = ReadPrefix(fields, cidr, block.PathOf("cidr"));
  if (!prefix.has_value()) return std::nullopt;
  Resolved::Block out{.cidr = *prefix};
  for (const LocatedText& text : excepts) {
    const auto except = ReadPrefix(fields, text, block.PathOf("except"));
    if (!except.has_value()) continue;
    if (except->address.is_v4() != prefix->address.is_v4() || except->length <= prefix->length ||
        !except->address.InPrefix(prefix->address, prefix->length)) {
      fields.problems()->push_back({text.at,
                                    absl::StrCat(block.PathOf("except"), ": \"", text.value,
                                                 "\" is not a part of ", cidr.value),
                                    ""});
      continue;
    }
    out.except.push_back(*except);
  }
  return out;
}

std::vector<PolicyPort> ParsePolicyPorts(Fields& fields, std::string_view name) {
  std::vector<PolicyPort> ports;
  const std::vector<const Yaml*> items = fields.List(name);
  for (size_t i = 0; i < items.size(); ++i) {
    Fields item(*items[i], fields.file(), fields.PathOf(name, i), fields.problems());
    PolicyPort& port = ports.emplace_back();
    const std::string protocol = item.Text("protocol");
    if (protocol == "UDP") {
      port.port.protocol = Resolved::Protocol::kUdp;
    } else if (protocol == "SCTP") {
      port.port.protocol = Resolved::Protocol::kSctp;
    } else if (!protocol.empty() && protocol != "TCP") {
      item.AddProblem(absl::StrCat(item.PathOf("protocol"), ": expected TCP, UDP or SCTP, found \"",
                                   protocol, "\""));
    }
    ReadNumbers(item, &port);
    item.Done();
  }
  return ports;
}

}  // namespace weft::plane
