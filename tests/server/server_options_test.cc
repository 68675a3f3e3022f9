#include "server/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <vector>

#include "test_model.h"

namespace hilomoe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

absl::StatusOr<ServerOptions> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "hilomoe-server");
  return ParseServerOptions(static_cast<int>(arguments.size()), arguments.data());
}

std::string ErrorOf(const std::vector<const char*>& arguments) {
  const auto options = Parse(arguments);
  return options.ok() ? "accepted" : std::string(options.status().message());
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) : path_(directory_.path() + "/server.textproto") {
    std::ofstream(path_) << text;
  }
  std::string flag() const { return "--config=" + path_; }
  std::string At(int line) const { return path_ + ":" + std::to_string(line) + ":"; }

 private:
  TemporaryDirectory directory_;
  std::string path_;
};

TEST(ServerOptionsTest, DefaultsAreTheSchemas) {
  const auto options = Parse({"--model_repository=/models"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->config.model_repository(), "/models");
  EXPECT_EQ(options->config.listen_address(), "127.0.0.1:8500");
  EXPECT_EQ(options->config.max_candidates(), 10000);
  EXPECT_EQ(options->config.split_candidates(), 128);
  EXPECT_TRUE(options->port_file.empty());
  EXPECT_TRUE(options->help.empty());
}

TEST(ServerOptionsTest, EveryConfigFieldHasAFlagThatWins) {
  const ConfigFile file("max_candidates: 7\ndrain_ms: 8\nmodel_repository: '/a'\n");
  const auto options =
      Parse({file.flag().c_str(), "--model_repository", "/b", "--listen_address=[::]:1", "--metrics_address=h:2",
             "--evaluation_threads=3", "--max_request_bytes=4096", "--max_candidates=5", "--max_queued_candidates=6",
             "--drain_deadline_ms=9", "--split_candidates=10", "--model_memory=MMAP", "--port_file=/p"});
  ASSERT_TRUE(options.ok()) << options.status();
  v1::ServerConfig expected;
  expected.set_model_repository("/b");
  expected.set_listen_address("[::]:1");
  expected.set_metrics_address("h:2");
  expected.set_evaluation_threads(3);
  expected.set_max_request_bytes(4096);
  expected.set_max_candidates(5);
  expected.set_max_queued_candidates(6);
  expected.set_drain_ms(8);
  expected.set_drain_deadline_ms(9);
  expected.set_split_candidates(10);
  expected.set_model_memory(v1::ServerConfig::MMAP);
  EXPECT_EQ(options->config.SerializeAsString(), expected.SerializeAsString());
  EXPECT_EQ(options->port_file, "/p");

  // Whatever else there is has one, too.
  const auto* type = v1::ServerConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* field = type->field(i);
    const bool is_single = !field->is_repeated() && field->message_type() == nullptr;
    EXPECT_THAT(ErrorOf({("--" + field->name() + "=?").c_str(), "--no_such_flag=1"}),
                HasSubstr(is_single ? "no_such_flag" : "unknown flag '--" + field->name() + "'"));
  }
}

TEST(ServerOptionsTest, EverySettingIsDescribedAndItsDefaultIsAllowed) {
  std::function<void(const google::protobuf::Descriptor*)> check = [&check](const auto* type) {
    for (int i = 0; i < type->field_count(); ++i) {
      const auto* field = type->field(i);
      const v1::Setting& setting = field->options().GetExtension(v1::setting);
      EXPECT_THAT(setting.help(), Not(IsEmpty())) << field->full_name();
      if (field->message_type() != nullptr) check(field->message_type());
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_UINT32) continue;
      EXPECT_TRUE(setting.has_most()) << field->full_name();
      EXPECT_GE(field->default_value_uint32(), setting.least()) << field->full_name();
      EXPECT_LE(field->default_value_uint32(), setting.most()) << field->full_name();
    }
  };
  check(v1::ServerConfig::descriptor());
}

TEST(ServerOptionsTest, WrongFlagsAreNamed) {
  EXPECT_THAT(ErrorOf({"--max_candidate=5"}), HasSubstr("--max_candidate'"));
  EXPECT_THAT(ErrorOf({"serve"}), HasSubstr("'serve'"));
  EXPECT_THAT(ErrorOf({"--max_candidates"}), HasSubstr("--max_candidates: a value is missing"));
  EXPECT_THAT(ErrorOf({"--max_candidates=many"}), AllOf(HasSubstr("--max_candidates"), HasSubstr("'many'")));
  EXPECT_THAT(ErrorOf({"--max_candidates=-1"}), HasSubstr("--max_candidates"));
  EXPECT_THAT(ErrorOf({"--drain_ms=4294967296"}), HasSubstr("--drain_ms"));
  EXPECT_THAT(ErrorOf({"--model_memory=DISK"}),
              AllOf(HasSubstr("--model_memory"), HasSubstr("'DISK'"), HasSubstr("MMAP")));
  // A flag of a library is not one of the server.
  EXPECT_THAT(ErrorOf({"--undefok=x"}), HasSubstr("--undefok"));
  EXPECT_THAT(ErrorOf({"--listen_address"}), HasSubstr("--listen_address: a value is missing"));
}

TEST(ServerOptionsTest, ImpossibleValuesAreNamed) {
  const char* const root = "--model_repository=/models";
  EXPECT_THAT(ErrorOf({}), HasSubstr("model_repository"));
  EXPECT_THAT(ErrorOf({root, "--max_candidates=0"}), HasSubstr("--max_candidates: must be from 1"));
  EXPECT_THAT(ErrorOf({root, "--max_request_bytes=10"}), HasSubstr("--max_request_bytes: must be from 1024"));
  EXPECT_THAT(ErrorOf({root, "--max_request_bytes=3000000000"}), HasSubstr("--max_request_bytes"));
  EXPECT_THAT(ErrorOf({root, "--evaluation_threads=5000"}), HasSubstr("--evaluation_threads: must be from 0 to 1024"));
  EXPECT_THAT(ErrorOf({root, "--drain_ms=4000000000"}), HasSubstr("--drain_ms"));
  EXPECT_THAT(ErrorOf({root, "--split_candidates=4000000000"}), HasSubstr("--split_candidates: must be from 0"));
  EXPECT_THAT(ErrorOf({root, "--drain_deadline_ms=4000000000"}), HasSubstr("--drain_deadline_ms"));
  EXPECT_THAT(ErrorOf({root, "--metrics_address=127.0.0.1:8500"}), HasSubstr("--metrics_address: must differ"));
  EXPECT_EQ(ErrorOf({root, "--metrics_address=127.0.0.1:0", "--listen_address=127.0.0.1:0"}), "accepted");
  for (const char* address : {"--listen_address=8500", "--listen_address=:8500", "--listen_address=h:",
                              "--listen_address=h:65536", "--listen_address=h:-1", "--listen_address=::1:8500"}) {
    EXPECT_THAT(ErrorOf({root, address}), HasSubstr("--listen_address: ")) << address;
  }
}

TEST(ServerOptionsTest, AddressesAreTcpOrUnixAndDiffer) {
  const char* const root = "--model_repository=/models";
  EXPECT_EQ(ErrorOf({root, "--listen_address=unix:/run/hilomoe.sock", "--admin_address=unix:/run/admin.sock",
                     "--probe_address=0.0.0.0:8503"}),
            "accepted");
  EXPECT_THAT(ErrorOf({root, "--listen_address=unix:hilomoe.sock"}), HasSubstr("--listen_address: "));
  EXPECT_THAT(ErrorOf({root, ("--probe_address=unix:/" + std::string(107, 'x')).c_str()}),
              HasSubstr("--probe_address: "));
  EXPECT_THAT(ErrorOf({root, "--metrics_address=unix:/run/metrics.sock"}), HasSubstr("--metrics_address: "));
  EXPECT_THAT(ErrorOf({root, "--admin_address=h"}), HasSubstr("--admin_address: "));
  EXPECT_THAT(ErrorOf({root, "--probe_address=127.0.0.1:8500"}),
              HasSubstr("--probe_address: must differ from listen_address"));
  EXPECT_THAT(ErrorOf({root, "--admin_address=127.0.0.1:1", "--probe_address=127.0.0.1:1"}),
              HasSubstr("--probe_address: must differ from admin_address"));
}

TEST(ServerOptionsTest, AnAdminPortNeedsAuthentication) {
  const char* const root = "--model_repository=/models";
  for (const char* local : {"127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/admin.sock"}) {
    EXPECT_EQ(ErrorOf({root, (std::string("--admin_address=") + local).c_str()}), "accepted") << local;
  }
  for (const char* open : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1", "128.0.0.1:1"}) {
    EXPECT_THAT(ErrorOf({root, (std::string("--admin_address=") + open).c_str()}),
                AllOf(HasSubstr("--admin_address: "), HasSubstr("admin_tls")))
        << open;
  }
  const std::string pair = "certificate_file: 'c' key_file: 'k'";
  const ConfigFile mutual("admin_address: '0.0.0.0:1'\nadmin_tls { " + pair + " client_ca_file: 'a' }\n");
  EXPECT_EQ(ErrorOf({root, mutual.flag().c_str()}), "accepted");
  const ConfigFile one_sided("admin_address: '0.0.0.0:1'\nadmin_tls { " + pair + " }\n");
  EXPECT_THAT(ErrorOf({root, one_sided.flag().c_str()}),
              AllOf(HasSubstr(one_sided.At(2)), HasSubstr("admin_tls.client_ca_file: ")));
  const ConfigFile optional("admin_address: '0.0.0.0:1'\nadmin_tls { " + pair +
                            " client_ca_file: 'a'\nrequire_client_certificate: false }\n");
  EXPECT_THAT(ErrorOf({root, optional.flag().c_str()}),
              AllOf(HasSubstr(optional.At(3)), HasSubstr("admin_tls.require_client_certificate: ")));
  const ConfigFile alone("admin_tls { " + pair + " client_ca_file: 'a' }\n");
  EXPECT_THAT(ErrorOf({root, alone.flag().c_str()}), AllOf(HasSubstr(alone.At(1)), HasSubstr("admin_tls: ")));
  // The file and a flag together.
  EXPECT_EQ(ErrorOf({root, alone.flag().c_str(), "--admin_address=0.0.0.0:1"}), "accepted");
  EXPECT_THAT(ErrorOf({root, one_sided.flag().c_str(), "--admin_address=127.0.0.1:1"}), HasSubstr(one_sided.At(2)));
  const ConfigFile local("admin_address: '127.0.0.1:1'");
  EXPECT_THAT(ErrorOf({root, local.flag().c_str(), "--admin_address=0.0.0.0:1"}), HasSubstr("--admin_address: "));
}

TEST(ServerOptionsTest, IncompleteTlsIsRefused) {
  const char* const root = "--model_repository=/models";
  const auto error = [root](const std::string& tls) {
    return ErrorOf({root, ConfigFile("tls {" + tls + "}").flag().c_str()});
  };
  EXPECT_EQ(error("certificate_file: 'c' key_file: 'k'"), "accepted");
  EXPECT_EQ(error("certificate_file: 'c' key_file: 'k' client_ca_file: 'a'"), "accepted");
  EXPECT_THAT(error("key_file: 'k'"), HasSubstr("tls.certificate_file: "));
  EXPECT_THAT(error("certificate_file: 'c'"), HasSubstr("tls.key_file: "));
  EXPECT_THAT(error("certificate_file: 'c' key_file: 'k' client_ca_file: ''"), HasSubstr("tls.client_ca_file: "));
  EXPECT_THAT(error("certificate_file: 'c' key_file: 'k' require_client_certificate: true"),
              HasSubstr("tls.require_client_certificate: "));
}

TEST(ServerOptionsTest, LimitsAreChecked) {
  const char* const root = "--model_repository=/models";
  EXPECT_THAT(ErrorOf({root, "--keepalive_ms=0"}), HasSubstr("--keepalive_ms: must be from 1000"));
  EXPECT_THAT(ErrorOf({root, "--max_connection_age_grace_ms=0"}), HasSubstr("--max_connection_age_grace_ms: "));
  EXPECT_THAT(ErrorOf({root, "--handshake_timeout_ms=0"}), HasSubstr("--handshake_timeout_ms: "));
  EXPECT_THAT(ErrorOf({root, "--max_streams_per_connection=0"}), HasSubstr("--max_streams_per_connection: "));
  EXPECT_THAT(ErrorOf({root, "--max_header_bytes=1"}), HasSubstr("--max_header_bytes: "));
  EXPECT_THAT(ErrorOf({root, "--max_grpc_bytes=1"}), HasSubstr("--max_grpc_bytes: "));
  EXPECT_THAT(ErrorOf({root, "--max_grpc_bytes=20000000", "--max_request_bytes=20000001"}),
              HasSubstr("--max_grpc_bytes: must be at least max_request_bytes"));
  EXPECT_EQ(ErrorOf({root, "--max_connection_age_ms=0", "--max_connection_idle_ms=0"}), "accepted");
}

TEST(ServerOptionsTest, FileAndFlagsHaveToFitTogether) {
  const char* const root = "--model_repository=/models";
  // Who is told to change: the setting that the error is of, wherever it stands.
  const ConfigFile small("\nmax_grpc_bytes: 20000000\n");
  EXPECT_EQ(ErrorOf({root, small.flag().c_str()}), "accepted");
  EXPECT_THAT(ErrorOf({root, small.flag().c_str(), "--max_request_bytes=20000001"}),
              HasSubstr(small.At(2) + " max_grpc_bytes: must be at least max_request_bytes, 20000001"));
  const ConfigFile large("max_request_bytes: 20000001\n");
  EXPECT_THAT(ErrorOf({root, large.flag().c_str(), "--max_grpc_bytes=20000000"}),
              StartsWith("--max_grpc_bytes: must be at least max_request_bytes, 20000001"));
  // What does not fit within the file may be made to fit.
  const ConfigFile same("listen_address: '127.0.0.1:1'\nprobe_address: '127.0.0.1:1'\n");
  EXPECT_THAT(ErrorOf({root, same.flag().c_str()}), HasSubstr(same.At(2) + " probe_address: must differ"));
  EXPECT_EQ(ErrorOf({root, same.flag().c_str(), "--listen_address=127.0.0.1:2"}), "accepted");
}

TEST(ServerOptionsTest, ConfigErrorsNameFileLineAndField) {
  const ConfigFile unknown("drain_ms: 1\nmax_candidate: 5\n");
  EXPECT_THAT(ErrorOf({unknown.flag().c_str()}), AllOf(HasSubstr(unknown.At(2)), HasSubstr("max_candidate")));
  const ConfigFile impossible("model_repository: '/m'\n\nmax_candidates: 0\n");
  EXPECT_THAT(ErrorOf({impossible.flag().c_str()}), AllOf(HasSubstr(impossible.At(3)), HasSubstr("max_candidates: ")));
  // A wrong file stays wrong, though a flag would win.
  EXPECT_THAT(ErrorOf({impossible.flag().c_str(), "--max_candidates=5"}), HasSubstr(impossible.At(3)));
  EXPECT_THAT(ErrorOf({"--config=/nonexistent/server.textproto"}), HasSubstr("/nonexistent/server.textproto"));
}

TEST(ServerOptionsTest, HelpListsEveryFieldWithItsDefault) {
  const auto options = Parse({"--help"});
  ASSERT_TRUE(options.ok());
  const auto* type = v1::ServerConfig::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const bool is_flag = !type->field(i)->is_repeated() && type->field(i)->message_type() == nullptr;
    EXPECT_THAT(options->help, HasSubstr((is_flag ? "  --" : "  ") + type->field(i)->name()));
  }
  EXPECT_THAT(options->help, HasSubstr("  tls.key_file: "));
  EXPECT_THAT(options->help, AllOf(HasSubstr("127.0.0.1:8500"), HasSubstr("default AUTO")));
}

}  // namespace
}  // namespace hilomoe
