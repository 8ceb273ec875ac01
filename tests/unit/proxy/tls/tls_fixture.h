// SPDX-License-Identifier: Apache-2.0
// Two sides of a handshake over an in-memory pair, for the tests of proxy/tls.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "proxy/net/stream_pair.h"
#include "proxy/tls/local_signer.h"
#include "proxy/tls/tls_stream.h"
#include "tests/support/cert_factory.h"
#include "tests/support/run_task.h"

namespace weft::tls {

inline constexpr char kClientId[] = "spiffe://td/ns/shop/sa/client";
inline constexpr char kServerId[] = "spiffe://td/ns/shop/sa/server";

struct Side {
  std::unique_ptr<LocalSigner> signer;
  std::shared_ptr<const TlsContext> context;
};

inline Side MakeSide(asio::any_io_executor executor, const test::TestCert& leaf,
                     const std::vector<std::string>& chain_der, const std::string& identity,
                     const std::vector<TrustDomainRoots>& trust) {
  Side side;
  // A key that is no EC key cannot be used by the signer; such leaves are shown by ordinary
  // contexts instead.
  auto signer = LocalSigner::Create(executor, leaf.key_pem());
  EXPECT_TRUE(signer.ok()) << signer.status().ToString();
  side.signer = std::move(*signer);
  auto context = TlsContext::Mesh({.identity = identity,
                                   .key_id = 1,
                                   .chain_der = chain_der,
                                   .trust = trust,
                                   .signer = side.signer.get()});
  EXPECT_TRUE(context.ok()) << context.status().ToString();
  side.context = std::move(*context);
  return side;
}

inline Side GoodSide(asio::any_io_executor executor, const test::TestCert& root,
                     const std::string& identity) {
  const auto leaf = test::MakeCert({.uris = {identity}}, &root);
  return MakeSide(executor, leaf, {leaf.der()}, identity, {{"td", {root.der()}}});
}

inline Task<void> DoConnect(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                            std::shared_ptr<const TlsContext> context, TlsClientOptions options,
                            HandshakeResult& out) {
  auto result = co_await TlsConnect(executor, std::move(transport), context, options);
  out = std::move(result);
}

inline Task<void> DoAccept(asio::any_io_executor executor, std::unique_ptr<net::Stream> transport,
                           std::shared_ptr<const TlsContext> context, HandshakeResult& out) {
  auto result = co_await TlsAccept(executor, std::move(transport), context);
  out = std::move(result);
}

struct Handshaken {
  HandshakeResult client, server;
};

inline Handshaken Handshake(test::TaskRunner& runner, const Side& client, const Side& server,
                            std::vector<std::string> expected = {},
                            net::StreamPairOptions pipe = {}) {
  Handshaken out;
  auto [left, right] = net::MakeStreamPair(runner.executor(), pipe);
  runner.Spawn(DoConnect(runner.executor(), std::move(left), client.context,
                         {.expected_identities = expected}, out.client));
  runner.Spawn(DoAccept(runner.executor(), std::move(right), server.context, out.server));
  runner.Run();
  return out;
}

}  // namespace weft::tls
