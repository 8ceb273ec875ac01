// SPDX-License-Identifier: Apache-2.0
// The server's state machine against requests in protobuf: subscriptions, nonces, versions.
#include "xds/server/ads_stream.h"

#include "envoy/service/discovery/v3/discovery.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace weft::xds {
namespace {

namespace ds = envoy::service::discovery::v3;
using testing::ElementsAre;
using testing::IsEmpty;

class AdsStreamTest : public testing::Test {
 protected:
  void Make(bool delta) {
    options_.cache = &cache_;
    options_.on_nack = [this](const AdsNack& nack) { nacks_.push_back(nack.error); };
    stream_ = std::make_unique<AdsStream>(delta, options_, GrpcPeer{}, http::HeaderList());
  }
  void Set(const std::string& name, const std::string& bytes) {
    CacheBatch batch;
    batch.Put({"t", name, bytes});
    cache_.Apply(std::move(batch));
    stream_->OnCacheChanged({"t"});
  }
  void Remove(const std::string& name) {
    CacheBatch batch;
    batch.Remove("t", name);
    cache_.Apply(std::move(batch));
    stream_->OnCacheChanged({"t"});
  }
  void Delta(std::vector<std::string> subscribe, std::vector<std::string> unsubscribe = {},
             std::map<std::string, std::string> versions = {}, const std::string& nonce = "",
             const std::string& error = "") {
    ds::DeltaDiscoveryRequest request;
    request.set_type_url("t");
    for (auto& name : subscribe) request.add_resource_names_subscribe(name);
    for (auto& name : unsubscribe) request.add_resource_names_unsubscribe(name);
    for (auto& [name, v] : versions) (*request.mutable_initial_resource_versions())[name] = v;
    request.set_response_nonce(nonce);
    if (!error.empty()) request.mutable_error_detail()->set_message(error);
    ASSERT_TRUE(stream_->OnRequest(request.SerializeAsString()).ok());
  }
  void Full(std::vector<std::string> names, const std::string& nonce = "",
            const std::string& version = "", const std::string& error = "") {
    ds::DiscoveryRequest request;
    request.set_type_url("t");
    for (auto& name : names) request.add_resource_names(name);
    request.set_response_nonce(nonce);
    request.set_version_info(version);
    if (!error.empty()) request.mutable_error_detail()->set_message(error);
    ASSERT_TRUE(stream_->OnRequest(request.SerializeAsString()).ok());
  }
  // The next response; its nonce and version stay in nonce_ and version_. False: none is due.
  bool NextDelta() {
    names_.clear();
    removed_.clear();
    const auto bytes = stream_->NextResponse();
    if (!bytes) return false;
    ds::DeltaDiscoveryResponse response;
    EXPECT_TRUE(response.ParseFromString(*bytes));
    for (const auto& resource : response.resources()) names_.push_back(resource.name());
    for (const auto& name : response.removed_resources()) removed_.push_back(name);
    nonce_ = response.nonce();
    return true;
  }
  bool NextFull() {
    names_.clear();
    const auto bytes = stream_->NextResponse();
    if (!bytes) return false;
    ds::DiscoveryResponse response;
    EXPECT_TRUE(response.ParseFromString(*bytes));
    for (const auto& resource : response.resources()) names_.push_back(resource.value());
    nonce_ = response.nonce();
    version_ = response.version_info();
    return true;
  }

  ResourceCache cache_;
  ServerOptions options_;
  std::vector<std::string> nacks_, names_, removed_;
  std::string nonce_, version_;
  std::unique_ptr<AdsStream> stream_;
};

// What a client makes us keep is bounded, whichever way it brings it: nobody is known on some
// streams.
TEST_F(AdsStreamTest, NamesOfAStreamAreBounded) {
  options_.max_names = 3;
  options_.max_name_bytes = 100;
  for (const std::string& name : {std::string("d"), std::string(99, 'x')}) {
    SCOPED_TRACE(name);
    Make(true);
    Delta({"a", "b"});
    Delta({"a", "b", "*"}, {"b"});
    ds::DeltaDiscoveryRequest request;
    request.set_type_url("t");
    if (name.size() == 1) request.add_resource_names_subscribe("c");
    request.add_resource_names_subscribe("b");
    request.add_resource_names_subscribe(name);
    const absl::Status status = stream_->OnRequest(request.SerializeAsString());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(std::string(status.message()).find("than 3,"), std::string::npos) << status;
  }
  Make(true);
  ds::DeltaDiscoveryRequest versions;
  versions.set_type_url("t");
  for (const char* name : {"a", "b", "c", "d"}) {
    (*versions.mutable_initial_resource_versions())[name] = "1";
  }
  EXPECT_FALSE(stream_->OnRequest(versions.SerializeAsString()).ok());
  Make(false);
  Full({"a", "b", "c"});
  ds::DiscoveryRequest full;
  full.set_type_url("t");
  for (const char* name : {"a", "b", "c", "d"}) full.add_resource_names(name);
  EXPECT_EQ(stream_->OnRequest(full.SerializeAsString()).code(),
            absl::StatusCode::kResourceExhausted);
}

// A wildcard's resources are ours: a client that tells their versions again brings nothing.
TEST_F(AdsStreamTest, WhatTheCacheHasDoesNotCount) {
  options_.max_names = 3;
  Make(true);
  for (const char* name : {"a", "b", "c", "d", "e"}) Set(name, "1");
  Delta({}, {}, {{"a", "1"}, {"b", "1"}, {"c", "1"}, {"d", "1"}, {"e", "1"}});
  Delta({"a", "b"});
}

TEST_F(AdsStreamTest, DeltaWildcardAndOneResponseAtATime) {
  Make(true);
  Set("a", "1");
  Delta({"*"});
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("a"));
  Set("b", "1");
  Set("a", "2");
  EXPECT_FALSE(NextDelta()) << "the first one is not acknowledged";
  Delta({}, {}, {}, nonce_);
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("a", "b"));
  Delta({}, {}, {}, nonce_);
  EXPECT_FALSE(NextDelta());
  Remove("a");
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(removed_, ElementsAre("a"));
}

TEST_F(AdsStreamTest, AnEmptyFirstRequestMeansEverythingAndIsAnsweredEvenWithNothing) {
  Make(true);
  Delta({});
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, IsEmpty());
  Delta({}, {}, {}, nonce_);
  Set("a", "1");
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("a"));
}

TEST_F(AdsStreamTest, KnownVersionsAreNotSentAgainAndLostOnesAreTold) {
  Make(true);
  Set("a", "1");
  Set("b", "1");
  Delta({"*"}, {}, {{"a", ContentVersion("1")}, {"b", "older"}, {"gone", "x"}});
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("b"));
  EXPECT_THAT(removed_, ElementsAre("gone"));
}

TEST_F(AdsStreamTest, NamesThatDoNotExistAreToldOnceAndSentWhenTheyDo) {
  Make(true);
  Delta({"a"});
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(removed_, ElementsAre("a"));
  Delta({}, {}, {}, nonce_);
  EXPECT_FALSE(NextDelta());
  Set("other", "1");
  EXPECT_FALSE(NextDelta());
  Set("a", "1");
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("a"));
  Delta({"a"}, {}, {}, nonce_);
  ASSERT_TRUE(NextDelta()) << "asking once more brings it once more";
  EXPECT_THAT(names_, ElementsAre("a"));
}

TEST_F(AdsStreamTest, AStaleNonceAcknowledgesNothingButChangesNames) {
  Make(true);
  Set("a", "1");
  Set("b", "1");
  Delta({"a"});
  ASSERT_TRUE(NextDelta());
  const std::string good = nonce_;
  Delta({"b"}, {}, {}, "stale", "not about you");
  EXPECT_THAT(nacks_, IsEmpty());
  EXPECT_FALSE(NextDelta());
  Delta({}, {}, {}, good);
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("b"));
}

TEST_F(AdsStreamTest, ARefusedVersionIsNotSentAgain) {
  Make(true);
  Set("a", "1");
  Delta({"*"});
  ASSERT_TRUE(NextDelta());
  Delta({}, {}, {}, nonce_, "bad");
  EXPECT_THAT(nacks_, ElementsAre("bad"));
  EXPECT_FALSE(NextDelta());
  Set("a", "2");
  EXPECT_TRUE(NextDelta());
}

TEST_F(AdsStreamTest, UnsubscribingBesideTheWildcardIsAnswered) {
  Make(true);
  Set("a", "1");
  Delta({"*", "a"});
  ASSERT_TRUE(NextDelta());
  Delta({}, {"a"}, {}, nonce_);
  ASSERT_TRUE(NextDelta());
  EXPECT_THAT(names_, ElementsAre("a")) << "it still gets it";
  Delta({}, {"*"}, {}, nonce_);
  Set("a", "2");
  EXPECT_FALSE(NextDelta());
}

TEST_F(AdsStreamTest, LargeStatesComeInParts) {
  options_.max_response_bytes = 1000;
  Make(true);
  for (int i = 0; i < 10; ++i) Set(std::to_string(i), std::string(400, 'x'));
  Delta({"*"});
  std::set<std::string> all;
  for (int parts = 0; NextDelta(); ++parts) {
    ASSERT_LT(parts, 10);
    EXPECT_LE(names_.size(), 2u);
    all.insert(names_.begin(), names_.end());
    Delta({}, {}, {}, nonce_);
  }
  EXPECT_EQ(all.size(), 10u);
}

TEST_F(AdsStreamTest, FullStateVersionsSurviveTheStream) {
  Make(false);
  Set("a", "A");
  Full({});
  ASSERT_TRUE(NextFull());
  EXPECT_THAT(names_, ElementsAre("A"));
  const std::string version = version_;
  Make(false);
  Full({}, "", version);
  EXPECT_FALSE(NextFull()) << "it has that already";
  Set("b", "B");
  ASSERT_TRUE(NextFull());
  EXPECT_THAT(names_, ElementsAre("A", "B"));
}

TEST_F(AdsStreamTest, FullStateNamesStaleNoncesAndRefusals) {
  Make(false);
  Set("a", "A");
  Set("b", "B");
  Full({"a"});
  ASSERT_TRUE(NextFull());
  EXPECT_THAT(names_, ElementsAre("A"));
  Full({"a", "b"}, "stale");
  EXPECT_FALSE(NextFull());
  Full({"a", "b"}, nonce_, version_);
  ASSERT_TRUE(NextFull());
  EXPECT_THAT(names_, ElementsAre("A", "B"));
  Full({"a", "b"}, nonce_, "", "bad");
  EXPECT_THAT(nacks_, ElementsAre("bad"));
  EXPECT_FALSE(NextFull()) << "no loop of the same refused version";
  Full({}, nonce_, "");
  ASSERT_TRUE(NextFull());
  EXPECT_THAT(names_, IsEmpty()) << "after a name, an empty list means none";
}

TEST_F(AdsStreamTest, BadRequestsEndTheStream) {
  for (bool delta : {true, false}) {
    Make(delta);
    EXPECT_FALSE(stream_->OnRequest("\xff\xff").ok());
    EXPECT_FALSE(stream_->OnRequest("").ok()) << "no type";
  }
}

TEST(ResourceCache, TellsWhatReallyChanged) {
  ResourceCache cache;
  std::vector<std::set<std::string>> heard;
  const uint64_t id = cache.AddListener([&](const auto& types) { heard.push_back(types); });
  cache.Replace({"t", "u"}, {{"t", "a", "1"}, {"u", "b", "1"}});
  cache.Replace({"t", "u"}, {{"t", "a", "1"}, {"u", "b", "2"}});
  cache.Replace({"t", "u"}, {{"u", "b", "2"}});
  cache.Replace({"t", "u"}, {{"u", "b", "2"}});
  ASSERT_EQ(heard.size(), 3u);
  EXPECT_EQ(heard[1], (std::set<std::string>{"u"}));
  EXPECT_EQ(heard[2], (std::set<std::string>{"t"}));
  EXPECT_EQ(cache.size(), 1u);
  cache.RemoveListener(id);
  cache.Touch({"t"});
  EXPECT_EQ(heard.size(), 3u);
}

}  // namespace
}  // namespace weft::xds
