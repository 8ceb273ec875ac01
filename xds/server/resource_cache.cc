// SPDX-License-Identifier: Apache-2.0
#include "xds/server/resource_cache.h"

#include <xxhash.h>

#include <cstdio>

namespace weft::xds {

void CacheBatch::Put(Encoded resource) {
  sets.push_back({.type_url = std::move(resource.type_url),
                  .name = std::move(resource.name),
                  .version = {},
                  .bytes = std::make_shared<const std::string>(std::move(resource.bytes))});
}

void CacheBatch::Remove(std::string_view type_url, std::string_view name) {
  removals.push_back({std::string(type_url), std::string(name)});
}

void ResourceCache::Apply(CacheBatch batch) {
  std::set<std::string> changed;
  for (CacheBatch::Set& set : batch.sets) {
    if (set.version.empty()) set.version = ContentVersion(*set.bytes);
    CachedResource& resource = types_[set.type_url][set.name];
    if (resource.bytes != nullptr && resource.version == set.version) continue;
    resource = {std::move(set.version), std::move(set.bytes)};
    changed.insert(std::move(set.type_url));
  }
  for (const CacheBatch::Removal& removal : batch.removals) {
    const auto type = types_.find(removal.type_url);
    if (type != types_.end() && type->second.erase(removal.name) > 0) {
      changed.insert(removal.type_url);
    }
  }
  if (!changed.empty()) Notify(changed);
}

void ResourceCache::Replace(const std::vector<std::string>& types, std::vector<Encoded> resources) {
  std::set<std::pair<std::string, std::string>> keep;
  CacheBatch batch;
  for (Encoded& resource : resources) {
    keep.emplace(resource.type_url, resource.name);
    batch.Put(std::move(resource));
  }
  for (const std::string& type : types) {
    for (const auto& [name, resource] : OfType(type)) {
      if (!keep.contains({type, name})) batch.Remove(type, name);
    }
  }
  Apply(std::move(batch));
}

void ResourceCache::Touch(const std::set<std::string>& types) { Notify(types); }

const ResourceCache::Resources& ResourceCache::OfType(std::string_view type_url) const {
  static const Resources kNone;
  const auto at = types_.find(type_url);
  return at == types_.end() ? kNone : at->second;
}

const CachedResource* ResourceCache::Find(std::string_view type_url, std::string_view name) const {
  const Resources& resources = OfType(type_url);
  const auto at = resources.find(name);
  return at == resources.end() ? nullptr : &at->second;
}

size_t ResourceCache::size() const {
  size_t out = 0;
  for (const auto& [type, resources] : types_) out += resources.size();
  return out;
}

uint64_t ResourceCache::AddListener(Listener listener) {
  listeners_.emplace(next_listener_, std::move(listener));
  return next_listener_++;
}

void ResourceCache::RemoveListener(uint64_t id) { listeners_.erase(id); }

void ResourceCache::Notify(const std::set<std::string>& types) {
  // A listener may remove any of them, itself too: look each one up again and call a copy.
  std::vector<uint64_t> ids;
  for (const auto& [id, listener] : listeners_) ids.push_back(id);
  for (uint64_t id : ids) {
    const auto at = listeners_.find(id);
    if (at == listeners_.end()) continue;
    const Listener listener = at->second;
    listener(types);
  }
}

std::string ContentVersion(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  char text[33];
  snprintf(text, sizeof text, "%016lx%016lx", static_cast<unsigned long>(hash.high64),
           static_cast<unsigned long>(hash.low64));
  return text;
}

}  // namespace weft::xds
