// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf (libbpf's types show): one BPF object in memory, loaded against a node's
// pinned maps, and links that are attached, pinned, adopted and updated. Thread: the caller's.
#pragma once
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <functional>
#include <memory>
#include <string>

#include "control/bpf/loader.h"
#include "control/bpf/objects.h"
#include "control/bpf/pins.h"

namespace weft::bpf {

struct CloseObject {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using ObjectPtr = std::unique_ptr<bpf_object, CloseObject>;
struct DestroyLink {  // closes our descriptor; a pinned link stays
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using LinkPtr = std::unique_ptr<bpf_link, DestroyLink>;

// Parses the object. Maps that are pinned already keep their sizes, others get those of `sizes`.
absl::StatusOr<ObjectPtr> OpenObject(const EmbeddedObject& embedded, const PinPaths& paths,
                                     const MapSizes& sizes);
// Makes or adopts the maps, verifies and loads the programs. The error has the end of the
// verifier's or libbpf's text.
absl::Status LoadObject(const EmbeddedObject& embedded, bpf_object* object);
absl::StatusOr<bpf_program*> FindProgram(bpf_object* object, const char* name);

// A variable of .rodata (before loading) or .bss (after): its address, or null.
void* FindVariable(bpf_object* object, const char* section, const char* variable);

// Attaches by the link pinned as `name`: updates its program if there is one and `adoptable` says
// that it is attached to the right place, else makes it with `attach` and pins it, replacing the
// pin only once the new link works.
absl::Status AttachPinned(const PinPaths& paths, const std::string& name, bpf_program* program,
                          const std::function<bool(const bpf_link_info&)>& adoptable,
                          const std::function<bpf_link*()>& attach);

}  // namespace weft::bpf
