// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/local_http.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cstring>
#include <thread>

#include "proxy/ipc/http_text.h"
#include "proxy/net/listen.h"
#include "tests/support/run_task.h"

namespace weft::ipc {
namespace {

class LocalHttpTest : public testing::Test {
 protected:
  void Start(LocalHttpServer::Handler handler) {
    auto fd = net::ListenUnix(path_, 0600);
    ASSERT_TRUE(fd.ok()) << fd.status().ToString();
    server_ = std::make_unique<LocalHttpServer>(io_.get_executor(), *fd, std::move(handler));
    thread_ = std::thread([this] { io_.run(); });
  }
  void TearDown() override {
    asio::post(io_, [this] {
      kept_.clear();  // on the server's thread, as all of their use
      server_.reset();
    });
    if (thread_.joinable()) thread_.join();
    unlink(path_.c_str());
  }
  std::string path_ = testing::TempDir() + "weft_http_test_" + std::to_string(getpid());
  asio::io_context io_{1};
  std::unique_ptr<LocalHttpServer> server_;
  std::vector<Responder> kept_;
  std::thread thread_;
};

TEST_F(LocalHttpTest, AnswersAndPassesTheRequest) {
  Start([](LocalRequest request, Responder responder) {
    responder.Send(request.method == "POST" ? 200 : 404, "text/plain",
                   request.method + " " + request.path + " " + request.query + " " +
                       std::to_string(request.body.size()));
    responder.Send(500, "text/plain", "only the first counts");
  });
  auto get = HttpRequest(path_, "GET", "/status?x=1");
  ASSERT_TRUE(get.ok()) << get.status().ToString();
  EXPECT_EQ(get->status, 404);
  EXPECT_EQ(get->body, "GET /status x=1 0");
  auto post = HttpRequest(path_, "POST", "/x", std::string(3'000'000, 'b'));
  ASSERT_TRUE(post.ok()) << post.status().ToString();
  EXPECT_EQ(post->body, "POST /x  3000000");
}

TEST_F(LocalHttpTest, ALargeAnswerArrivesWhole) {
  Start([](LocalRequest, Responder responder) {
    responder.Send(200, "text/plain", std::string(20'000'000, 'z'));
  });
  auto get = HttpRequest(path_, "GET", "/");
  ASSERT_TRUE(get.ok()) << get.status().ToString();
  EXPECT_EQ(get->body.size(), 20'000'000u);
}

TEST_F(LocalHttpTest, AForgottenRequestIsA500) {
  Start([](LocalRequest, Responder) {});
  auto get = HttpRequest(path_, "GET", "/");
  ASSERT_TRUE(get.ok()) << get.status().ToString();
  EXPECT_EQ(get->status, 500);
}

TEST_F(LocalHttpTest, Streams) {
  auto& kept = kept_;
  Start([&kept](LocalRequest, Responder responder) {
    responder.StartStream(200, "application/x-ndjson");
    EXPECT_TRUE(responder.Write("one\ntw"));
    EXPECT_TRUE(responder.Write("o\nthree\n"));
    kept.push_back(responder);
  });
  std::vector<std::string> lines;
  auto stream = HttpStream(path_, "/events", [&](std::string_view line) {
    lines.emplace_back(line);
    if (lines.size() == 3) {
      asio::post(io_, [&kept] {
        kept[0].Write("four");
        kept[0].EndStream();
      });
    }
    return true;
  });
  ASSERT_TRUE(stream.ok()) << stream.status().ToString();
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two", "three", "four"}));
}

TEST_F(LocalHttpTest, AStreamLearnsThatItsClientLeft) {
  auto& kept = kept_;
  std::atomic<bool> refused = false;
  Start([&kept](LocalRequest, Responder responder) {
    responder.StartStream(200, "text/plain");
    responder.Write("line\n");
    kept.push_back(responder);
  });
  auto stream = HttpStream(path_, "/events", [](std::string_view) { return false; });
  ASSERT_TRUE(stream.ok());
  for (int i = 0; i < 2000 && !refused; ++i) {
    asio::post(io_, [&] { refused = refused || !kept[0].Write("x\n"); });
    std::this_thread::yield();
    usleep(1000);  // a condition is polled for, bounded above
  }
  EXPECT_TRUE(refused);
}

TEST_F(LocalHttpTest, BadRequestsAreRefused) {
  Start([](LocalRequest, Responder responder) { responder.Send(200, "text/plain", ""); });
  const std::vector<std::pair<std::string, int>> cases = {
      {"GET / HTTP/2.0\r\n\r\n", 400},
      {"GET nopath HTTP/1.1\r\n\r\n", 400},
      {"GET /a b HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411},
      {"GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n", 431},
      {std::string("GET /\0 HTTP/1.1\r\n\r\n", 19), 400},
      {"GET / HTTP/1.1\r\n\r\n", 200},
  };
  for (const auto& [text, status] : cases) {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    memcpy(address.sun_path, path_.data(), path_.size());
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    std::string answer(100, '\0');
    const ssize_t n = recv(fd, answer.data(), answer.size(), 0);
    answer.resize(n > 0 ? static_cast<size_t>(n) : 0);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(status)))
        << text.substr(0, 60) << " -> " << answer;
    close(fd);
  }
}

TEST(HttpClient, NobodyListens) {
  EXPECT_FALSE(HttpRequest("/nonexistent/socket", "GET", "/").ok());
  EXPECT_FALSE(HttpRequest(std::string(200, 'x'), "GET", "/").ok());
}

}  // namespace
}  // namespace weft::ipc
