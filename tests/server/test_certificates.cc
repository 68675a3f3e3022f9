#include "test_certificates.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace hilomoe {
namespace {

const char kNewKey[] = " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes ";

void Run(const std::string& command) { EXPECT_EQ(std::system((command + " 2>/dev/null").c_str()), 0) << command; }

}  // namespace

TestAuthority::TestAuthority(const std::string& directory, const std::string& name)
    : certificate_path_(directory + "/" + name + ".crt"), key_path_(directory + "/" + name + ".key") {
  Run("openssl req -x509" + std::string(kNewKey) + "-days 2 -subj /CN=" + name + " -keyout " + key_path_ + " -out " +
      certificate_path_);
}

void TestAuthority::Issue(const std::string& prefix) const {
  Run("openssl req" + std::string(kNewKey) +
      "-subj /CN=hilomoe -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout " + prefix + ".key -out " + prefix +
      ".csr");
  Renew(prefix, prefix + ".crt", 0, 2);
}

// `openssl x509 -req` knows no beginning.
void TestAuthority::Renew(const std::string& prefix, const std::string& certificate_path, int first_day,
                          int last_day) const {
  const std::string config = prefix + ".cnf", database = prefix + ".index";
  std::ofstream(config) << "[ca]\ndefault_ca = ca\ndatabase = " << database
                        << "\nunique_subject = no\nrand_serial = yes\ndefault_md = sha256\ncopy_extensions = copyall\n"
                           "policy = policy\n[policy]\ncommonName = supplied\n";
  std::ofstream(database).close();
  const auto date = [now = absl::Now()](int day) {
    return absl::FormatTime("%Y%m%d%H%M%SZ", now + absl::Hours(24 * day), absl::UTCTimeZone());
  };
  Run("openssl ca -batch -notext -config " + config + " -startdate " + date(first_day) + " -enddate " + date(last_day) +
      " -cert " + certificate_path_ + " -keyfile " + key_path_ + " -outdir " +
      std::filesystem::path(prefix).parent_path().string() + " -in " + prefix + ".csr -out " + certificate_path);
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

v1::Tls MakeTls(const std::string& prefix, const TestAuthority* client_authority) {
  v1::Tls tls;
  tls.set_certificate_file(prefix + ".crt");
  tls.set_key_file(prefix + ".key");
  if (client_authority != nullptr) tls.set_client_ca_file(client_authority->certificate_path());
  return tls;
}

std::shared_ptr<grpc::ChannelCredentials> MakeTlsCredentials(const std::string& roots, const std::string& prefix) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = roots;
  if (!prefix.empty()) {
    options.pem_cert_chain = ReadText(prefix + ".crt");
    options.pem_private_key = ReadText(prefix + ".key");
  }
  return grpc::SslCredentials(options);
}

}  // namespace hilomoe
