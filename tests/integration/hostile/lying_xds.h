// SPDX-License-Identifier: Apache-2.0
// An xDS server that is honest except on the connections for which a test says otherwise. Thread:
// the test's.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/http/grpc_frame.h"
#include "proxy/http/session.h"
#include "tests/integration/proxy/proxy_process.h"

namespace weft::test {

// What one connection gets instead of a server.
struct Lie {
  // Raw bytes as soon as it is accepted; then the end, or silence.
  bool is_raw = false;
  std::string raw;
  bool hang_up = false;
  // Or HTTP/2 with this answer to the stream: status, DATA as it is, trailers.
  int status = 200;
  std::string data;
  std::vector<std::pair<std::string, std::string>> trailers;
  // To the first request of a type: these messages.
  std::map<std::string, std::vector<std::string>> messages;
};

// Protocol buffers by hand: what an encoder of ours would never write.
inline std::string Bytes(int field, std::string_view value) {
  std::string out(1, static_cast<char>(field << 3 | 2));
  size_t size = value.size();
  for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
  out.push_back(static_cast<char>(size));
  return out.append(value);
}
inline std::string AnyOf(std::string_view type_url, std::string_view bytes) {
  return Bytes(1, type_url) + Bytes(2, bytes);
}
// DiscoveryResponse; with names, DeltaDiscoveryResponse.
inline std::string FullResponse(std::string_view type_url, std::string_view version,
                                const std::vector<std::string>& anys) {
  std::string out = Bytes(1, version);
  for (const std::string& any : anys) out += Bytes(2, any);
  return out + Bytes(4, type_url) + Bytes(5, "nonce-" + std::string(version));
}
inline std::string DeltaResponse(std::string_view type_url, std::string_view version,
                                 const std::vector<std::pair<std::string, std::string>>& named) {
  std::string out = Bytes(1, version);
  for (const auto& [name, any] : named) {
    out += Bytes(2, Bytes(1, version) + Bytes(2, any) + Bytes(3, name));
  }
  return out + Bytes(4, type_url) + Bytes(5, "nonce-" + std::string(version));
}

class LyingXds : public ProxyTest {
 protected:
  LyingXds()
      : acceptor_(io_.get_executor(), *net::ListenTcp(*SocketAddress::Parse("127.0.0.1:0")),
                  [this](int fd, SocketAddress) { OnAccept(fd); }) {
    acceptor_.Start();
  }
  ~LyingXds() override {
    if (pid_ > 0) kill(pid_, SIGKILL);
    acceptor_.Stop();
    CutAll();
    EXPECT_TRUE(RunUntil([&] { return serving_ == 0; }));
  }
  std::string Target() const { return acceptor_.address().ToString(); }
  void CutAll() {
    for (net::Stream* stream : std::vector<net::Stream*>(open_)) stream->Close(WEFT_R_IO_ERROR);
  }
  // The proxy's next connections are lied to; the present one ends.
  void LieNext(std::vector<Lie> lies) {
    lies_.assign(lies.begin(), lies.end());
    CutAll();
  }
  std::string LastError() { return AdminJson("/status")["xds"].value("last_error", ""); }

  std::string heard_;  // what the proxy said on connections that lie
  int lied_ = 0;

 private:
  void OnAccept(int fd) {
    auto stream = net::MakeSocketStream(io_.get_executor(), fd);
    net::Stream* raw = stream.get();
    open_.push_back(raw);
    ++serving_;
    Task<void> task = lies_.empty() ? xds::ServeGrpc(std::move(stream), {}, options_)
                                    : Tell(std::move(stream), std::move(lies_.front()));
    if (!lies_.empty()) lies_.pop_front();
    asio::co_spawn(io_, std::move(task), [this, raw](std::exception_ptr) {
      std::erase(open_, raw);
      --serving_;
    });
  }
  Task<void> Tell(std::unique_ptr<net::Stream> stream, Lie lie) {
    ++lied_;
    if (lie.is_raw) {
      co_await net::WriteAll(*stream, std::string_view(lie.raw));
      if (lie.hang_up) stream->Close(WEFT_R_CLOSED);
    }
    auto session = http::MakeHttp2Session(http::Role::kServer, {});
    std::vector<uint8_t> buffer(65536);
    http::GrpcDecoder decoder(64 << 20);
    for (;;) {
      net::IoResult in = co_await net::ReadSome(*stream, buffer);
      if (in.status != net::IoStatus::kOk) co_return;
      if (lie.is_raw) continue;
      size_t used = 0;
      if (session->Feed({buffer.data(), in.bytes}, &used) != WEFT_R_NONE) co_return;
      for (http::Event& event : session->events()) OnEvent(*session, decoder, lie, event);
      session->ClearEvents();
      while (!session->Output().empty()) {
        auto out = session->Output();
        net::IoResult written = co_await net::WriteAll(*stream, out);
        if (written.status != net::IoStatus::kOk) co_return;
        session->OutputWritten(out.size());
      }
    }
  }
  void OnEvent(http::Session& session, http::GrpcDecoder& decoder, Lie& lie, http::Event& event) {
    if (event.kind == http::Event::Kind::kRequest) {
      http::ResponseHead head;
      head.status = lie.status;
      head.headers.Add("content-type", "application/grpc");
      session.SubmitResponse(event.stream, head, lie.status != 200);
      if (lie.status != 200) return;
      session.SubmitData(event.stream,
                         {reinterpret_cast<const uint8_t*>(lie.data.data()), lie.data.size()},
                         false);
      if (lie.trailers.empty()) return;
      http::HeaderList trailers;
      for (const auto& [name, value] : lie.trailers) trailers.Add(name, value);
      session.SubmitTrailers(event.stream, trailers);
    }
    if (event.kind != http::Event::Kind::kData) return;
    session.Consume(event.stream, event.data.size());
    if (!decoder.Feed(event.data)) return;
    while (auto message = decoder.Next()) {
      heard_.append(*message);
      for (auto it = lie.messages.begin(); it != lie.messages.end();) {
        if (message->find(it->first) == std::string_view::npos) {
          ++it;
          continue;
        }
        std::string framed;
        for (const std::string& text : it->second) http::EncodeGrpcMessage(text, &framed);
        session.SubmitData(event.stream,
                           {reinterpret_cast<const uint8_t*>(framed.data()), framed.size()}, false);
        it = lie.messages.erase(it);
      }
    }
  }

  net::Acceptor acceptor_;
  std::deque<Lie> lies_;
  std::vector<net::Stream*> open_;
  int serving_ = 0;
};

}  // namespace weft::test
