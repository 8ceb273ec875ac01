// SPDX-License-Identifier: Apache-2.0
// The KeySigner of a proxy in the mesh: weft-keyd signs, over a signer channel. Thread: the
// worker's (executor). Owns the channel.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "proxy/tls/key_signer.h"

namespace weft::ipc {

class RemoteSigner final : public tls::KeySigner {
 public:
  // Takes `channel_fd` (keyd_protocol.h).
  RemoteSigner(boost::asio::any_io_executor executor, int channel_fd);
  ~RemoteSigner() override;  // what is pending is answered with ok = false, from the executor
  // A broken channel, too many waiting signatures (1024) or a refusal: ok = false.
  void Sign(std::string_view identity, uint64_t key_id, std::span<const uint8_t> input,
            Done done) override;
  bool alive() const;

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace weft::ipc
