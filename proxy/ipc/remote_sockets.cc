// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/remote_sockets.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <tuple>

#include "bpf/abi.h"
#include "proxy/base/signal.h"
#include "proxy/ipc/packet_channel.h"
#include "proxy/ipc/sockets_protocol.h"
#include "proxy/net/deadline.h"

namespace weft::ipc {
namespace {

constexpr std::chrono::milliseconds kMaxWait{1000};
constexpr size_t kBatch = kMaxSocketsPerAnswer;
constexpr size_t kRefillBelow = kBatch / 2 + 1;

void CloseAll(const std::vector<int>& fds) {
  for (const int fd : fds) (void)close(fd);
}

SocketsOp OpOf(net::SocketKind kind) {
  switch (kind) {
    case net::SocketKind::kTunnel:
      return SocketsOp::kTunnel;
    case net::SocketKind::kToApp:
      return SocketsOp::kToApp;
    case net::SocketKind::kHost:
      return SocketsOp::kHost;
    case net::SocketKind::kDatagram:
      return SocketsOp::kDatagram;
  }
  return SocketsOp::kHost;
}

}  // namespace

struct RemoteSocketSource::Core {
  using Key =
      std::tuple<net::SocketKind, uint32_t, uint32_t, int>;  // kind, workload, generation, family

  struct Waiter {
    explicit Waiter(const asio::any_io_executor& executor) : done(executor) {}
    Signal done;
    bool finished = false;
    std::vector<int> fds;  // one socket, or the listeners
  };
  struct Pool {
    std::deque<int> ready;
    std::list<Waiter*> waiters;
    bool asked = false;
  };
  struct Pending {
    uint32_t id = 0;
    uint32_t count = 0;
    bool listeners = false;
    Key key{};
    Waiter* waiter = nullptr;  // listeners; null: it gave up
  };

  Core(const asio::any_io_executor& executor_in, int fd)
      : executor(executor_in),
        channel(
            executor_in, fd, sizeof(SocketsAnswer),
            [this](std::span<const uint8_t> bytes, std::vector<int> fds) {
              return OnPacket(bytes, std::move(fds));
            },
            [this] { OnEnd(); }) {}
  ~Core() {
    for (auto& [key, pool] : pools) {
      for (const int fd : pool.ready) (void)close(fd);
    }
  }

  bool Ask(SocketsRequest request, Pending entry) {
    request.id = next_id++;
    entry.id = request.id;
    if (!channel.Send({reinterpret_cast<const uint8_t*>(&request), sizeof request})) return false;
    pending.push_back(entry);
    return true;
  }

  void Refill(const Key& key, Pool& pool) {
    if (pool.asked || pool.ready.size() >= kRefillBelow) return;
    const auto [kind, workload, generation, family] = key;
    SocketsRequest request;
    request.op = OpOf(kind);
    request.workload = workload;
    request.generation = generation;
    request.family = family;
    request.count = static_cast<uint32_t>(kBatch - std::min(kBatch, pool.ready.size()));
    pool.asked = Ask(request, {.count = request.count, .key = key});
  }

  // Hands what there is to whoever waits, in order.
  void Serve(Pool& pool) {
    while (!pool.waiters.empty() && !pool.ready.empty()) {
      Waiter* waiter = pool.waiters.front();
      pool.waiters.pop_front();
      waiter->fds.push_back(pool.ready.front());
      pool.ready.pop_front();
      Finish(*waiter);
    }
  }

  static void Finish(Waiter& waiter) {
    waiter.finished = true;
    waiter.done.Notify();
  }

  bool OnPacket(std::span<const uint8_t> bytes, std::vector<int> fds);
  void OnBatch(const Pending& entry, std::vector<int> fds);
  void OnEnd();

  asio::any_io_executor executor;
  std::map<Key, Pool> pools;
  std::deque<Pending> pending;  // answers come in the order of the requests
  uint32_t next_id = 1;
  PacketChannel channel;
};

bool RemoteSocketSource::Core::OnPacket(std::span<const uint8_t> bytes, std::vector<int> fds) {
  SocketsAnswer answer;
  const bool sized = bytes.size() == sizeof answer && !pending.empty();
  if (sized) memcpy(&answer, bytes.data(), sizeof answer);
  if (!sized || answer.version != kSocketsVersion || answer.id != pending.front().id ||
      answer.count != fds.size()) {
    CloseAll(fds);
    return false;
  }
  const Pending entry = pending.front();
  pending.pop_front();
  if (!entry.listeners) {
    OnBatch(entry, std::move(fds));
    return true;
  }
  if (entry.waiter == nullptr) {
    CloseAll(fds);
    return true;
  }
  entry.waiter->fds = std::move(fds);
  Finish(*entry.waiter);
  return true;
}

void RemoteSocketSource::Core::OnBatch(const Pending& entry, std::vector<int> fds) {
  const auto found = pools.find(entry.key);
  if (found == pools.end()) return CloseAll(fds);  // the workload was forgotten meanwhile
  Pool& pool = found->second;
  pool.asked = false;
  pool.ready.insert(pool.ready.end(), fds.begin(), fds.end());
  Serve(pool);
  if (fds.empty()) {  // refused: nobody is helped by waiting
    while (!pool.waiters.empty()) {
      Waiter* waiter = pool.waiters.front();
      pool.waiters.pop_front();
      Finish(*waiter);
    }
  } else if (!pool.waiters.empty()) {
    Refill(entry.key, pool);
  }
}

void RemoteSocketSource::Core::OnEnd() {
  auto lost = std::move(pending);
  pending.clear();
  for (Pending& entry : lost) {
    if (entry.waiter != nullptr) Finish(*entry.waiter);
  }
  for (auto& [key, pool] : pools) {
    auto waiters = std::move(pool.waiters);
    pool.waiters.clear();
    pool.asked = false;  // or the next taker would wait for an answer
    for (Waiter* waiter : waiters) Finish(*waiter);
  }
}

RemoteSocketSource::RemoteSocketSource(asio::any_io_executor executor, int channel_fd)
    : core_(std::make_shared<Core>(executor, channel_fd)) {}
RemoteSocketSource::~RemoteSocketSource() = default;

bool RemoteSocketSource::alive() const { return core_->channel.alive(); }

Task<net::SocketSource::Result> RemoteSocketSource::Take(net::SocketRequest request) {
  const std::shared_ptr<Core> core = core_;
  const bool host = request.kind == net::SocketKind::kHost;
  const Core::Key key{request.kind, host ? 0 : request.workload, host ? 0 : request.generation,
                      request.family};
  Core::Pool& pool = core->pools[key];
  if (!pool.ready.empty() && pool.waiters.empty()) {
    const int fd = pool.ready.front();
    pool.ready.pop_front();
    core->Refill(key, pool);
    co_return Result{.fd = fd};
  }
  core->Refill(key, pool);
  if (!pool.asked) co_return Result{.reason = WEFT_R_SOCKETS_UNAVAILABLE};
  Core::Waiter waiter(core->executor);
  pool.waiters.push_back(&waiter);
  net::Deadline limit(core->executor, kMaxWait, [&waiter] { waiter.done.Notify(); });
  while (!waiter.finished && !limit.expired()) co_await waiter.done.Wait();
  if (!waiter.finished) {
    const auto again = core->pools.find(key);
    if (again != core->pools.end()) again->second.waiters.remove(&waiter);
  }
  if (waiter.fds.empty()) co_return Result{.reason = WEFT_R_SOCKETS_UNAVAILABLE};
  co_return Result{.fd = waiter.fds.front()};
}

Task<std::vector<int>> RemoteSocketSource::Listeners(uint32_t workload, uint32_t generation) {
  const std::shared_ptr<Core> core = core_;
  Core::Waiter waiter(core->executor);
  SocketsRequest request;
  request.op = SocketsOp::kListeners;
  request.workload = workload;
  request.generation = generation;
  if (!core->Ask(request, {.listeners = true, .waiter = &waiter})) co_return std::vector<int>{};
  net::Deadline limit(core->executor, kMaxWait, [&waiter] { waiter.done.Notify(); });
  while (!waiter.finished && !limit.expired()) co_await waiter.done.Wait();
  for (Core::Pending& entry : core->pending) {
    if (entry.waiter == &waiter) entry.waiter = nullptr;
  }
  co_return std::move(waiter.fds);
}

Reason RemoteSocketSource::Permit(int fd, const SocketAddress& destination) {
  weft_addr addr = {};
  memcpy(addr.ip, destination.ip.bytes.data(), sizeof addr.ip);
  addr.port_be = htons(destination.port);
  if (setsockopt(fd, WEFT_SOL, WEFT_SO_PERMIT, &addr, sizeof addr) == 0) return WEFT_R_NONE;
  return errno == EPERM ? WEFT_R_POLICY_DENIED : WEFT_R_STAMP_MISUSE;
}

void RemoteSocketSource::Forget(uint32_t workload) {
  for (auto it = core_->pools.begin(); it != core_->pools.end();) {
    const bool match =
        std::get<0>(it->first) != net::SocketKind::kHost && std::get<1>(it->first) == workload;
    if (!match) {
      ++it;
      continue;
    }
    for (const int fd : it->second.ready) (void)close(fd);
    for (Core::Waiter* waiter : it->second.waiters) Core::Finish(*waiter);
    it = core_->pools.erase(it);
  }
}

}  // namespace weft::ipc
