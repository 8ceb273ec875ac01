// SPDX-License-Identifier: Apache-2.0
// Gateway API's HTTPRoute attached to Services (GAMMA): one field after the other. What it means is
// in translate_route.cc.
#include <re2/re2.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

using model::HeaderChange;
using model::StringMatch;

constexpr uint32_t kMaxWeight = 1'000'000;  // Gateway API's own limit

bool IsHeaderName(std::string_view name) {
  constexpr std::string_view kSymbols = "!#$%&'*+-.^_`|~";  // RFC 9110 5.6.2
  if (name.empty() || name.size() > 256) return false;
  return std::all_of(name.begin(), name.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kSymbols.find(c) != std::string_view::npos;
  });
}

bool IsHeaderValue(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
}

std::string ReadHeaderName(Fields& fields) {
  const std::string name = fields.RequiredText("name");
  if (!name.empty() && !IsHeaderName(name)) {
    fields.AddProblem(absl::StrCat(fields.PathOf("name"), ": \"", name, "\" is no header name"));
  }
  // A request's Host is its authority.
  const std::string lower = absl::AsciiStrToLower(name);
  return lower == "host" ? ":authority" : lower;
}

void CheckRegex(Fields& fields, std::string_view name, const std::string& value) {
  RE2::Options options;
  options.set_log_errors(false);
  const RE2 regex(value, options);
  if (regex.ok()) return;
  fields.AddProblem(
      *fields.Find(name),
      absl::StrCat(fields.PathOf(name), ": not a regular expression (RE2): ", regex.error()));
}

// The value of a header or query match: type Exact (default) or RegularExpression.
StringMatch ReadStringMatch(Fields& fields) {
  StringMatch match;
  const std::string type = fields.Text("type");
  match.value = fields.Text("value");
  if (fields.Find("value") == nullptr) fields.AddProblem(fields.PathOf("value") + ": missing");
  if (type == "RegularExpression") {
    match.kind = StringMatch::Kind::kRegex;
    CheckRegex(fields, "value", match.value);
  } else if (!type.empty() && type != "Exact") {
    fields.AddProblem(absl::StrCat(fields.PathOf("type"),
                                   ": expected Exact or RegularExpression, found \"", type, "\""));
  }
  return match;
}

model::PathMatch ReadPathMatch(Fields& fields) {
  model::PathMatch path;
  const std::string type = fields.Text("type");
  const std::string value = fields.Text("value");
  path.value = value.empty() ? "/" : value;
  if (type == "RegularExpression") {
    path.kind = model::PathMatch::Kind::kRegex;
    CheckRegex(fields, "value", path.value);
  } else if (type == "Exact") {
    path.kind = model::PathMatch::Kind::kExact;
  } else if (!type.empty() && type != "PathPrefix") {
    fields.AddProblem(absl::StrCat(fields.PathOf("type"),
                                   ": expected Exact, PathPrefix or RegularExpression, found \"",
                                   type, "\""));
  } else {
    // By segments: /foo matches /foo and /foo/bar, not /foobar; a slash at the end says nothing.
    while (path.value.size() > 1 && path.value.back() == '/') path.value.pop_back();
    path.kind = path.value == "/" ? model::PathMatch::Kind::kPrefix
                                  : model::PathMatch::Kind::kSeparatedPrefix;
  }
  if (path.kind != model::PathMatch::Kind::kRegex && path.value.front() != '/') {
    fields.AddProblem(
        absl::StrCat(fields.PathOf("value"), ": \"", path.value, "\" does not start with /"));
  }
  if (path.value.find_first_of("?#") != std::string::npos &&
      path.kind != model::PathMatch::Kind::kRegex) {
    fields.AddProblem(fields.PathOf("value") + ": a path has neither '?' nor '#'; use queryParams");
  }
  fields.Done();
  return path;
}

HttpRoute::Match ReadMatch(Fields& fields) {
  HttpRoute::Match match;
  if (const Yaml* node = fields.Find("path"); node != nullptr) {
    Fields path(*node, fields.file(), fields.PathOf("path"), fields.problems());
    match.path = ReadPathMatch(path);
  }
  const std::vector<const Yaml*> headers = fields.List("headers");
  for (size_t i = 0; i < headers.size(); ++i) {
    Fields header(*headers[i], fields.file(), fields.PathOf("headers", i), fields.problems());
    const std::string name = ReadHeaderName(header);
    const StringMatch value = ReadStringMatch(header);
    header.Done();
    // Of several matches for one name, the first counts (Gateway API).
    const bool known =
        std::any_of(match.headers.begin(), match.headers.end(),
                    [&](const model::HeaderMatch& other) { return other.name == name; });
    if (!known) match.headers.push_back({.name = name, .value = value});
  }
  const std::vector<const Yaml*> params = fields.List("queryParams");
  for (size_t i = 0; i < params.size(); ++i) {
    Fields param(*params[i], fields.file(), fields.PathOf("queryParams", i), fields.problems());
    const std::string name = param.RequiredText("name");
    const StringMatch value = ReadStringMatch(param);
    param.Done();
    match.query.push_back({.name = name, .value = value});
  }
  match.method = fields.Text("method");
  constexpr std::string_view kMethods[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                           "CONNECT", "OPTIONS", "TRACE", "PATCH"};
  if (!match.method.empty() &&
      std::find(std::begin(kMethods), std::end(kMethods), match.method) == std::end(kMethods)) {
    fields.AddProblem(
        absl::StrCat(fields.PathOf("method"), ": \"", match.method, "\" is no HTTP method"));
  }
  fields.Done();
  return match;
}

void ReadHeaderChanges(Fields& fields, const char* list, HeaderChange::Action action,
                       std::vector<HeaderChange>* changes) {
  const std::vector<const Yaml*> items = fields.List(list);
  for (size_t i = 0; i < items.size(); ++i) {
    Fields item(*items[i], fields.file(), fields.PathOf(list, i), fields.problems());
    const std::string name = ReadHeaderName(item);
    const std::string value = item.RequiredText("value");
    if (!IsHeaderValue(value))
      item.AddProblem(item.PathOf("value") + ": contains control characters");
    if (name == ":authority")
      item.AddProblem(item.PathOf("name") + ": use URLRewrite.hostname to change the Host");
    item.Done();
    changes->push_back({action, name, value});
  }
}

void ReadHeaderModifier(const Yaml& node, const Fields& parent, const std::string& path,
                        std::vector<HeaderChange>* changes) {
  Fields fields(node, parent.file(), path, parent.problems());
  for (const LocatedText& name : fields.Texts("remove")) {
    if (!IsHeaderName(name.value)) {
      fields.problems()->push_back(
          {name.at, absl::StrCat(path, ".remove: \"", name.value, "\" is no header name"), ""});
    }
    changes->push_back({HeaderChange::Action::kRemove, absl::AsciiStrToLower(name.value), ""});
  }
  ReadHeaderChanges(fields, "set", HeaderChange::Action::kOverwriteOrAdd, changes);
  ReadHeaderChanges(fields, "add", HeaderChange::Action::kAppendOrAdd, changes);
  fields.Done();
}

std::optional<HttpRoute::PathRewrite> ReadPathRewrite(Fields& parent) {
  const Yaml* node = parent.Find("path");
  if (node == nullptr) return std::nullopt;
  Fields fields(*node, parent.file(), parent.PathOf("path"), parent.problems());
  HttpRoute::PathRewrite rewrite;
  const std::string type = fields.RequiredText("type");
  const std::string full = fields.Text("replaceFullPath");
  const std::string prefix = fields.Text("replacePrefixMatch");
  rewrite.whole = type == "ReplaceFullPath";
  if (!rewrite.whole && type != "ReplacePrefixMatch" && !type.empty()) {
    fields.AddProblem(absl::StrCat(fields.PathOf("type"),
                                   ": expected ReplaceFullPath or ReplacePrefixMatch, found \"",
                                   type, "\""));
  }
  rewrite.value = rewrite.whole ? full : prefix;
  const char* given_name = rewrite.whole ? "replaceFullPath" : "replacePrefixMatch";
  if (fields.Find(given_name) == nullptr)
    fields.AddProblem(fields.PathOf(given_name) + ": missing");
  const char* other_name = rewrite.whole ? "replacePrefixMatch" : "replaceFullPath";
  if (fields.Find(other_name) != nullptr) {
    fields.AddProblem(fields.PathOf(other_name) + ": does not go with type " + type);
  }
  if (!rewrite.value.empty() && rewrite.value.front() != '/') {
    fields.AddProblem(
        absl::StrCat(fields.PathOf(given_name), ": \"", rewrite.value, "\" does not start with /"));
  }
  fields.Done();
  return rewrite;
}

std::string ReadHost(Fields& fields, std::string_view name) {
  const std::string host = fields.Text(name);
  if (!host.empty() && !IsObjectName(host)) {
    fields.AddProblem(absl::StrCat(fields.PathOf(name), ": \"", host, "\" is no host name"));
  }
  return host;
}

HttpRoute::Redirect ReadRedirect(Fields& fields) {
  HttpRoute::Redirect redirect;
  redirect.scheme = fields.Text("scheme");
  if (!redirect.scheme.empty() && redirect.scheme != "http" && redirect.scheme != "https") {
    fields.AddProblem(absl::StrCat(fields.PathOf("scheme"), ": expected http or https, found \"",
                                   redirect.scheme, "\""));
  }
  redirect.host = ReadHost(fields, "hostname");
  const auto port = fields.Integer("port", 1, 65535);
  if (port.has_value()) redirect.port = static_cast<uint16_t>(*port);
  const auto status = fields.Integer("statusCode", 300, 399);
  redirect.status = static_cast<int>(status.value_or(302));
  constexpr int kStatuses[] = {301, 302, 303, 307, 308};
  if (std::find(std::begin(kStatuses), std::end(kStatuses), redirect.status) ==
      std::end(kStatuses)) {
    fields.AddProblem(absl::StrCat(fields.PathOf("statusCode"),
                                   ": expected 301, 302, 303, 307 or 308, found ",
                                   redirect.status));
  }
  redirect.path = ReadPathRewrite(fields);
  fields.Done();
  return redirect;
}

// Each type has its own field, which must be the only one.
void ReadFilter(Fields& filter, HttpRoute::Rule* rule) {
  const std::string type = filter.RequiredText("type");
  std::string field = type;
  if (!field.empty()) field[0] = absl::ascii_tolower(field[0]);
  if (type == "URLRewrite") field = "urlRewrite";
  constexpr std::string_view kTypes[] = {"RequestHeaderModifier", "ResponseHeaderModifier",
                                         "RequestRedirect", "URLRewrite"};
  if (std::find(std::begin(kTypes), std::end(kTypes), type) == std::end(kTypes)) {
    if (type.empty()) return;
    return filter.AddProblem(
        absl::StrCat(filter.PathOf("type"), ": \"", type,
                     "\" is not supported; supported are RequestHeaderModifier, "
                     "ResponseHeaderModifier, RequestRedirect, URLRewrite"));
  }
  const Yaml* node = filter.Require(field);
  filter.Done();
  if (node == nullptr) return;
  if (type == "RequestHeaderModifier") {
    ReadHeaderModifier(*node, filter, filter.PathOf(field), &rule->request_headers);
  } else if (type == "ResponseHeaderModifier") {
    ReadHeaderModifier(*node, filter, filter.PathOf(field), &rule->response_headers);
  } else if (type == "RequestRedirect") {
    Fields fields(*node, filter.file(), filter.PathOf(field), filter.problems());
    rule->redirect = ReadRedirect(fields);
  } else {
    Fields fields(*node, filter.file(), filter.PathOf(field), filter.problems());
    if (fields.Find("hostname") != nullptr) rule->host_rewrite = ReadHost(fields, "hostname");
    rule->path_rewrite = ReadPathRewrite(fields);
    fields.Done();
  }
}

HttpRoute::Backend ReadBackend(Fields& fields, const std::string& namespace_name) {
  HttpRoute::Backend backend{.origin = fields.origin()};
  backend.service = fields.RequiredText("name");
  const std::string group = fields.Text("group");
  const std::string kind = fields.Text("kind");
  if (!group.empty() || (!kind.empty() && kind != "Service")) {
    fields.AddProblem(absl::StrCat(fields.PathOf("kind"), ": \"", group, group.empty() ? "" : "/",
                                   kind, "\" is not supported, only Service"));
  }
  const std::string space = fields.Text("namespace");
  if (!space.empty() && space != namespace_name) {
    fields.AddProblem(
        absl::StrCat(fields.PathOf("namespace"), ": \"", space,
                     "\": a backend in another namespace needs a ReferenceGrant, which is not "
                     "supported yet"));
  }
  const auto port = fields.Integer("port", 1, 65535);
  if (fields.Find("port") == nullptr) fields.AddProblem(fields.PathOf("port") + ": missing");
  backend.port = static_cast<uint16_t>(port.value_or(0));
  backend.weight = static_cast<uint32_t>(fields.Integer("weight", 0, kMaxWeight).value_or(1));
  const std::vector<const Yaml*> filters = fields.List("filters");
  for (size_t i = 0; i < filters.size(); ++i) {
    Fields filter(*filters[i], fields.file(), fields.PathOf("filters", i), fields.problems());
    HttpRoute::Rule changes;
    ReadFilter(filter, &changes);
    if (changes.redirect.has_value() || changes.path_rewrite.has_value() ||
        changes.host_rewrite.has_value()) {
      filter.AddProblem(filter.PathOf("type") +
                        ": of a backend only header modifiers are supported");
    }
    backend.request_headers = std::move(changes.request_headers);
    backend.response_headers = std::move(changes.response_headers);
  }
  fields.Done();
  return backend;
}

std::optional<model::Milliseconds> ReadDuration(Fields& fields, std::string_view name) {
  const std::string text = fields.Text(name);
  if (text.empty()) return std::nullopt;
  const auto value = ParseDurationMs(text);
  if (!value.has_value()) {
    fields.AddProblem(*fields.Find(name),
                      absl::StrCat(fields.PathOf(name), ": \"", text,
                                   "\" is no duration such as 500ms, 10s or 1m30s"));
    return std::nullopt;
  }
  return model::Milliseconds(*value);
}

void ReadTimeouts(Fields& parent, HttpRoute::Rule* rule) {
  const Yaml* node = parent.Find("timeouts");
  if (node == nullptr) return;
  Fields fields(*node, parent.file(), parent.PathOf("timeouts"), parent.problems());
  rule->timeout = ReadDuration(fields, "request");
  rule->try_timeout = ReadDuration(fields, "backendRequest");
  fields.Done();
  const bool limits = rule->timeout.value_or(model::Milliseconds(0)).count() > 0;
  if (limits && rule->try_timeout.value_or(model::Milliseconds(0)) > *rule->timeout) {
    fields.AddProblem(fields.PathOf("backendRequest") + ": longer than timeouts.request");
  }
}

void ReadRetry(Fields& parent, HttpRoute::Rule* rule) {
  const Yaml* node = parent.Find("retry");
  if (node == nullptr) return;
  Fields fields(*node, parent.file(), parent.PathOf("retry"), parent.problems());
  HttpRoute::Retry retry;
  for (const LocatedText& text : fields.Texts("codes")) {
    const auto code = ParseInteger(text.value, 400, 599);
    if (!code.has_value()) {
      fields.problems()->push_back({text.at,
                                    absl::StrCat(fields.PathOf("codes"), ": \"", text.value,
                                                 "\": expected a status code from 400 to 599"),
                                    ""});
      continue;
    }
    retry.codes.push_back(static_cast<uint32_t>(*code));
  }
  const auto attempts = fields.Integer("attempts", 0, 10);
  if (attempts.has_value()) retry.attempts = static_cast<uint32_t>(*attempts);
  retry.backoff = ReadDuration(fields, "backoff");
  fields.Done();
  rule->retry = std::move(retry);
}

// What the rewrites and redirects can be made of: see translate_route.cc.
void CheckRewrite(Fields& fields, const std::optional<HttpRoute::PathRewrite>& rewrite,
                  bool is_redirect, const HttpRoute::Rule& rule) {
  if (!rewrite.has_value()) return;
  for (const HttpRoute::Match& match : rule.matches) {
    const bool exact = match.path.kind == model::PathMatch::Kind::kExact;
    const bool regex = match.path.kind == model::PathMatch::Kind::kRegex;
    if (!rewrite->whole && (exact || regex)) {
      return fields.AddProblem(fields.PathOf("filters") +
                               ": ReplacePrefixMatch needs PathPrefix matches");
    }
    if (rewrite->whole && !exact && !is_redirect) {
      return fields.AddProblem(
          fields.PathOf("filters") +
          ": ReplaceFullPath in a URLRewrite is supported with Exact path matches only");
    }
  }
}

void CheckAction(Fields& fields, const HttpRoute::Rule& rule) {
  CheckRewrite(fields, rule.path_rewrite, false, rule);
  if (rule.redirect.has_value()) {
    CheckRewrite(fields, rule.redirect->path, true, rule);
    if (!rule.backends.empty() || rule.path_rewrite.has_value() || rule.host_rewrite.has_value()) {
      fields.AddProblem(fields.PathOf("filters") +
                        ": RequestRedirect goes neither with backendRefs nor with URLRewrite");
    }
    return;
  }
  uint64_t weights = 0;
  for (const HttpRoute::Backend& backend : rule.backends) weights += backend.weight;
  if (rule.backends.empty()) {
    fields.AddProblem(fields.PathOf("backendRefs") + ": missing, and there is no RequestRedirect");
  } else if (weights == 0 || weights > UINT32_MAX) {
    fields.AddProblem(fields.PathOf("backendRefs") +
                      ": the weights must add up to more than zero (and less than 2^32)");
  }
}

HttpRoute::Rule ReadRule(Fields& fields, const std::string& namespace_name) {
  HttpRoute::Rule rule{.origin = fields.origin()};
  const size_t before = fields.problems()->size();
  rule.name = fields.Text("name");
  const std::vector<const Yaml*> matches = fields.List("matches");
  for (size_t i = 0; i < matches.size(); ++i) {
    Fields match(*matches[i], fields.file(), fields.PathOf("matches", i), fields.problems());
    rule.matches.push_back(ReadMatch(match));
  }
  if (rule.matches.empty()) rule.matches.emplace_back();
  const std::vector<const Yaml*> filters = fields.List("filters");
  for (size_t i = 0; i < filters.size(); ++i) {
    Fields filter(*filters[i], fields.file(), fields.PathOf("filters", i), fields.problems());
    ReadFilter(filter, &rule);
  }
  const std::vector<const Yaml*> backends = fields.List("backendRefs");
  for (size_t i = 0; i < backends.size(); ++i) {
    Fields backend(*backends[i], fields.file(), fields.PathOf("backendRefs", i), fields.problems());
    rule.backends.push_back(ReadBackend(backend, namespace_name));
  }
  ReadTimeouts(fields, &rule);
  ReadRetry(fields, &rule);
  fields.Refuse({"sessionPersistence"}, "not supported yet");
  fields.Done();
  if (fields.problems()->size() == before) CheckAction(fields, rule);
  return rule;
}

HttpRoute::Parent ReadParent(Fields& fields, const std::string& namespace_name) {
  HttpRoute::Parent parent{.origin = fields.origin()};
  parent.service = fields.RequiredText("name");
  const std::string group_text = fields.Text("group");
  const std::string kind = fields.Text("kind");
  // Without group and kind Gateway API means a Gateway, and group "" cannot be told from none by
  // its text.
  const bool is_core = group_text.empty() || group_text == "core";
  if (kind != "Service" || !is_core) {
    const Yaml* node = fields.Find("kind");
    const std::string text =
        absl::StrCat(fields.PathOf("kind"), ": \"", kind.empty() ? "Gateway" : kind,
                     "\" is not supported, only Service (group \"\")");
    node != nullptr ? fields.AddProblem(*node, text) : fields.AddProblem(text);
  }
  const std::string space = fields.Text("namespace");
  if (!space.empty() && space != namespace_name) {
    fields.AddProblem(absl::StrCat(
        fields.PathOf("namespace"), ": \"", space,
        "\": a route attached to a Service of another namespace is not supported yet"));
  }
  const auto port = fields.Integer("port", 1, 65535);
  if (port.has_value()) parent.port = static_cast<uint16_t>(*port);
  parent.section = fields.Text("sectionName");
  fields.Done();
  return parent;
}

}  // namespace

HttpRoute ParseHttpRoute(Fields& fields, Meta meta) {
  HttpRoute route{.meta = std::move(meta)};
  fields.Ignore({"status"});
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return route;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  const std::vector<const Yaml*> parents = spec.List("parentRefs");
  for (size_t i = 0; i < parents.size(); ++i) {
    Fields parent(*parents[i], fields.file(), spec.PathOf("parentRefs", i), fields.problems());
    route.parents.push_back(ReadParent(parent, route.meta.namespace_name));
  }
  if (parents.empty()) spec.AddProblem("spec.parentRefs: missing or empty");
  spec.Refuse({"hostnames"},
              "has no meaning for a route attached to a Service; match the header Host instead");
  spec.Refuse({"useDefaultGateways"}, "not supported: routes attach to Services");
  const std::vector<const Yaml*> rules = spec.List("rules");
  for (size_t i = 0; i < rules.size(); ++i) {
    Fields rule(*rules[i], fields.file(), spec.PathOf("rules", i), fields.problems());
    route.rules.push_back(ReadRule(rule, route.meta.namespace_name));
  }
  if (rules.empty()) spec.AddProblem("spec.rules: missing or empty");
  spec.Done();
  return route;
}

}  // namespace weft::plane
