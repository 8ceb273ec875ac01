// SPDX-License-Identifier: Apache-2.0
// The open connections of a worker, so that those of one workload, or all, can be drained and
// closed. Thread: the worker's.
#pragma once
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "proxy/net/stream.h"

namespace weft::worker {

class ConnectionSet final {
 public:
  struct Entry {
    std::string workload;  // uid; empty: run alone
    std::function<void(Reason)> close;
    std::function<void()> drain;  // may be empty: nothing to say to the other side
    // Policies or workloads changed: closes what would no longer be let in. May be empty.
    std::function<void()> recheck;
  };
  // In the frame of the connection; the functions are not called after its end. They must not end
  // the frame at once.
  class Membership final {
   public:
    Membership(ConnectionSet& set, Entry entry) : set_(set) {
      set_.entries_.push_front(std::move(entry));
      position_ = set_.entries_.begin();
    }
    ~Membership() { set_.entries_.erase(position_); }
    Membership(const Membership&) = delete;
    Membership& operator=(const Membership&) = delete;

   private:
    ConnectionSet& set_;
    std::list<Entry>::iterator position_;
  };

  void DrainAll() {
    for (Entry& entry : entries_) {
      if (entry.drain) entry.drain();
    }
  }
  void CloseAll(Reason reason) {
    for (Entry& entry : entries_) entry.close(reason);
  }
  void Drain(std::string_view workload) {
    for (Entry& entry : entries_) {
      if (entry.drain && entry.workload == workload) entry.drain();
    }
  }
  void Close(std::string_view workload, Reason reason) {
    for (Entry& entry : entries_) {
      if (entry.workload == workload) entry.close(reason);
    }
  }
  void Recheck() {
    for (Entry& entry : entries_) {
      if (entry.recheck) entry.recheck();
    }
  }
  size_t size() const { return entries_.size(); }

 private:
  std::list<Entry> entries_;
};

// A stream that is a member of the set for as long as it lives: for those whose ownership goes
// elsewhere (ServeHttp).
class MemberStream final : public net::Stream {
 public:
  // `judge` says, when policies or workloads changed, why the stream may no longer be; NONE: it
  // may.
  MemberStream(ConnectionSet& set, std::string workload, std::unique_ptr<net::Stream> inner,
               std::function<Reason()> judge = nullptr)
      : inner_(std::move(inner)),
        judge_(std::move(judge)),
        membership_(set, {.workload = std::move(workload),
                          .close = [this](Reason r) { inner_->Close(r); },
                          .recheck = [this] { Recheck(); }}) {}
  net::IoResult TryRead(std::span<uint8_t> into) override { return inner_->TryRead(into); }
  net::IoResult TryWrite(std::span<const iovec> from) override { return inner_->TryWrite(from); }
  Task<void> Readable() override { return inner_->Readable(); }
  Task<void> Writable() override { return inner_->Writable(); }
  void ShutdownWrite() override { inner_->ShutdownWrite(); }
  void Close(Reason reason) override { inner_->Close(reason); }
  int native_handle() const override { return inner_->native_handle(); }

 private:
  void Recheck() {
    Reason reason = judge_ ? judge_() : WEFT_R_NONE;
    if (reason != WEFT_R_NONE) inner_->Close(reason);
  }

  std::unique_ptr<net::Stream> inner_;
  std::function<Reason()> judge_;
  ConnectionSet::Membership membership_;
};

}  // namespace weft::worker
