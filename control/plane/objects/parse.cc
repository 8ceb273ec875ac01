// SPDX-License-Identifier: Apache-2.0
#include "control/plane/objects/parse.h"

#include "absl/strings/str_cat.h"
#include "proxy/base/status.h"

namespace weft::plane {
namespace {

struct KnownKind {
  const char* api;
  const char* kind;
  ObjectKind object;
};
constexpr KnownKind kKinds[] = {
    {"v1", "Namespace", ObjectKind::kNamespace},
    {"v1", "ServiceAccount", ObjectKind::kServiceAccount},
    {"v1", "Pod", ObjectKind::kPod},
    {"v1", "Service", ObjectKind::kService},
    {"discovery.k8s.io/v1", "EndpointSlice", ObjectKind::kEndpointSlice},
    {"weft.dev/v1", "Workload", ObjectKind::kWorkload},
    {"gateway.networking.k8s.io/v1", "HTTPRoute", ObjectKind::kHttpRoute},
    {"security.istio.io/v1", "AuthorizationPolicy", ObjectKind::kAuthorizationPolicy},
    {"security.istio.io/v1", "PeerAuthentication", ObjectKind::kPeerAuthentication},
    {"networking.k8s.io/v1", "NetworkPolicy", ObjectKind::kNetworkPolicy},
    {"weft.dev/v1", "ProcessPolicy", ObjectKind::kProcessPolicy},
};

std::string AcceptedKinds() {
  std::string text;
  for (const KnownKind& known : kKinds) absl::StrAppend(&text, known.kind, " (", known.api, "), ");
  return text + "WorkloadList (weft.dev/v1), List (v1)";
}

// metadata of an object, or (flat) the same fields of a WorkloadList's item.
Meta ReadMeta(Fields& fields, bool has_namespace, LocatedMap* annotations, LocatedMap* labels) {
  Meta meta;
  meta.name = fields.RequiredText("name");
  const std::string namespace_name = fields.Text("namespace");
  if (has_namespace) {
    meta.namespace_name = namespace_name.empty() ? "default" : namespace_name;
  } else if (!namespace_name.empty()) {
    fields.AddProblem(absl::StrCat(fields.PathOf("namespace"), ": objects of this kind have none"));
  }
  for (const std::string& name : {meta.name, meta.namespace_name}) {
    if (name.empty() || IsObjectName(name)) continue;
    fields.AddProblem(
        absl::StrCat("\"", name,
                     "\" is no object name: lower-case letters, digits, '-' and '.' only, "
                     "at most 253"));
  }
  *labels = fields.TextMap("labels");
  *annotations = fields.TextMap("annotations");
  meta.labels = Values(*labels);
  meta.annotations = Values(*annotations);
  return meta;
}

Meta ParseMetadata(Fields& fields, bool has_namespace, LocatedMap* annotations,
                   LocatedMap* labels) {
  static const Yaml kNothing;
  const Yaml* node = fields.Require("metadata");
  if (node == nullptr) return {};
  Fields metadata(*node, fields.file(), "metadata", fields.problems());
  Meta meta = ReadMeta(metadata, has_namespace, annotations, labels);
  // What the API server adds.
  metadata.Ignore({"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
                   "finalizers", "generateName", "generation", "managedFields", "ownerReferences",
                   "resourceVersion", "selfLink", "uid"});
  metadata.Done();
  return meta;
}

Object ParseByKind(ObjectKind kind, Fields& fields, Meta meta, const LocatedMap& annotations) {
  switch (kind) {
    case ObjectKind::kNamespace:
      fields.Ignore({"spec", "status"});
      return Namespace{std::move(meta)};
    case ObjectKind::kServiceAccount:
      fields.Ignore({"secrets", "imagePullSecrets", "automountServiceAccountToken"});
      return ServiceAccount{std::move(meta)};
    case ObjectKind::kWorkload:
      return ParseWorkload(fields, std::move(meta));
    case ObjectKind::kPod:
      return ParsePod(fields, std::move(meta));
    case ObjectKind::kService:
      return ParseService(fields, std::move(meta), annotations);
    case ObjectKind::kEndpointSlice:
      return ParseEndpointSlice(fields, std::move(meta));
    case ObjectKind::kHttpRoute:
      return ParseHttpRoute(fields, std::move(meta));
    case ObjectKind::kAuthorizationPolicy:
      return ParseAuthorizationPolicy(fields, std::move(meta));
    case ObjectKind::kPeerAuthentication:
      return ParsePeerAuthentication(fields, std::move(meta));
    case ObjectKind::kNetworkPolicy:
      return ParseNetworkPolicy(fields, std::move(meta));
    case ObjectKind::kProcessPolicy:
      return ParseProcessPolicy(fields, std::move(meta));
  }
  return Namespace{};
}

// The name alone, as far as it can be read: enough to know whose last good state stays.
std::optional<ObjectKey> ReadKey(ObjectKind kind, const Yaml* names) {
  if (names == nullptr) return std::nullopt;
  const Yaml* name = names->Find("name");
  const Yaml* space = names->Find("namespace");
  if (name == nullptr || name->kind != Yaml::Kind::kScalar || name->scalar.empty())
    return std::nullopt;
  ObjectKey key{kind, "", name->scalar};
  if (kind != ObjectKind::kNamespace) {
    key.namespace_name =
        space != nullptr && space->kind == Yaml::Kind::kScalar ? space->scalar : "default";
  }
  return key;
}

// Names the object in its problems, and drops it if it has any.
void Finish(std::optional<ObjectKey> key, const std::string& file, Object object,
            size_t problems_before, std::vector<Declared>* declared, Problems* problems) {
  Declared result{.key = key, .file = file};
  for (size_t i = problems_before; i < problems->size(); ++i) {
    if (key.has_value()) (*problems)[i].object = key->ToString();
  }
  if (problems->size() == problems_before && key.has_value()) result.object = std::move(object);
  declared->push_back(std::move(result));
}

void ParseObject(const KnownKind& kind, const std::string& file, const Yaml& node,
                 std::vector<Declared>* declared, Problems* problems) {
  const size_t before = problems->size();
  Fields fields(node, file, "", problems);
  fields.Ignore({"apiVersion", "kind"});
  LocatedMap annotations, labels;
  Meta meta = ParseMetadata(fields, kind.object != ObjectKind::kNamespace, &annotations, &labels);
  meta.origin = fields.origin();
  if (kind.object == ObjectKind::kService) {
    CheckWorkloadAnnotations(labels, problems);
  } else {
    CheckWorkloadAnnotations(annotations, problems);
    CheckWorkloadAnnotations(labels, problems);
  }
  Object object = ParseByKind(kind.object, fields, std::move(meta), annotations);
  fields.Done();
  Finish(ReadKey(kind.object, node.Find("metadata")), file, std::move(object), before, declared,
         problems);
}

void ParseWorkloadItem(const std::string& file, const Yaml& node, std::string path,
                       std::vector<Declared>* declared, Problems* problems) {
  const size_t before = problems->size();
  Fields fields(node, file, std::move(path), problems);
  LocatedMap annotations, labels;
  Meta meta = ReadMeta(fields, true, &annotations, &labels);
  meta.origin = fields.origin();
  CheckWorkloadAnnotations(annotations, problems);
  CheckWorkloadAnnotations(labels, problems);
  Object object = ParseWorkloadEntry(fields, std::move(meta));
  fields.Done();
  Finish(ReadKey(ObjectKind::kWorkload, &node), file, std::move(object), before, declared,
         problems);
}

// `depth` stops a List inside a List.
void ParseAny(const std::string& file, const Yaml& node, int depth, std::vector<Declared>* declared,
              Problems* problems);

void ParseItems(Fields& fields, bool workloads, int depth, std::vector<Declared>* declared) {
  const size_t before = fields.problems()->size();
  fields.Ignore({"apiVersion", "kind", "metadata"});
  const std::vector<const Yaml*> items = fields.List("items");
  fields.Done();
  if (fields.problems()->size() != before) declared->push_back({.file = fields.file()});
  for (size_t i = 0; i < items.size(); ++i) {
    if (workloads) {
      ParseWorkloadItem(fields.file(), *items[i], fields.PathOf("items", i), declared,
                        fields.problems());
    } else {
      ParseAny(fields.file(), *items[i], depth + 1, declared, fields.problems());
    }
  }
}

void ParseAny(const std::string& file, const Yaml& node, int depth, std::vector<Declared>* declared,
              Problems* problems) {
  const size_t before = problems->size();
  Fields fields(node, file, "", problems);
  if (problems->size() != before) {  // no map
    declared->push_back({.file = file});
    return;
  }
  const std::string api = fields.RequiredText("apiVersion");
  const std::string kind = fields.RequiredText("kind");
  if (problems->size() != before) {
    declared->push_back({.file = file});
    return;
  }
  if (api == "weft.dev/v1" && kind == "WorkloadList")
    return ParseItems(fields, true, depth, declared);
  if (api == "v1" && kind == "List" && depth == 0)
    return ParseItems(fields, false, depth, declared);
  for (const KnownKind& known : kKinds) {
    if (kind != known.kind) continue;
    if (api == known.api) return ParseObject(known, file, node, declared, problems);
    // The name is readable, so the object's last good state stays.
    const Yaml* at = node.Find("apiVersion");
    fields.AddProblem(*at, absl::StrCat("apiVersion: \"", api, "\" of ", kind,
                                        " is not accepted, only ", known.api));
    return Finish(ReadKey(known.object, node.Find("metadata")), file, Namespace{}, before, declared,
                  problems);
  }
  fields.AddProblem(*node.Find("kind"),
                    absl::StrCat("kind: \"", kind, "\" (", api, ") is not accepted; accepted are ",
                                 AcceptedKinds()));
  declared->push_back({.file = file});
}

}  // namespace

const char* KindName(ObjectKind kind) {
  for (const KnownKind& known : kKinds) {
    if (known.object == kind) return known.kind;
  }
  return "";
}

std::string ObjectKey::ToString() const {
  return absl::StrCat(KindName(kind), " ", namespace_name, namespace_name.empty() ? "" : "/", name);
}

const Meta& MetaOf(const Object& object) {
  return std::visit([](const auto& each) -> const Meta& { return each.meta; }, object);
}

bool Selects(const std::map<std::string, std::string>& selector,
             const std::map<std::string, std::string>& labels) {
  if (selector.empty()) return false;
  for (const auto& [name, value] : selector) {
    const auto found = labels.find(name);
    if (found == labels.end() || found->second != value) return false;
  }
  return true;
}

std::map<std::string, std::string> Values(const LocatedMap& located) {
  std::map<std::string, std::string> values;
  for (const auto& [name, text] : located) values[name] = text.value;
  return values;
}

bool IsObjectName(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  const auto is_inner = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (!is_inner(name.front()) || !is_inner(name.back())) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if (!is_inner(name[i]) && name[i] != '-' && name[i] != '.') return false;
    if (name[i] == '.' && name[i - 1] == '.') return false;
  }
  return true;
}

std::optional<IpAddress> ParseAddress(Fields& fields, const LocatedText& text,
                                      std::string_view path) {
  const auto address = IpAddress::Parse(text.value);
  if (!address.has_value() || address->is_unspecified()) {
    fields.problems()->push_back(
        {text.at, absl::StrCat(AbslView(path), ": \"", text.value, "\" is no IP address"), ""});
    return std::nullopt;
  }
  return address;
}

std::map<std::string, std::string> ParseMatchLabels(Fields& fields, std::string_view name) {
  const Yaml* node = fields.Find(name);
  if (node == nullptr) return {};
  Fields selector(*node, fields.file(), fields.PathOf(name), fields.problems());
  auto labels = Values(selector.TextMap("matchLabels"));
  const size_t before = fields.problems()->size();
  selector.Done();
  if (labels.empty() && fields.problems()->size() == before) {
    selector.AddProblem(selector.PathOf("matchLabels") + ": missing or empty");
  }
  return labels;
}

void ParseDocument(const Document& document, std::vector<Declared>* declared, Problems* problems) {
  if (!document.root.has_value()) {
    declared->push_back({.file = document.file});
    return;
  }
  ParseAny(document.file, *document.root, 0, declared, problems);
}

}  // namespace weft::plane
