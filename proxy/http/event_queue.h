// SPDX-License-Identifier: Apache-2.0
// What a session has to say until its caller has looked: the events, and slots for the heads they
// point to. Internal to proxy/http.
#pragma once
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "proxy/http/session.h"

namespace weft::http {

// A head that is assembled over several Feed() calls is swapped into a slot when complete; slots
// live until the batch of events is cleared and keep their buffers for the next one.
template <typename Head>
class HeadSlots final {
 public:
  Head* Take(Head* assembled) {
    if (used_ == slots_.size()) slots_.push_back(std::make_unique<Head>());
    Head* slot = slots_[used_++].get();
    std::swap(*slot, *assembled);
    return slot;
  }
  void Release() {
    used_ = 0;
    if (slots_.size() > kKeep) slots_.resize(kKeep);
  }

 private:
  static constexpr size_t kKeep = 16;  // more only after a burst in one read
  std::vector<std::unique_ptr<Head>> slots_;
  size_t used_ = 0;
};

class EventQueue final {
 public:
  Event& Push(Event::Kind kind, StreamId stream) {
    Event& event = events_.emplace_back();
    event.kind = kind;
    event.stream = stream;
    return event;
  }
  void PushReset(StreamId stream, Reason reason, ResetCode code) {
    Event& event = Push(Event::Kind::kReset, stream);
    event.reason = reason;
    event.reset_code = code;
  }
  std::span<Event> Look() {
    seen_ = events_.size();
    return events_;
  }
  void Clear() {
    events_.clear();
    seen_ = 0;
    requests.Release();
    responses.Release();
    trailers.Release();
    if (events_.capacity() > kKeep) std::vector<Event>().swap(events_);
  }
  // Before new input: what was looked at goes, and what points into older bytes. A kWritable that
  // nobody has seen stays, or its stream would never be written again.
  void DropSeen() {
    size_t kept = 0;
    for (size_t i = seen_; i < events_.size(); ++i) {
      if (events_[i].kind == Event::Kind::kWritable) events_[kept++] = events_[i];
    }
    if (kept == 0) return Clear();
    events_.resize(kept);
    seen_ = 0;
    requests.Release();
    responses.Release();
    trailers.Release();
  }

  HeadSlots<RequestHead> requests;
  HeadSlots<ResponseHead> responses;
  HeadSlots<HeaderList> trailers;

 private:
  static constexpr size_t kKeep = 64;
  std::vector<Event> events_;
  size_t seen_ = 0;
};

}  // namespace weft::http
