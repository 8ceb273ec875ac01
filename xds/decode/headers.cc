// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

using envoy::config::core::v3::HeaderValueOption;

constexpr size_t kMaxHeaderBytes = 16384;

bool IsTokenChar(char c) {
  constexpr std::string_view kOther = "!#$%&'*+-.^_`|~";
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         kOther.find(c) != std::string_view::npos;
}

// "%%" stands for "%"; anything else between percent signs would be computed for each request.
absl::Status PlainValue(const std::string& in, std::string* out) {
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i] != '%') {
      out->push_back(in[i]);
    } else if (i + 1 < in.size() && in[i + 1] == '%') {
      out->push_back('%');
      ++i;
    } else {
      const size_t end = in.find('%', i + 1);
      return NotSupported("formatter " +
                          in.substr(i, end == std::string::npos ? end : end - i + 1));
    }
  }
  return CheckHeaderValue(*out);
}

absl::Status DecodeAction(const HeaderValueOption& in, model::HeaderChange::Action* out) {
  using Action = model::HeaderChange::Action;
  if (in.has_append()) {
    if (in.append_action() != HeaderValueOption::APPEND_IF_EXISTS_OR_ADD) {
      return Bad("append_action: append is there too");
    }
    *out = in.append().value() ? Action::kAppendOrAdd : Action::kOverwriteOrAdd;
    return absl::OkStatus();
  }
  switch (in.append_action()) {
    case HeaderValueOption::APPEND_IF_EXISTS_OR_ADD:
      *out = Action::kAppendOrAdd;
      return absl::OkStatus();
    case HeaderValueOption::ADD_IF_ABSENT:
      *out = Action::kAddIfAbsent;
      return absl::OkStatus();
    case HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD:
      *out = Action::kOverwriteOrAdd;
      return absl::OkStatus();
    case HeaderValueOption::OVERWRITE_IF_EXISTS:
      *out = Action::kOverwrite;
      return absl::OkStatus();
    default:
      return NotSupported("append_action " + std::to_string(in.append_action()));
  }
}

absl::Status DecodeChange(const HeaderValueOption& in, model::HeaderChange* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"header", "append", "append_action", "keep_empty_value"}));
  WEFT_FIELD("header", OnlyFields(in.header(), {"key", "value"}));
  WEFT_FIELD("header.key", DecodeHeaderName(in.header().key(), false, &out->name));
  if (out->name == "host") return Bad("header.key: host cannot be changed this way");
  WEFT_FIELD("header.value", PlainValue(in.header().value(), &out->value));
  return DecodeAction(in, &out->action);
}

}  // namespace

absl::Status CheckHeaderValue(const std::string& value) {
  if (value.size() > kMaxHeaderBytes) return Bad("longer than 16384 bytes");
  const bool clean = std::none_of(value.begin(), value.end(),
                                  [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
  return clean ? absl::OkStatus() : Bad("contains a line break or a zero byte");
}

absl::Status DecodeHeaderName(const std::string& in, bool pseudo, std::string* out) {
  const bool is_pseudo = in.starts_with(':');
  const size_t begin = pseudo && is_pseudo ? 1 : 0;
  if (in.size() <= begin) return Bad("missing");
  if (in.size() > kMaxHeaderBytes) return Bad("longer than 16384 bytes");
  if (!std::all_of(in.begin() + begin, in.end(), IsTokenChar)) {
    return Bad("\"" + in + "\" is not a field name that may be used here");
  }
  *out = in;
  std::transform(out->begin(), out->end(), out->begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return absl::OkStatus();
}

absl::Status DecodeHeaderChanges(std::string_view side, HeaderChanges in,
                                 std::vector<model::HeaderChange>* out) {
  const std::string remove = std::string(side) + "_headers_to_remove";
  const std::string add = std::string(side) + "_headers_to_add";
  for (int i = 0; i < in.remove.size(); ++i) {
    model::HeaderChange change{.action = model::HeaderChange::Action::kRemove};
    WEFT_FIELD(Indexed(remove, i), DecodeHeaderName(in.remove[i], false, &change.name));
    if (change.name == "host") return Bad(Indexed(remove, i) + ": host cannot be removed");
    out->push_back(std::move(change));
  }
  for (int i = 0; i < in.add.size(); ++i) {
    model::HeaderChange change;
    WEFT_FIELD(Indexed(add, i), DecodeChange(in.add[i], &change));
    // Without keep_empty_value an empty value means: leave the field alone.
    if (change.value.empty() && !in.add[i].keep_empty_value()) continue;
    out->push_back(std::move(change));
  }
  return absl::OkStatus();
}

}  // namespace weft::xds
