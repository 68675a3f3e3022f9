#include "test_certificates.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

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
  Run("openssl x509 -req -days 2 -copy_extensions copyall -CAcreateserial -in " + prefix + ".csr -CA " +
      certificate_path_ + " -CAkey " + key_path_ + " -out " + prefix + ".crt");
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
