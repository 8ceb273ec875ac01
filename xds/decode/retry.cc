// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

struct Token {
  std::string_view text;
  uint32_t bit;
};
constexpr std::array kTokens = {
    Token{"5xx", model::kRetry5xx},
    Token{"gateway-error", model::kRetryGatewayError},
    Token{"connect-failure", model::kRetryConnectFailure},
    Token{"reset", model::kRetryReset},
    Token{"refused-stream", model::kRetryRefusedStream},
    Token{"retriable-4xx", model::kRetryRetriable4xx},
    Token{"retriable-status-codes", model::kRetryRetriableStatusCodes},
};

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

absl::Status DecodeRetryOn(std::string_view in, uint32_t* out) {
  while (!in.empty()) {
    const size_t comma = in.find(',');
    const std::string_view token = Trim(in.substr(0, comma));
    in = comma == std::string_view::npos ? std::string_view() : in.substr(comma + 1);
    if (token.empty()) continue;
    uint32_t bit = 0;
    for (const Token& known : kTokens) {
      if (known.text == token) bit = known.bit;
    }
    if (bit == 0) return NotSupported(token);
    *out |= bit;
  }
  return absl::OkStatus();
}

bool IsPreviousHosts(const envoy::config::route::v3::RetryPolicy::RetryHostPredicate& in) {
  const std::string_view type = TypeName(in.typed_config());
  if (type.empty()) return in.name() == "envoy.retry_host_predicates.previous_hosts";
  return type == "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
}

}  // namespace

absl::Status DecodeRetryPolicy(const envoy::config::route::v3::RetryPolicy& in,
                               model::RetryPolicy* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"retry_on", "num_retries", "per_try_timeout", "retry_host_predicate",
           "host_selection_retry_max_attempts", "retriable_status_codes", "retry_back_off"}));
  WEFT_FIELD("retry_on", DecodeRetryOn(in.retry_on(), &out->retry_on));
  if (in.has_num_retries()) out->num_retries = in.num_retries().value();
  if (in.has_per_try_timeout()) {
    WEFT_FIELD("per_try_timeout", DecodeDuration(in.per_try_timeout(), &out->per_try_timeout));
  }
  if (in.has_retry_back_off()) {
    const auto& back_off = in.retry_back_off();
    WEFT_FIELD("retry_back_off", OnlyFields(back_off, {"base_interval", "max_interval"}));
    WEFT_FIELD("retry_back_off.base_interval",
               DecodePositive(back_off.base_interval(), &out->base_interval));
    out->max_interval = out->base_interval * 10;
    if (back_off.has_max_interval()) {
      WEFT_FIELD("retry_back_off.max_interval",
                 DecodePositive(back_off.max_interval(), &out->max_interval));
    }
    if (out->max_interval < out->base_interval) {
      return Bad("retry_back_off.max_interval: less than base_interval");
    }
  }
  for (uint32_t code : in.retriable_status_codes()) {
    if (code < 100 || code > 599) return Bad("retriable_status_codes: must be 100 to 599");
    out->status_codes.push_back(code);
  }
  for (int i = 0; i < in.retry_host_predicate_size(); ++i) {
    const auto& predicate = in.retry_host_predicate(i);
    if (!IsPreviousHosts(predicate)) {
      return NotSupported(Indexed("retry_host_predicate", i) + " " + predicate.name());
    }
    out->avoid_previous_hosts = true;
  }
  const int64_t attempts = in.host_selection_retry_max_attempts();
  if (attempts < 0 || attempts > 1000) {
    return Bad("host_selection_retry_max_attempts: must be 0 to 1000");
  }
  if (attempts > 0) out->host_selection_attempts = static_cast<uint32_t>(attempts);
  return absl::OkStatus();
}

}  // namespace weft::xds
