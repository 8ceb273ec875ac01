// SPDX-License-Identifier: Apache-2.0
// The downstream side of ServeHttp(): hands the session's events to one Exchange per request.
// Thread: the worker's.
#pragma once
#include <vector>

#include "proxy/worker/http_connection.h"
#include "proxy/worker/http_downstream.h"

namespace weft::worker {

class Exchange;

class DownstreamConnection final : public HttpConnection {
 public:
  DownstreamConnection(HttpServicesState& services, HttpDownstreamArgs args);
  ~DownstreamConnection() override;

  Task<void> Serve();
  // No new requests; those in flight go on.
  void StartDrain();
  // An exchange is over: its stream, if still open, is ignored from now on.
  void Ended(http::StreamId stream);
  const HttpDownstreamArgs& args() const { return args_; }

 private:
  struct Entry {
    http::StreamId id;
    Exchange* exchange;
  };
  Exchange* Find(http::StreamId id);
  void OnEvent(http::Event& event) override;
  void AfterBatch() override;
  void OnEof() override;
  bool HoldsInput() override;
  void OnRequest(http::Event& event);

  HttpDownstreamArgs args_;
  std::vector<Entry> exchanges_;  // ascending stream ids
  WheelTimer idle_timer_;
  WheelTimer head_timer_;
};

}  // namespace weft::worker
