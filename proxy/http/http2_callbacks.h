// SPDX-License-Identifier: Apache-2.0
// What nghttp2 calls while Http2Session::Feed() or Pump() runs. Internal to proxy/http.
#pragma once
#include <nghttp2/nghttp2.h>

#include "proxy/http/http2_session.h"

namespace weft::http {

struct Http2Callbacks {
  // One immutable table for all sessions.
  static const nghttp2_session_callbacks* Table();

  static int OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* self);
  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t flags,
                      void* self);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int OnData(nghttp2_session*, uint8_t flags, int32_t id, const uint8_t* data, size_t size,
                    void* self);
  static int OnClose(nghttp2_session*, int32_t id, uint32_t error_code, void* self);
  static int OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static nghttp2_ssize Send(nghttp2_session*, const uint8_t* data, size_t size, int flags,
                            void* self);
  static int SendBody(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_head,
                      size_t size, nghttp2_data_source* source, void* self);
  static nghttp2_ssize ReadBody(nghttp2_session*, int32_t id, uint8_t* into, size_t size,
                                uint32_t* flags, nghttp2_data_source* source, void* self);

 private:
  static void FinishHeaders(Http2Session& session, const nghttp2_frame* frame);
  static void FinishRequest(Http2Session& session, Http2Stream& stream, bool end_stream);
  static void FinishResponse(Http2Session& session, Http2Stream& stream, bool end_stream);
  static void OnGoAway(Http2Session& session, const nghttp2_goaway& goaway);
};

}  // namespace weft::http
