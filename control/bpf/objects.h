// SPDX-License-Identifier: Apache-2.0
// The compiled kernel programs, embedded by cmake/BpfPrograms.cmake: one pair of symbols per
// bpf/*/NAME.bpf.c.
#pragma once
#include <span>

extern "C" {
extern const char weft_bpf_address[], weft_bpf_address_end[];
extern const char weft_bpf_connect[], weft_bpf_connect_end[];
extern const char weft_bpf_create[], weft_bpf_create_end[];
extern const char weft_bpf_cut[], weft_bpf_cut_end[];
extern const char weft_bpf_enrol[], weft_bpf_enrol_end[];
extern const char weft_bpf_datagram[], weft_bpf_datagram_end[];
extern const char weft_bpf_inbound[], weft_bpf_inbound_end[];
extern const char weft_bpf_late[], weft_bpf_late_end[];
extern const char weft_bpf_process[], weft_bpf_process_end[];
extern const char weft_bpf_sockops[], weft_bpf_sockops_end[];
extern const char weft_bpf_splice[], weft_bpf_splice_end[];
extern const char weft_bpf_versions[], weft_bpf_versions_end[];
extern const char weft_bpf_workload[], weft_bpf_workload_end[];
extern const char weft_bpf_watch[], weft_bpf_watch_end[];
}

namespace weft::bpf {

struct EmbeddedObject {
  const char* name;
  std::span<const char> bytes;
};

inline EmbeddedObject AddressObject() {
  return {"address", {weft_bpf_address, weft_bpf_address_end}};
}
inline EmbeddedObject ConnectObject() {
  return {"connect", {weft_bpf_connect, weft_bpf_connect_end}};
}
inline EmbeddedObject CreateObject() { return {"create", {weft_bpf_create, weft_bpf_create_end}}; }
inline EmbeddedObject ProcessObject() {
  return {"process", {weft_bpf_process, weft_bpf_process_end}};
}
inline EmbeddedObject CutObject() { return {"cut", {weft_bpf_cut, weft_bpf_cut_end}}; }
inline EmbeddedObject EnrolObject() { return {"enrol", {weft_bpf_enrol, weft_bpf_enrol_end}}; }
inline EmbeddedObject WorkloadObject() {
  return {"workload", {weft_bpf_workload, weft_bpf_workload_end}};
}
inline EmbeddedObject DatagramObject() {
  return {"datagram", {weft_bpf_datagram, weft_bpf_datagram_end}};
}
inline EmbeddedObject VersionsObject() {
  return {"versions", {weft_bpf_versions, weft_bpf_versions_end}};
}
inline EmbeddedObject WatchObject() { return {"watch", {weft_bpf_watch, weft_bpf_watch_end}}; }
inline EmbeddedObject InboundObject() {
  return {"inbound", {weft_bpf_inbound, weft_bpf_inbound_end}};
}
inline EmbeddedObject LateObject() { return {"late", {weft_bpf_late, weft_bpf_late_end}}; }
inline EmbeddedObject SockopsObject() {
  return {"sockops", {weft_bpf_sockops, weft_bpf_sockops_end}};
}
inline EmbeddedObject SpliceObject() { return {"splice", {weft_bpf_splice, weft_bpf_splice_end}}; }

}  // namespace weft::bpf
