// SPDX-License-Identifier: Apache-2.0
#include "control/plane/annotations.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proxy/base/status.h"

namespace weft::plane {
namespace {

using model::Milliseconds;

struct RetryWord {
  std::string_view word;
  uint32_t bit;
};
constexpr RetryWord kRetryWords[] = {
    {"5xx", model::kRetry5xx},
    {"gateway-error", model::kRetryGatewayError},
    {"connect-failure", model::kRetryConnectFailure},
    {"reset", model::kRetryReset},
    {"refused-stream", model::kRetryRefusedStream},
    {"retriable-4xx", model::kRetryRetriable4xx},
};

// Each setter stores the value and returns an empty string, or says what it expected.
using Setter = std::string (*)(std::string_view text, TrafficOptions* out);

template <auto Member, int64_t Min, int64_t Max>
std::string SetNumber(std::string_view text, TrafficOptions* out) {
  const auto value = ParseInteger(text, Min, Max);
  if (!value.has_value()) return absl::StrCat("a number from ", Min, " to ", Max);
  out->*Member = static_cast<uint32_t>(*value);
  return "";
}

template <auto Member, int64_t MinMs>
std::string SetDuration(std::string_view text, TrafficOptions* out) {
  const auto value = ParseDurationMs(text);
  if (!value.has_value() || *value < MinMs) {
    return absl::StrCat("a duration such as 500ms, 10s or 1m30s", MinMs > 0 ? ", above zero" : "");
  }
  out->*Member = Milliseconds(*value);
  return "";
}

std::string SetLbPolicy(std::string_view text, TrafficOptions* out) {
  if (text == "round_robin") {
    out->lb_policy = model::LbPolicy::kRoundRobin;
  } else if (text == "least_request") {
    out->lb_policy = model::LbPolicy::kLeastRequest;
  } else if (text == "random") {
    out->lb_policy = model::LbPolicy::kRandom;
  } else if (text == "maglev") {
    out->lb_policy = model::LbPolicy::kMaglev;
  } else {
    return "round_robin, least_request, random or maglev";
  }
  return "";
}

std::string SetProtocol(std::string_view text, TrafficOptions* out) {
  if (text != "http" && text != "tcp") return "http or tcp";
  out->protocol = text == "http" ? DeclaredProtocol::kHttp : DeclaredProtocol::kTcp;
  return "";
}

bool AddRetryWord(std::string_view word, TrafficOptions* out) {
  for (const RetryWord& known : kRetryWords) {
    if (word != known.word) continue;
    out->retry_on |= known.bit;
    return true;
  }
  const auto code = ParseInteger(word, 400, 599);
  if (!code.has_value()) return false;
  out->retry_on |= model::kRetryRetriableStatusCodes;
  out->retry_codes.push_back(static_cast<uint32_t>(*code));
  return true;
}

std::string SetRetryOn(std::string_view text, TrafficOptions* out) {
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(AbslView(text), ','))) {
    const size_t begin = part.find_first_not_of(' ');
    const size_t end = part.find_last_not_of(' ');
    const std::string_view word = begin == std::string::npos
                                      ? std::string_view()
                                      : std::string_view(part).substr(begin, end - begin + 1);
    if (AddRetryWord(word, out)) continue;
    std::string known;
    for (const RetryWord& each : kRetryWords) {
      known.append(each.word);
      known += ", ";
    }
    return "a comma-separated list of " + known + "and status codes from 400 to 599";
  }
  return "";
}

struct Annotation {
  std::string_view name;  // without the prefix
  Setter set;
  bool http_only;  // has no meaning where bytes are not parsed
  std::string_view value, without, meaning;
};

constexpr int64_t kMax32 = 4294967295;
constexpr int64_t kMaxWeight = 1000;
constexpr char kWeightAnnotation[] = "weft.dev/weight";
using T = TrafficOptions;
constexpr Annotation kAnnotations[] = {
    {"protocol", SetProtocol, false, "`http`, `tcp`", "see text",
     "`http`: requests are routed one by one; `tcp`: connections only"},
    {"lb-policy", SetLbPolicy, false, "`round_robin`, `least_request`, `random`, `maglev`",
     "`round_robin`",
     "how an endpoint is picked; connections that the kernel balances: `maglev` by the client's "
     "address, else at random"},
    {"connect-timeout", SetDuration<&T::connect_timeout, 1>, false, "duration", "`5s`",
     "how long a connect to an endpoint may take"},
    {"max-connections", SetNumber<&T::max_connections, 1, kMax32>, false, "number", "`1024`",
     "circuit breaker: connections of this node to the service"},
    {"max-pending-requests", SetNumber<&T::max_pending_requests, 1, kMax32>, true, "number",
     "`1024`", "circuit breaker: requests that wait for a connection"},
    {"max-requests", SetNumber<&T::max_requests, 1, kMax32>, true, "number", "`1024`",
     "circuit breaker: requests in flight"},
    {"max-retries", SetNumber<&T::max_retries, 0, kMax32>, true, "number", "`3`",
     "circuit breaker: retries in flight"},
    {"retry-budget-percent", SetNumber<&T::retry_budget_percent, 1, 100>, true, "1 to 100", "none",
     "retries in flight as a share of requests in flight (at least 3); replaces `max-retries`"},
    {"retry-on", SetRetryOn, true,
     "list of `5xx`, `gateway-error`, `connect-failure`, `reset`, `refused-stream`, "
     "`retriable-4xx`, codes",
     "no retries", "what is retried; an HTTPRoute rule with its own `retry` replaces all three"},
    {"retry-attempts", SetNumber<&T::retry_attempts, 0, 10>, true, "0 to 10", "`2`",
     "how often at most, after the first try; needs `retry-on`"},
    {"per-try-timeout", SetDuration<&T::per_try_timeout, 0>, true, "duration", "none",
     "until the response's headers, for each try; `0s`: none"},
    {"timeout", SetDuration<&T::timeout, 0>, true, "duration", "none",
     "until the response is complete, over all tries; `0s`: none"},
    {"outlier-consecutive-5xx", SetNumber<&T::outlier_consecutive_5xx, 1, 1'000'000>, false,
     "number", "`5`",
     "failures in a row after which an endpoint is ejected. Any `outlier-` annotation turns "
     "ejection on"},
    {"outlier-base-ejection", SetDuration<&T::outlier_base_ejection, 1>, false, "duration", "`30s`",
     "the first ejection's length; grows with each"},
    {"outlier-interval", SetDuration<&T::outlier_interval, 1>, false, "duration", "`10s`",
     "how often ejected endpoints are looked at for return"},
    {"outlier-max-ejection-percent", SetNumber<&T::outlier_max_ejection_percent, 0, 100>, false,
     "0 to 100", "`10`", "share of the endpoints that may be ejected; one always may"},
};

struct WorkloadAnnotation {
  std::string_view name;
  std::string_view values[3];
};
constexpr WorkloadAnnotation kWorkloadAnnotations[] = {
    {"mesh", {"on", "off", ""}},
    {"splice", {"on", "off", "auto"}},
    {"guard", {"on", "cooperative"}},
    {"isolation", {"node", "", ""}},
};

bool HasPrefix(const std::string& name) { return name.starts_with(kAnnotationPrefix); }
std::string WithoutPrefix(const std::string& name) {
  return name.substr(sizeof(kAnnotationPrefix) - 1);
}

const Annotation* FindAnnotation(std::string_view name) {
  for (const Annotation& each : kAnnotations) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

void CheckTogether(const LocatedMap& annotations, const TrafficOptions& options,
                   Problems* problems) {
  const auto at = [&](const char* name) {
    const auto found = annotations.find(absl::StrCat(kAnnotationPrefix, name));
    return found == annotations.end() ? nullptr : &found->second.at;
  };
  for (const char* name : {"retry-attempts", "per-try-timeout"}) {
    const Origin* origin = at(name);
    if (origin == nullptr || at("retry-on") != nullptr) continue;
    if (std::string_view(name) == "per-try-timeout") continue;  // has a meaning without retries
    problems->push_back(
        {*origin, absl::StrCat("weft.dev/", name, ": has no effect without weft.dev/retry-on"),
         ""});
  }
  if (options.protocol != DeclaredProtocol::kTcp) return;
  for (const auto& [name, text] : annotations) {
    if (!HasPrefix(name)) continue;
    const Annotation* known = FindAnnotation(WithoutPrefix(name));
    if (known == nullptr || !known->http_only) continue;
    problems->push_back({text.at, name + ": needs HTTP, but weft.dev/protocol is tcp", ""});
  }
}

}  // namespace

TrafficOptions ParseTrafficOptions(const LocatedMap& annotations, Problems* problems) {
  TrafficOptions options;
  for (const auto& [name, text] : annotations) {
    if (!HasPrefix(name)) continue;
    const Annotation* known = FindAnnotation(WithoutPrefix(name));
    if (known == nullptr) {
      std::string names;
      for (const Annotation& each : kAnnotations) {
        if (!names.empty()) names += ", ";
        names.append(each.name);
      }
      problems->push_back(
          {text.at, name + ": unknown annotation; of a Service are known weft.dev/: " + names, ""});
      continue;
    }
    // What is said of connections does not make them requests.
    options.any |= text.value != "maglev" || known->set != SetLbPolicy;
    const std::string expected = known->set(text.value, &options);
    if (!expected.empty()) {
      problems->push_back(
          {text.at, absl::StrCat(name, ": expected ", expected, ", found \"", text.value, "\""),
           ""});
    }
  }
  CheckTogether(annotations, options, problems);
  return options;
}

uint32_t WeightOf(const std::map<std::string, std::string>& annotations) {
  const auto found = annotations.find(kWeightAnnotation);
  if (found == annotations.end()) return 1;
  return static_cast<uint32_t>(ParseInteger(found->second, 1, kMaxWeight).value_or(1));
}

void CheckWorkloadAnnotations(const LocatedMap& annotations, Problems* problems) {
  for (const auto& [name, text] : annotations) {
    if (!HasPrefix(name)) continue;
    if (name == kWeightAnnotation) {
      if (ParseInteger(text.value, 1, kMaxWeight)) continue;
      problems->push_back({text.at,
                           absl::StrCat(name, ": expected a number from 1 to ", kMaxWeight,
                                        ", found \"", text.value, "\""),
                           ""});
      continue;
    }
    const WorkloadAnnotation* known = nullptr;
    for (const WorkloadAnnotation& each : kWorkloadAnnotations) {
      if (WithoutPrefix(name) == each.name) known = &each;
    }
    if (known == nullptr) {
      problems->push_back(
          {text.at,
           name + ": unknown annotation; known here: weft.dev/mesh, "
                  "weft.dev/splice, weft.dev/guard, weft.dev/isolation, weft.dev/weight",
           ""});
      continue;
    }
    bool accepted = false;
    std::string values;
    for (const std::string_view value : known->values) {
      if (value.empty()) continue;
      accepted |= text.value == value;
      values.append(values.empty() ? "" : ", ").append(value);
    }
    if (accepted) continue;
    problems->push_back(
        {text.at, absl::StrCat(name, ": expected ", values, ", found \"", text.value, "\""), ""});
  }
}

std::string AnnotationTable() {
  std::string table =
      "| annotation | value | without it | meaning |\n"
      "|---|---|---|---|\n";
  for (const Annotation& each : kAnnotations) {
    table.append("| `weft.dev/").append(each.name).append("` | ").append(each.value).append(" | ");
    table.append(each.without).append(" | ").append(each.meaning);
    table.append(each.http_only ? " (HTTP)" : "").append(" |\n");
  }
  return table;
}

}  // namespace weft::plane
