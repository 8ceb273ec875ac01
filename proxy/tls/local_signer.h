// SPDX-License-Identifier: Apache-2.0
// A KeySigner with the private key in this process: tests and run-alone mode. In the mesh it is
// weft-keyd (proxy/ipc/remote_signer.h). Thread: the executor's.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <string>

#include "proxy/base/status.h"
#include "proxy/tls/key_signer.h"

namespace weft::tls {

class LocalSigner final : public KeySigner {
 public:
  // `key_pem`: a P-256 private key. Every identity and key_id is signed for with it.
  static absl::StatusOr<std::unique_ptr<LocalSigner>> Create(boost::asio::any_io_executor executor,
                                                             const std::string& key_pem);
  ~LocalSigner() override;
  void Sign(std::string_view identity, uint64_t key_id, std::span<const uint8_t> input,
            Done done) override;

 private:
  struct Key;
  LocalSigner(boost::asio::any_io_executor executor, std::unique_ptr<Key> key);
  boost::asio::any_io_executor executor_;
  std::unique_ptr<Key> key_;
};

}  // namespace weft::tls
