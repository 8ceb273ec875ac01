// SPDX-License-Identifier: Apache-2.0
// weft-proxy and the real weft-keyd, started as weft-agent starts them and with traffic between:
// what each may do, what it holds, and where the private key is. Needs root.
#include <openssl/ec.h>
#include <openssl/mem.h>
#include <sys/stat.h>

#include <algorithm>
#include <bitset>

#include "control/identity/ca.h"
#include "proxy/ipc/keyd_control.h"
#include "tests/integration/hostile/process_view.h"
#include "tests/integration/proxy/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr char kProxyUid[] = "64997";
constexpr char kKeydUid[] = "64996";

class Privileges : public Mesh {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "needs root: both processes change their uid";
    // Only what is given on purpose is inherited, as from weft-agent; whoever started the test may
    // have left us more.
    for (const auto& [number, target] : Descriptors(getpid())) {
      if (number > 2) fcntl(number, F_SETFD, FD_CLOEXEC);
    }
    control_path_ = directory_ + "/keyd.sock";
    keyd_pid_ = fork();
    if (keyd_pid_ == 0) {
      execl(WEFT_KEYD, WEFT_KEYD, "--control", control_path_.c_str(), "--uid", kKeydUid, nullptr);
      _exit(127);
    }
    ASSERT_TRUE(RunUntil([&] {
      auto connected = ipc::KeydControl::Connect(control_path_);
      if (connected.ok()) control_.emplace(std::move(*connected));
      return control_.has_value() && control_->StatusJson().ok();
    }));
    auto key = control_->Generate(kBob);
    ASSERT_TRUE(key.ok()) << key.status();
    auto ca = identity::CertificateAuthority::Create("cluster.local");
    ASSERT_TRUE(ca.ok());
    auto chain = (*ca)->SignCsr(key->csr_pem, kBob, std::chrono::seconds(3600));
    ASSERT_TRUE(chain.ok()) << chain.status();
    ASSERT_TRUE(control_->Grant(kBob, key->key_id, 1).ok());
    certificate_.key_id = key->key_id;
    certificate_.chain = {tls::CertificatesFromPem(chain->pem[0])->front()};
    bundle_.roots.push_back((*ca)->root_der());
    auto context = tls::TlsContext::Mesh({.identity = kAlice,
                                          .chain_der = {peer_cert_.der()},
                                          .trust = {{"cluster.local", bundle_.roots}},
                                          .signer = peer_signer_.get()});
    ASSERT_TRUE(context.ok());
    peer_.emplace(io_, *context);
    Put(local_, workload_, certificate_, bundle_);
    StartMesh({"--sandbox", "--uid", kProxyUid, "--gid", kProxyUid});
    ASSERT_TRUE(Listening());
  }
  void TearDown() override {
    if (keyd_pid_ <= 0) return;
    kill(keyd_pid_, SIGTERM);
    waitpid(keyd_pid_, nullptr, 0);
    unlink(control_path_.c_str());
  }
  int KeydChannel() override {
    auto fd = control_->NewChannel(1);
    EXPECT_TRUE(fd.ok()) << fd.status();
    return fd.value_or(-1);
  }
  void Handshakes(int count) {
    for (int i = 0; i < count; ++i) {
      auto dialed = Await(peer_->Dial({.source_identity = kAlice,
                                       .source = *IpAddress::Parse("127.0.0.1"),
                                       .destination_identity = kBob,
                                       .destination = ip_},
                                      nullptr, 5000ms));
      ASSERT_NE(dialed.stream, nullptr) << ReasonName(dialed.reason);
      EXPECT_EQ(dialed.peer_identity, kBob);
    }
  }

  std::string control_path_;
  pid_t keyd_pid_ = -1;
  std::optional<ipc::KeydControl> control_;
  std::optional<PeerDialer> peer_;
};

TEST_F(Privileges, AreNone) {
  Handshakes(1);
  const std::pair<pid_t, std::string> processes[] = {{pid_, kProxyUid}, {keyd_pid_, kKeydUid}};
  for (const auto& [pid, uid] : processes) {
    SCOPED_TRACE(ProcStatus(pid, "Name"));
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      EXPECT_EQ(ProcStatus(pid, set), "0000000000000000") << set;
    }
    EXPECT_EQ(ProcStatus(pid, "Uid"), uid + "\t" + uid + "\t" + uid + "\t" + uid);
    EXPECT_EQ(ProcStatus(pid, "Gid"), uid + "\t" + uid + "\t" + uid + "\t" + uid);
    EXPECT_EQ(ProcStatus(pid, "Groups").find_first_not_of(" \t\n"), std::string::npos);
    EXPECT_EQ(ProcStatus(pid, "NoNewPrivs"), "1");
    EXPECT_EQ(ProcStatus(pid, "Seccomp"), "2");
    EXPECT_NE(ProcFile(pid, "limits").find("Max core file size        0                    0"),
              std::string::npos);
    // Not dumpable: its files in /proc are root's.
    struct stat info = {};
    ASSERT_EQ(stat(("/proc/" + std::to_string(pid) + "/mem").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0u);
  }
}

TEST_F(Privileges, MemoryIsClosedToTheSameUser) {
  const std::pair<pid_t, std::string> processes[] = {{pid_, kProxyUid}, {keyd_pid_, kKeydUid}};
  for (const auto& [pid, uid] : processes) {
    const std::string path = "/proc/" + std::to_string(pid) + "/mem";
    const auto id = static_cast<uid_t>(std::stoul(uid));
    const pid_t child = fork();
    if (child == 0) {
      if (setresgid(id, id, id) != 0 || setresuid(id, id, id) != 0) _exit(2);
      _exit(open(path.c_str(), O_RDONLY) >= 0 ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "user " << uid << " reads " << path;
  }
}

// Sockets, what waits for them, and shared memory of its own; no file, no directory, no netns, no
// BPF.
TEST_F(Privileges, DescriptorsAreOfExpectedKinds) {
  Handshakes(3);
  const char* const reports = getenv("WEFT_SANITIZER_REPORTS");  // sanitizer builds only
  const char* const kinds[] = {reports != nullptr ? reports : "socket:[",
                               "socket:[",
                               "anon_inode:[eventpoll]",
                               "anon_inode:[timerfd]",
                               "anon_inode:[eventfd]",
                               "/memfd:weft",
                               "/dev/null"};
  for (pid_t pid : {pid_, keyd_pid_}) {
    const auto descriptors = Descriptors(pid);
    EXPECT_GT(descriptors.size(), 3u);
    std::map<std::string, int> ends;
    for (const auto& [number, target] : descriptors) ends[target] += number > 2;
    for (const auto& [number, target] : descriptors) {
      // To itself, for signals; a pipe to somebody else has one end here.
      if (target.starts_with("pipe:[") && ends[target] == 2) continue;
      if (number <= 2 || target.empty()) continue;  // the test's own; just closed
      EXPECT_TRUE(std::any_of(std::begin(kinds), std::end(kinds),
                              [&](const char* kind) { return target.starts_with(kind); }))
          << ProcStatus(pid, "Name") << ": " << number << " is " << target;
    }
  }
}

// The private scalar of `chain_der`'s key, both byte orders, if it is in the memory of the process.
std::vector<std::string> FindPrivateKey(pid_t pid, const std::string& chain_der) {
  auto at = reinterpret_cast<const uint8_t*>(chain_der.data());
  bssl::UniquePtr<X509> cert(d2i_X509(nullptr, &at, static_cast<long>(chain_der.size())));
  bssl::UniquePtr<EVP_PKEY> key(X509_get_pubkey(cert.get()));
  const EC_KEY* ec = EVP_PKEY_get0_EC_KEY(key.get());
  const EC_GROUP* group = EC_KEY_get0_group(ec);
  bssl::UniquePtr<EC_POINT> point(EC_POINT_new(group));
  std::vector<std::string> found;
  ForEachWritable(pid, [&](const std::vector<uint8_t>& memory) {
    for (size_t i = 0; i + 32 <= memory.size() && found.empty(); i += 8) {
      std::string bytes(reinterpret_cast<const char*>(&memory[i]), 32);
      std::bitset<256> values;
      for (char c : bytes) values.set(static_cast<uint8_t>(c));
      if (values.count() < 20) continue;  // 32 random bytes have 30
      for (bool reversed : {false, true}) {
        std::string big = bytes;
        if (reversed) std::reverse(big.begin(), big.end());
        bssl::UniquePtr<BIGNUM> scalar(
            BN_bin2bn(reinterpret_cast<const uint8_t*>(big.data()), big.size(), nullptr));
        if (!EC_POINT_mul(group, point.get(), scalar.get(), nullptr, nullptr, nullptr)) continue;
        if (EC_POINT_cmp(group, point.get(), EC_KEY_get0_public_key(ec), nullptr) != 0) continue;
        found.push_back(big);
        std::reverse(big.begin(), big.end());
        found.push_back(big);
      }
    }
  });
  return found;
}

TEST_F(Privileges, ThePrivateKeyIsInKeydOnly) {
  Handshakes(100);
  auto status = control_->StatusJson();
  ASSERT_TRUE(status.ok());
  EXPECT_NE(status->find("\"signatures\":100"), std::string::npos) << *status;
  const std::vector<std::string> key = FindPrivateKey(keyd_pid_, certificate_.chain[0]);
  ASSERT_EQ(key.size(), 2u) << "not even found where it must be";
  size_t looked_at = 0;
  ForEachWritable(pid_, [&](const std::vector<uint8_t>& memory) {
    looked_at += memory.size();
    for (const std::string& form : key) {
      EXPECT_EQ(std::search(memory.begin(), memory.end(), form.begin(), form.end(),
                            [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }),
                memory.end());
    }
  });
  EXPECT_GT(looked_at, 1u << 20);
}

}  // namespace
}  // namespace weft::test
