// Certificates made on the spot, with the program openssl.
#ifndef HILOMOE_TESTS_SERVER_TEST_CERTIFICATES_H_
#define HILOMOE_TESTS_SERVER_TEST_CERTIFICATES_H_

#include <memory>
#include <string>

#include "grpcpp/security/credentials.h"
#include "hilomoe/v1/server_config.pb.h"

namespace hilomoe {

// A certificate authority whose files lie in `directory`.
class TestAuthority {
 public:
  TestAuthority(const std::string& directory, const std::string& name);

  // Writes <prefix>.crt and <prefix>.key: a certificate for 127.0.0.1 and localhost, good for servers and clients.
  void Issue(const std::string& prefix) const;
  // The same for the key of an issued certificate, <prefix>.key, valid from `first_day` to `last_day` after now.
  void Renew(const std::string& prefix, const std::string& certificate_path, int first_day, int last_day) const;
  const std::string& certificate_path() const { return certificate_path_; }

 private:
  std::string certificate_path_, key_path_;
};

std::string ReadText(const std::string& path);

// <prefix>.crt and <prefix>.key, and clients of `client_authority` if there is one.
v1::Tls MakeTls(const std::string& prefix, const TestAuthority* client_authority = nullptr);

// Of a client that trusts the authorities in `roots` (PEM) and, if given, shows <prefix>.crt.
std::shared_ptr<grpc::ChannelCredentials> MakeTlsCredentials(const std::string& roots, const std::string& prefix = "");

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_SERVER_TEST_CERTIFICATES_H_
