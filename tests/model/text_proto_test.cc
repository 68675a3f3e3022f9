// Errors that name file, line and field.
#include "model/text_proto.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hilomoe/v1/training_config.pb.h"
#include "tests/model/test_files.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// What ParseTextProto says about `text` when validation complains about `field`.
std::string Complain(const std::string& text, const std::string& field) {
  v1::TrainingConfig config;
  return std::string(
      ParseTextProto(text, "t.textproto", &config, [&] { return FieldError(field, "is bad"); }).message());
}

TEST(TextProtoTest, GivesTheLineOfTheDeepestFieldThatIsSpelledOut) {
  const std::string text =
      "model {\n"
      "  features { id: 1\n"
      "    name: 'a' }\n"
      "  features {\n"
      "    numeric {\n"
      "      transform: QUANTILE } }\n"
      "}\n"
      "batch_size: 7\n"
      "stages { name: 's'\n"
      "  train { group: HEAD } train {\n"
      "    learning_rate: 3 } }\n";
  EXPECT_EQ(Complain(text, "batch_size"), "t.textproto:8: batch_size: is bad");
  EXPECT_EQ(Complain(text, "model.features[0].name"), "t.textproto:3: model.features[0].name: is bad");
  EXPECT_EQ(Complain(text, "model.features[1].numeric.transform"),
            "t.textproto:6: model.features[1].numeric.transform: is bad");
  EXPECT_EQ(Complain(text, "model.features[1].numeric.buckets"),
            "t.textproto:5: model.features[1].numeric.buckets: is bad");
  EXPECT_EQ(Complain(text, "model.features[1].id"), "t.textproto:4: model.features[1].id: is bad");
  EXPECT_EQ(Complain(text, "model.network.blocks[0]"), "t.textproto:1: model.network.blocks[0]: is bad");
  EXPECT_EQ(Complain(text, "stages[0].train[1].learning_rate"),
            "t.textproto:11: stages[0].train[1].learning_rate: is bad");
  EXPECT_EQ(Complain(text, "stages[0].train"), "t.textproto:10: stages[0].train: is bad");
  EXPECT_EQ(Complain(text, "stages"), "t.textproto:9: stages: is bad");
}

TEST(TextProtoTest, GivesNoLineForWhatTheTextDoesNotHold) {
  EXPECT_EQ(Complain("batch_size: 7", "seed"), "t.textproto: seed: is bad");
  EXPECT_EQ(Complain("", "stages"), "t.textproto: stages: is bad");
  EXPECT_EQ(Complain("batch_size: 7", "no.such[3].field"), "t.textproto: no.such[3].field: is bad");
  EXPECT_EQ(Complain("stages {}", "stages[5].name"), "t.textproto: stages[5].name: is bad");
  EXPECT_EQ(Complain("stages {}", "stages[x].name"), "t.textproto: stages[x].name: is bad");
}

TEST(TextProtoTest, KnowsLinesInListSyntax) {
  const std::string text = "data { train: ['a',\n 'b'] }\nstages: [{ name: 'x' },\n { name: 'y' }]";
  EXPECT_THAT(Complain(text, "stages[1].name"), StartsWith("t.textproto:4: "));
  EXPECT_THAT(Complain(text, "data.train"), StartsWith("t.textproto:1: "));
}

TEST(TextProtoTest, RefusesWhatDoesNotParse) {
  for (const std::string text :
       {"batch_sise: 1", "batch_size: 1.5", "batch_size: -1", "batch_size: 1 batch_size: 2", "monitor: ACU", "model {",
        "model }", "batch_size", "\x01\x02", "stages { train { group: 99 } }"}) {
    v1::TrainingConfig config;
    const absl::Status status = ParseTextProto(text, "t.textproto", &config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), StartsWith("t.textproto:1:")) << text;
  }
}

TEST(TextProtoTest, ReadsWithAndWithoutValidation) {
  v1::TrainingConfig config;
  EXPECT_TRUE(ParseTextProto("batch_size: 9", "t", &config).ok());
  EXPECT_EQ(config.batch_size(), 9);
  EXPECT_TRUE(ParseTextProto("# nothing\n", "t", &config, [] { return absl::OkStatus(); }).ok());
  const auto internal = ParseTextProto("", "t", &config, [] { return absl::InternalError("x"); });
  EXPECT_EQ(internal, absl::InternalError("x"));
}

TEST(TextProtoTest, NamesTheFile) {
  const TestDirectory directory;
  v1::TrainingConfig config;
  const absl::Status missing = ReadTextProto(directory / "no.textproto", &config);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(directory / "no.textproto"));
  WriteBytes(directory / "bad.textproto", "\n\nbatch_size: x");
  EXPECT_THAT(std::string(ReadTextProto(directory / "bad.textproto", &config).message()),
              StartsWith(directory / "bad.textproto" + ":3:13: "));
}

TEST(InFieldTest, PutsAPrefixBeforeThePath) {
  const absl::Status status = InField("model", InField("features[3]", FieldError("id", "stands: twice")));
  EXPECT_EQ(status.message(), "model.features[3].id: stands: twice");
  EXPECT_EQ(InField("model", absl::InternalError("x")), absl::InternalError("x"));
  EXPECT_TRUE(InField("model", absl::OkStatus()).ok());
}

}  // namespace
}  // namespace hilomoe
