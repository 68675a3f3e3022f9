#include "tools/client/request_builder.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace hilomoe {
namespace {

using Boundary = RequestBuilder::Boundary;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

ModelSpec Spec(const std::string& features) {
  auto spec = ModelSpec::Create(FromText<v1::ModelConfig>(features));
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *std::move(spec);
}

// One feature of each way to be sent; `f` stands for it in the logs below.
std::string Feature(const std::string& kind, const std::string& scope, const std::string& id_type) {
  return "features { id: 7 name: 'f' kind: " + kind + " scope: " + scope +
         (id_type.empty() ? "" : " embedding_width: 4 id_type: " + id_type) + " }";
}

LogReader Log(const std::string& text) {
  auto reader = LogReader::OpenBytes("log.csv", text);
  EXPECT_TRUE(reader.ok()) << reader.status();
  return *std::move(reader);
}

// All rows of the log in one request, or the first error.
absl::StatusOr<v1::ScoreRequest> OneRequest(const ModelSpec& spec, const std::string& log) {
  LogReader reader = Log(log);
  auto builder = RequestBuilder::Create(spec, reader, {});
  if (!builder.ok()) return builder.status();
  v1::ScoreRequest request;
  LogReader::Row row;
  bool begun = false;
  while (*reader.Next(&row)) {
    const absl::Status status = begun ? builder->Append(reader, row, &request) : builder->Begin(reader, row, &request);
    if (!status.ok()) return status;
    begun = true;
  }
  return request;
}

struct CellsCase {
  const char* name;
  const char* kind;
  const char* id_type;
  const char* rows;    // cells of f, one per line
  const char* column;  // beside the feature's id
};

class CellsTest : public ::testing::TestWithParam<CellsCase> {};

TEST_P(CellsTest, BecomeAColumn) {
  const CellsCase& c = GetParam();
  // A second column, so that an empty cell is not an empty line.
  std::string log = "f,x\n";
  std::string rows = c.rows;
  int count = 0;
  for (size_t at = 0; at < rows.size(); ++count) {
    const size_t end = rows.find('\n', at);
    log += rows.substr(at, end - at) + ",\n";
    at = end + 1;
  }
  const auto request = OneRequest(Spec(Feature(c.kind, "CANDIDATE", c.id_type)), log);
  ASSERT_TRUE(request.ok()) << request.status();
  const auto expected = FromText<v1::ScoreRequest>("num_candidates: " + std::to_string(count) +
                                                   " candidates { feature_id: 7 " + c.column + "}");
  EXPECT_EQ(request->ShortDebugString(), expected.ShortDebugString());
}

INSTANTIATE_TEST_SUITE_P(
    RequestBuilderTest, CellsTest,
    ::testing::Values(
        CellsCase{"Ids", "CATEGORICAL", "INT64", "5\n-6\n9223372036854775807\n",
                  "ids: 5 ids: -6 ids: 9223372036854775807"},
        CellsCase{"MissingFirst", "CATEGORICAL", "INT64", "\n5\n", "ids: 5 row_lengths: 0 row_lengths: 1"},
        CellsCase{"MissingLater", "CATEGORICAL", "INT64", "5\n6\n\n7\n",
                  "ids: 5 ids: 6 ids: 7 row_lengths: 1 row_lengths: 1 row_lengths: 0 row_lengths: 1"},
        CellsCase{"AllMissing", "CATEGORICAL", "INT64", "\n\n", "row_lengths: 0 row_lengths: 0"},
        CellsCase{"Strings", "CATEGORICAL", "STRING", "ab\nc\n", "strings: 'abc' string_bytes: 2 string_bytes: 1"},
        CellsCase{"StringMissing", "CATEGORICAL", "STRING", "ab\n\n",
                  "strings: 'ab' string_bytes: 2 row_lengths: 1 row_lengths: 0"},
        CellsCase{"StringIsWhole", "CATEGORICAL", "STRING", "a^b\n", "strings: 'a^b' string_bytes: 3"},
        CellsCase{"StringIsBytes", "CATEGORICAL", "STRING", "\xff\xc3\xa9\n",
                  R"(strings: '\xff\xc3\xa9' string_bytes: 3)"},
        CellsCase{"BagOfOnes", "BAG", "INT64", "5\n6\n", "ids: 5 ids: 6"},
        CellsCase{"Bag", "BAG", "INT64", "5^6^7\n8\n\n",
                  "ids: 5 ids: 6 ids: 7 ids: 8 row_lengths: 3 row_lengths: 1 row_lengths: 0"},
        CellsCase{"BagGrowsLater", "BAG", "INT64", "5\n6\n7^8\n",
                  "ids: 5 ids: 6 ids: 7 ids: 8 row_lengths: 1 row_lengths: 1 row_lengths: 2"},
        CellsCase{"EmptyIdsAreNone", "BAG", "INT64", "^5^^6^\n^\n", "ids: 5 ids: 6 row_lengths: 2 row_lengths: 0"},
        CellsCase{"SequenceOfStrings", "SEQUENCE", "STRING", "a^bc\nd^^e\n",
                  "strings: 'abcde' string_bytes: 1 string_bytes: 2 string_bytes: 1 string_bytes: 1 "
                  "row_lengths: 2 row_lengths: 2"},
        CellsCase{"Numbers", "NUMERIC", "", "1.5\n-2e3\n0\n", "numbers: 1.5 numbers: -2000 numbers: 0"},
        CellsCase{"NumberMissing", "NUMERIC", "", "1.5\n\n", "numbers: 1.5 row_lengths: 1 row_lengths: 0"}),
    [](const auto& info) { return info.param.name; });

struct BadCellCase {
  const char* kind;
  const char* id_type;
  const char* cell;
  const char* error;
};

TEST(RequestBuilderTest, BadCellsAreNamed) {
  const BadCellCase cases[] = {
      {"CATEGORICAL", "INT64", "abc", "log.csv:3: column 'f': 'abc' is not an INT64 id"},
      {"CATEGORICAL", "INT64", " 5", "log.csv:3: column 'f': ' 5' is not an INT64 id"},
      {"CATEGORICAL", "INT64", "5^6", "log.csv:3: column 'f': '5^6' is not an INT64 id"},
      {"CATEGORICAL", "INT64", "9223372036854775808", "'9223372036854775808' is not an INT64 id"},
      {"BAG", "INT64", "1^x^2", "log.csv:3: column 'f': 'x' is not an INT64 id"},
      {"NUMERIC", "", "1,5", "log.csv:3: column 'f': '1,5' is not a finite number"},
      {"NUMERIC", "", "nan", "'nan' is not a finite number"},
      {"NUMERIC", "", "inf", "'inf' is not a finite number"},
      {"NUMERIC", "", "1e39", "'1e39' is not a finite number"},
  };
  for (const BadCellCase& c : cases) {
    for (const char* scope : {"CONTEXT", "CANDIDATE"}) {
      SCOPED_TRACE(std::string(c.kind) + " " + scope + " " + c.cell);
      LogReader reader = Log(std::string("f,x\n1,\n\"") + c.cell + "\",\n");
      auto builder = RequestBuilder::Create(Spec(Feature(c.kind, scope, c.id_type)), reader, {});
      ASSERT_TRUE(builder.ok());
      v1::ScoreRequest request;
      LogReader::Row row;
      ASSERT_TRUE(*reader.Next(&row));
      ASSERT_TRUE(builder->Begin(reader, row, &request).ok());
      ASSERT_TRUE(*reader.Next(&row));
      const absl::Status status = builder->Begin(reader, row, &request);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.error));
    }
  }
}

constexpr char kScopes[] = R"(
  features { id: 1 name: "user" kind: CATEGORICAL scope: CONTEXT id_type: STRING embedding_width: 4 }
  features { id: 2 name: "item" kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }
  features { id: 3 name: "age" kind: NUMERIC scope: CONTEXT }
)";

TEST(RequestBuilderTest, ContextComesFromTheFirstRow) {
  const auto request = OneRequest(Spec(kScopes), "extra,item,age,user\n_,10,30,ann\n_,11,31,bob\n");
  ASSERT_TRUE(request.ok()) << request.status();
  const auto expected = FromText<v1::ScoreRequest>(R"(
    num_candidates: 2
    context { feature_id: 1 strings: "ann" string_bytes: 3 }
    context { feature_id: 3 numbers: 30 }
    candidates { feature_id: 2 ids: 10 ids: 11 }
  )");
  EXPECT_EQ(request->ShortDebugString(), expected.ShortDebugString());
}

TEST(RequestBuilderTest, BeginLeavesNothingOfTheRequestBefore) {
  LogReader reader = Log("user,item,age\nann,1,\n,2^,9\nbob,3,4\n");
  auto builder = RequestBuilder::Create(Spec(kScopes), reader, {});
  ASSERT_TRUE(builder.ok());
  v1::ScoreRequest request;
  request.set_model("kept");
  LogReader::Row row;
  ASSERT_TRUE(*reader.Next(&row));
  ASSERT_TRUE(builder->Begin(reader, row, &request).ok());
  ASSERT_TRUE(*reader.Next(&row));
  EXPECT_FALSE(builder->Begin(reader, row, &request).ok());
  ASSERT_TRUE(*reader.Next(&row));
  ASSERT_TRUE(builder->Begin(reader, row, &request).ok());
  const auto expected = FromText<v1::ScoreRequest>(R"(
    model: "kept"
    num_candidates: 1
    context { feature_id: 1 strings: "bob" string_bytes: 3 }
    context { feature_id: 3 numbers: 4 }
    candidates { feature_id: 2 ids: 3 }
  )");
  EXPECT_EQ(request.ShortDebugString(), expected.ShortDebugString());
}

TEST(RequestBuilderTest, AbsentFeaturesAreNotSentAndListed) {
  LogReader reader = Log("item\n1\n");
  const auto builder = RequestBuilder::Create(Spec(kScopes), reader, {});
  ASSERT_TRUE(builder.ok()) << builder.status();
  EXPECT_THAT(builder->absent_features(), ElementsAre("user", "age"));
  const auto request = OneRequest(Spec(kScopes), "item\n1\n");
  EXPECT_EQ(request->context_size(), 0);
}

TEST(RequestBuilderTest, RequiredFeatureMustHaveAColumnButNotEveryCell) {
  const ModelSpec spec = Spec(
      "features { id: 1 name: 'user' kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 4 "
      "required: true }");
  LogReader without = Log("item\n1\n");
  const auto builder = RequestBuilder::Create(spec, without, {});
  EXPECT_EQ(builder.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(builder.status().message()), HasSubstr("log.csv: no column 'user'"));
  EXPECT_TRUE(OneRequest(spec, "user,item\n,1\n").ok());
}

TEST(RequestBuilderTest, GroupColumnMustBeThere) {
  LogReader reader = Log("item\n1\n");
  const auto builder = RequestBuilder::Create(Spec(kScopes), reader, {.group_by = "request_id"});
  EXPECT_EQ(builder.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(builder.status().message()), HasSubstr("log.csv: no column 'request_id'"));
}

std::vector<Boundary> Boundaries(const std::string& log, const RequestBuilder::Options& options) {
  LogReader reader = Log(log);
  auto builder = RequestBuilder::Create(Spec(kScopes), reader, options);
  EXPECT_TRUE(builder.ok()) << builder.status();
  std::vector<Boundary> boundaries;
  v1::ScoreRequest request;
  LogReader::Row row;
  while (*reader.Next(&row)) {
    boundaries.push_back(builder->BoundaryBefore(row));
    const bool append = boundaries.back() == Boundary::kNone;
    EXPECT_TRUE((append ? builder->Append(reader, row, &request) : builder->Begin(reader, row, &request)).ok());
  }
  return boundaries;
}

TEST(RequestBuilderTest, RequestsAreRunsOfOneGroupAndContext) {
  const std::string log =
      "g,user,item,age\n"
      "1,ann,1,30\n"
      "1,ann,2,30\n"
      "2,ann,3,30\n"  // another group, the same context
      "2,ann,4,31\n"  // another context
      "2,ann,5,31\n"
      "1,ann,6,31\n";  // a group seen before
  EXPECT_THAT(Boundaries(log, {.group_by = "g"}), ElementsAre(Boundary::kGroup, Boundary::kNone, Boundary::kGroup,
                                                              Boundary::kContext, Boundary::kNone, Boundary::kGroup));
  EXPECT_THAT(Boundaries(log, {}), ::testing::Each(Boundary::kGroup));
}

TEST(RequestBuilderTest, RequestsAreCapped) {
  const std::string log = "g,item\n1,1\n1,2\n1,3\n1,4\n1,5\n";
  EXPECT_THAT(Boundaries(log, {.group_by = "g", .max_candidates = 2}),
              ElementsAre(Boundary::kGroup, Boundary::kNone, Boundary::kFull, Boundary::kNone, Boundary::kFull));
  EXPECT_THAT(Boundaries(log, {.group_by = "g", .max_candidates = 1}),
              ElementsAre(Boundary::kGroup, Boundary::kFull, Boundary::kFull, Boundary::kFull, Boundary::kFull));
}

}  // namespace
}  // namespace hilomoe
