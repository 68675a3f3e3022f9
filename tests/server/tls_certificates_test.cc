#include "server/tls_certificates.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "captured_stderr.h"
#include "test_certificates.h"
#include "test_client.h"
#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TlsCertificatesTest : public ::testing::Test {
 protected:
  TlsCertificatesTest() : authority_(directory_.path(), "ca") {
    authority_.Issue(Path("a"));
    authority_.Issue(Path("b"));
  }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  static void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  std::string ErrorOf(const v1::Tls& tls) const {
    const auto certificates = TlsCertificates::Load("tls", tls);
    return certificates.ok() ? "accepted" : std::string(certificates.status().message());
  }
  // Files that a test replaces, "a" to begin with.
  absl::StatusOr<std::shared_ptr<TlsCertificates>> LoadLive() const {
    std::filesystem::copy(Path("a.crt"), Path("live.crt"));
    std::filesystem::copy(Path("a.key"), Path("live.key"));
    return TlsCertificates::Load("tls", MakeTls(Path("live")));
  }
  std::string LogOf(const std::function<void()>& action) const {
    const int file = open(Path("log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    {
      const RedirectedStderr redirected(file);
      action();
    }
    close(file);
    return ReadText(Path("log"));
  }

  TemporaryDirectory directory_;
  TestAuthority authority_;
};

TEST_F(TlsCertificatesTest, LoadsWhatFitsTogether) {
  const auto certificates = TlsCertificates::Load("tls", MakeTls(Path("a"), &authority_));
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  EXPECT_GT((*certificates)->not_after(), std::time(nullptr) + 24 * 3600);
  EXPECT_LT((*certificates)->not_after(), std::time(nullptr) + 3 * 24 * 3600);
  EXPECT_FALSE((*certificates)->refuses_files());
}

TEST_F(TlsCertificatesTest, WrongFilesAreNamed) {
  v1::Tls tls = MakeTls(Path("a"));
  tls.set_certificate_file("/nonexistent.crt");
  EXPECT_THAT(ErrorOf(tls), AllOf(HasSubstr("tls.certificate_file: "), HasSubstr("/nonexistent.crt")));
  tls.set_certificate_file(Path("a.key"));
  EXPECT_THAT(ErrorOf(tls), AllOf(HasSubstr("tls.certificate_file: "), HasSubstr(Path("a.key"))));
  // The first of two certificates is whole.
  const std::string chain = ReadText(Path("a.crt")) + ReadText(Path("ca.crt"));
  Write(Path("half.crt"), chain.substr(0, chain.size() - 100));
  tls.set_certificate_file(Path("half.crt"));
  EXPECT_THAT(ErrorOf(tls), HasSubstr("tls.certificate_file: "));
  Write(Path("half.crt"), chain);
  EXPECT_EQ(ErrorOf(tls), "accepted");

  tls = MakeTls(Path("a"));
  tls.set_key_file(Path("none.key"));
  EXPECT_THAT(ErrorOf(tls), AllOf(HasSubstr("tls.key_file: "), HasSubstr(Path("none.key"))));
  tls.set_key_file(Path("b.key"));
  EXPECT_THAT(ErrorOf(tls), AllOf(HasSubstr("tls.key_file: "), HasSubstr(Path("a.crt"))));
  ASSERT_EQ(std::system(("openssl ec -aes128 -passout pass:x -in " + Path("a.key") + " -out " + Path("locked.key") +
                         " 2>/dev/null")
                            .c_str()),
            0);
  tls.set_key_file(Path("locked.key"));
  EXPECT_THAT(ErrorOf(tls), HasSubstr("tls.key_file: "));

  tls = MakeTls(Path("a"), &authority_);
  Write(Path("empty.crt"), "");
  tls.set_client_ca_file(Path("empty.crt"));
  EXPECT_THAT(ErrorOf(tls), AllOf(HasSubstr("tls.client_ca_file: "), HasSubstr(Path("empty.crt"))));
}

TEST_F(TlsCertificatesTest, ChangesAreTakenOnlyWhole) {
  // A client that trusts one authority can tell which certificate it is shown; here the expiry can.
  authority_.Renew(Path("b"), Path("b.crt"), 0, 9);
  const auto loaded = LoadLive();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  TlsCertificates& certificates = **loaded;
  const int64_t first = certificates.not_after();

  Write(Path("live.crt"), ReadText(Path("b.crt")));  // the key is still the other one's
  certificates.Reload();
  EXPECT_TRUE(certificates.refuses_files());
  EXPECT_EQ(certificates.not_after(), first);
  Write(Path("live.key"), "");
  certificates.Reload();
  EXPECT_EQ(certificates.not_after(), first);
  std::filesystem::remove(Path("live.key"));
  certificates.Reload();
  EXPECT_TRUE(certificates.refuses_files());
  EXPECT_EQ(certificates.not_after(), first);
  Write(Path("live.key"), ReadText(Path("b.key")));
  certificates.Reload();
  EXPECT_FALSE(certificates.refuses_files());
  EXPECT_GT(certificates.not_after(), first + 5 * 24 * 3600);
}

TEST_F(TlsCertificatesTest, ACertificateThatIsNotValidNowDoesNotReplaceOneThatIs) {
  const auto loaded = LoadLive();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  TlsCertificates& certificates = **loaded;
  const int64_t first = certificates.not_after();
  const auto log_of_reload = [&](int first_day, int last_day) {
    authority_.Renew(Path("a"), Path("live.crt"), first_day, last_day);
    return LogOf([&] { certificates.Reload(); });
  };
  EXPECT_THAT(log_of_reload(-2, -1), HasSubstr("tls.certificate_file: has expired at 20"));
  EXPECT_TRUE(certificates.refuses_files());
  EXPECT_EQ(certificates.not_after(), first);
  EXPECT_THAT(log_of_reload(1, 9), HasSubstr("tls.certificate_file: is not valid before 20"));
  EXPECT_TRUE(certificates.refuses_files());
  EXPECT_EQ(certificates.not_after(), first);
  EXPECT_THAT(log_of_reload(-1, 9), HasSubstr("certificate changed"));
  EXPECT_FALSE(certificates.refuses_files());
  EXPECT_GT(certificates.not_after(), first);
}

TEST_F(TlsCertificatesTest, ACertificateThatIsNotValidIsReplacedByAnyOther) {
  for (const auto& [first_day, last_day] : {std::pair(-2, -1), std::pair(1, 2)}) {
    authority_.Renew(Path("a"), Path("a.crt"), first_day, last_day);
    absl::StatusOr<std::shared_ptr<TlsCertificates>> loaded;
    EXPECT_THAT(LogOf([&] { loaded = TlsCertificates::Load("tls", MakeTls(Path("a"))); }),
                HasSubstr("clients will refuse the certificate"));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const int64_t first = (*loaded)->not_after();
    authority_.Renew(Path("a"), Path("a.crt"), 3, 4);
    (*loaded)->Reload();
    EXPECT_FALSE((*loaded)->refuses_files());
    EXPECT_GT((*loaded)->not_after(), first);
  }
}

// As Kubernetes changes a mounted secret: names are links through ..data, which is replaced.
TEST_F(TlsCertificatesTest, ReplacedLinksAreNoticed) {
  namespace fs = std::filesystem;
  for (const char* version : {"a", "b"}) {
    fs::create_directories(Path(std::string("mount/..") + version));
    for (const char* kind : {"crt", "key"}) {
      fs::copy(Path(std::string(version) + "." + kind), Path(std::string("mount/..") + version + "/tls." + kind));
    }
  }
  fs::create_symlink("..a", Path("mount/..data"));
  for (const char* kind : {"crt", "key"}) {
    fs::create_symlink(std::string("..data/tls.") + kind, Path(std::string("mount/tls.") + kind));
  }
  const auto certificates = TlsCertificates::Load("tls", MakeTls(Path("mount/tls")));
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  (*certificates)->Watch(std::chrono::milliseconds(5));
  const int64_t first = (*certificates)->not_after();
  authority_.Renew(Path("b"), Path("mount/..b/tls.crt"), 0, 9);
  fs::create_symlink("..b", Path("mount/..data_tmp"));
  fs::rename(Path("mount/..data_tmp"), Path("mount/..data"));
  EXPECT_TRUE(WaitUntil([&] { return (*certificates)->not_after() > first + 5 * 24 * 3600; }));
}

}  // namespace
}  // namespace hilomoe
