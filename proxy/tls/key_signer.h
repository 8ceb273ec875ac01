// SPDX-License-Identifier: Apache-2.0
// Signs for a certificate whose private key lives elsewhere (weft-keyd; in run-alone mode and
// tests: this process).
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace weft::tls {

class KeySigner {
 public:
  // ok: a DER ECDSA signature (P-256, SHA-256). Called once, on the thread that called Sign, never
  // from inside Sign.
  using Done = std::function<void(bool ok, std::vector<uint8_t> signature)>;

  virtual ~KeySigner() = default;
  // Signs `input` (the whole TLS 1.3 CertificateVerify input, not its hash) with the key `key_id`
  // of `identity`. A caller that goes away before `done` ran must make `done` harmless itself (it
  // is still called).
  virtual void Sign(std::string_view identity, uint64_t key_id, std::span<const uint8_t> input,
                    Done done) = 0;
};

}  // namespace weft::tls
