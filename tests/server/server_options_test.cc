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
    const bool in_file_only = type->field(i)->is_repeated() || type->field(i)->message_type() != nullptr;
    EXPECT_THAT(options->help, HasSubstr((in_file_only ? "  " : "--") + type->field(i)->name()));
  }
  EXPECT_THAT(options->help, AllOf(HasSubstr("127.0.0.1:8500"), HasSubstr("default AUTO")));
}

}  // namespace
}  // namespace hilomoe
