// SPDX-License-Identifier: Apache-2.0
// What processes say to weft-keyd, over SOCK_SEQPACKET. A signer channel (one end given to a proxy
// at its start) may only ask for TLS 1.3 CertificateVerify signatures for identities granted to its
// tenant; weft-keyd checks that the bytes to be signed have exactly that form (RFC 8446 4.4.3: 64
// spaces, "TLS 1.3, server CertificateVerify" or "client", 0, a hash of 32 or 48 bytes). The
// control channel, /run/weft/NAME/keyd.sock, root only, is the agent's. Answers come in order; one
// packet a message.
#pragma once
#include <cstddef>
#include <cstdint>

namespace weft::ipc {

inline constexpr uint32_t kKeydVersion = 1;
inline constexpr size_t kMaxKeydPacket = 8192;
inline constexpr size_t kMaxIdentityBytes = 2048;  // SPIFFE ID 2.3

enum class KeydOp : uint32_t {
  // Signer channel. Body: the bytes to be signed. Answer: a DER ECDSA signature.
  kSign = 1,
  // Control channel.
  kGenerate = 16,  // identity -> a new P-256 key; answer: key_id, body: a PEM CSR with the identity
                   // as URI SAN
  kGrant = 17,     // identity, key_id, tenant: that tenant's signers may use the key from now on
  kForget = 18,    // key_id: overwritten and gone
  kNewChannel = 19,  // tenant -> one descriptor: the proxy's end of a new signer channel
  kStatus = 20,  // -> body: JSON {keys:[{identity,key_id}], signatures:n, refused:n, too_often:n}
};

// Followed by `identity_bytes` of SPIFFE id, then `body_bytes` of body, in the same packet.
struct KeydRequest {
  uint32_t version = kKeydVersion;
  KeydOp op{};
  uint32_t id = 0;
  uint32_t tenant = 0;
  uint64_t key_id = 0;
  uint32_t identity_bytes = 0;
  uint32_t body_bytes = 0;
};
static_assert(sizeof(KeydRequest) == 32);

// Followed by `body_bytes` of body.
struct KeydAnswer {
  uint32_t version = kKeydVersion;
  uint32_t id = 0;
  // errno: EPERM not granted, EINVAL not a CertificateVerify, ENOENT no such key, EBUSY more
  // requests than a signer channel may make (20 000 a second)
  int32_t error = 0;
  uint32_t body_bytes = 0;
  uint64_t key_id = 0;
};
static_assert(sizeof(KeydAnswer) == 24);

}  // namespace weft::ipc
