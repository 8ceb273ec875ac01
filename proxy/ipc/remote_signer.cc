// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/remote_signer.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cstring>
#include <unordered_map>

#include "proxy/ipc/keyd_protocol.h"
#include "proxy/ipc/packet_channel.h"

namespace weft::ipc {
namespace {

constexpr size_t kMaxPending = 1024;

std::vector<uint8_t> Encode(const KeydRequest& request, std::string_view identity,
                            std::span<const uint8_t> body) {
  std::vector<uint8_t> packet(sizeof request + identity.size() + body.size());
  memcpy(packet.data(), &request, sizeof request);
  if (!identity.empty()) memcpy(packet.data() + sizeof request, identity.data(), identity.size());
  if (!body.empty())
    memcpy(packet.data() + sizeof request + identity.size(), body.data(), body.size());
  return packet;
}

}  // namespace

struct RemoteSigner::Core {
  Core(const asio::any_io_executor& executor_in, int fd)
      : executor(executor_in),
        channel(
            executor_in, fd, kMaxKeydPacket,
            [this](std::span<const uint8_t> bytes, std::vector<int> fds) {
              return OnPacket(bytes, std::move(fds));
            },
            [this] { FailAll(); }) {}

  bool OnPacket(std::span<const uint8_t> bytes, std::vector<int> fds);

  void FailAll() {
    auto lost = std::move(pending);
    pending.clear();
    for (auto& [id, done] : lost) done(false, {});
  }

  asio::any_io_executor executor;
  std::unordered_map<uint32_t, Done> pending;
  uint32_t next_id = 1;
  PacketChannel channel;
};

bool RemoteSigner::Core::OnPacket(std::span<const uint8_t> bytes, std::vector<int> fds) {
  KeydAnswer answer;
  if (!fds.empty() || bytes.size() < sizeof answer) {
    for (const int fd : fds) (void)::close(fd);
    return false;
  }
  memcpy(&answer, bytes.data(), sizeof answer);
  const auto body = bytes.subspan(sizeof answer);
  const auto found = pending.find(answer.id);
  if (answer.version != kKeydVersion || body.size() != answer.body_bytes || found == pending.end())
    return false;
  Done done = std::move(found->second);
  pending.erase(found);
  done(answer.error == 0, std::vector<uint8_t>(body.begin(), body.end()));
  return true;
}

RemoteSigner::RemoteSigner(boost::asio::any_io_executor executor, int channel_fd)
    : core_(std::make_shared<Core>(executor, channel_fd)) {}

RemoteSigner::~RemoteSigner() {
  // After us: the callbacks still run, but not from inside this destructor.
  auto lost = std::make_shared<std::unordered_map<uint32_t, Done>>(std::move(core_->pending));
  core_->pending.clear();
  boost::asio::post(core_->executor, [lost] {
    for (auto& [id, done] : *lost) done(false, {});
  });
}

bool RemoteSigner::alive() const { return core_->channel.alive(); }

void RemoteSigner::Sign(std::string_view identity, uint64_t key_id, std::span<const uint8_t> input,
                        Done done) {
  Core& core = *core_;
  const bool fits = sizeof(KeydRequest) + identity.size() + input.size() <= kMaxKeydPacket &&
                    identity.size() <= kMaxIdentityBytes;
  KeydRequest request;
  request.op = KeydOp::kSign;
  request.id = core.next_id++;
  request.key_id = key_id;
  request.identity_bytes = static_cast<uint32_t>(identity.size());
  request.body_bytes = static_cast<uint32_t>(input.size());
  if (!fits || core.pending.size() >= kMaxPending ||
      !core.channel.Send(Encode(request, identity, input))) {
    boost::asio::post(core.executor, [done = std::move(done)] { done(false, {}); });
    return;
  }
  core.pending.emplace(request.id, std::move(done));
}

}  // namespace weft::ipc
