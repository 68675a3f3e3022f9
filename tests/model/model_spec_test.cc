// What a config may not say, and what follows from one that is right.
#include "model/model_spec.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text_proto.h"
#include "tests/model/random_model.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

absl::Status Parse(const std::string& text) {
  v1::ModelConfig config;
  return ParseTextProto(text, "c.textproto", &config, [&] { return ModelSpec::Create(config).status(); });
}

// Line 1 is right in every case.
constexpr char kItem[] =
    "features { id: 1 name: 'item' kind: CATEGORICAL scope: CANDIDATE id_type: INT64 embedding_width: 4 }\n";

struct Wrong {
  std::string name;
  std::string text;      // follows kItem
  std::string expected;  // the error starts with this
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.name; }

class WrongConfigTest : public testing::TestWithParam<Wrong> {};

TEST_P(WrongConfigTest, IsRefusedWithLineAndField) {
  const absl::Status status = Parse(kItem + GetParam().text);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("c.textproto:" + GetParam().expected));
}

// A feature on line 2 that is right but for `fields`, which overwrites nothing.
std::string Ids(const std::string& fields) {
  return absl::StrCat("features { id: 2 name: 'b' kind: CATEGORICAL scope: CONTEXT ", fields, " }");
}
std::string Number(const std::string& fields) {
  return absl::StrCat("features { id: 2 name: 'b' kind: NUMERIC scope: CONTEXT ", fields, " }");
}
std::string Blocks(const std::string& fields) { return absl::StrCat("network {\n  blocks { ", fields, " }\n}"); }

INSTANTIATE_TEST_SUITE_P(Texts, WrongConfigTest,
                         testing::Values(Wrong{"unknown_field", "features { id: 2 nme: 'b' }", "2:21: Message type"},
                                         Wrong{"unknown_enum", "features { kind: CATEGORY }",
                                               "2:27: Unknown enumeration value of \"CATEGORY\""},
                                         Wrong{"wrong_type", "features { id: 'two' }", "2:16: Expected integer"},
                                         Wrong{"negative_id", "features { id: -2 }", "2:16: Expected integer"},
                                         Wrong{"id_too_large", "features { id: 4294967296 }",
                                               "2:16: Integer out of range"},
                                         Wrong{"field_twice", "features { id: 2 id: 3 }", "2:"},
                                         Wrong{"open_brace", "features { id: 2", "2:"}),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Features, WrongConfigTest,
    testing::Values(
        Wrong{"missing_name", "features { id: 2 }", "2: features[1].name: "},
        Wrong{"empty_name", "features { id: 2\n  name: '' }", "3: features[1].name: "},
        Wrong{"nul_in_name", "features { id: 2\n  name: 'a\\000b' }", "3: features[1].name: "},
        Wrong{"name_not_utf8", "features { id: 2\n  name: 'a\\377' }", "3: features[1].name: "},
        Wrong{"duplicate_name", "features { id: 2\n  name: 'item' }", "3: features[1].name: 'item' stands twice"},
        Wrong{"missing_id", "features { name: 'b' }", "2: features[1].id: feature 'b' needs an id"},
        Wrong{"zero_id", "features { name: 'b'\n\n  id: 0 }", "4: features[1].id: "},
        Wrong{"duplicate_id", "features { name: 'b'\n  id: 1 }", "3: features[1].id: 1 stands twice"},
        Wrong{"missing_kind", "features { id: 2 name: 'b' }", "2: features[1].kind: "},
        Wrong{"missing_scope", "features { id: 2 name: 'b' kind: BAG }", "2: features[1].scope: "},
        Wrong{"missing_id_type", Ids("embedding_width: 1"), "2: features[1].id_type: "},
        Wrong{"numeric_on_ids", Ids("id_type: INT64 embedding_width: 1\nnumeric {}"), "3: features[1].numeric: "},
        Wrong{"missing_width", Ids("id_type: INT64"), "2: features[1].embedding_width: 0 is not between"},
        Wrong{"huge_width", Ids("id_type: INT64\nembedding_width: 16385"), "3: features[1].embedding_width: 16385"},
        Wrong{"no_length", Ids("id_type: INT64 embedding_width: 1\nmax_length: 0"), "3: features[1].max_length: 0"},
        Wrong{"huge_length", Ids("id_type: INT64 embedding_width: 1\nmax_length: 65537"),
              "3: features[1].max_length: 65537"},
        Wrong{"hash_with_vocabulary",
              Ids("id_type: INT64 embedding_width: 1 vocabulary {\nhash_buckets: 9 min_count: 2 }"),
              "3: features[1].vocabulary.hash_buckets: "},
        Wrong{"huge_hash", Ids("id_type: INT64 embedding_width: 1 vocabulary {\nhash_buckets: 1073741825 }"),
              "3: features[1].vocabulary.hash_buckets: 1073741825"},
        Wrong{"huge_vocabulary", Ids("id_type: INT64 embedding_width: 1 vocabulary {\nmax_size: 1073741825 }"),
              "3: features[1].vocabulary.max_size: "},
        Wrong{"no_count", Ids("id_type: INT64 embedding_width: 1 vocabulary {\nmin_count: 0 }"),
              "3: features[1].vocabulary.min_count: 0"},
        Wrong{"required_with_default", Ids("id_type: INT64 embedding_width: 1 required: true\ndefault_value: '3'"),
              "3: features[1].default_value: a required feature"},
        Wrong{"default_is_no_id", Ids("id_type: INT64 embedding_width: 1\ndefault_value: '3x'"),
              "3: features[1].default_value: '3x' is not an INT64 id"},
        Wrong{"default_is_two_ids", Ids("id_type: INT64 embedding_width: 1\ndefault_value: '3^4'"),
              "3: features[1].default_value: '3^4'"},
        Wrong{"default_is_no_number", Number("\ndefault_value: '1e40'"), "3: features[1].default_value: '1e40'"},
        Wrong{"default_is_nan", Number("\ndefault_value: 'nan'"), "3: features[1].default_value: 'nan'"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Sharing, WrongConfigTest,
    testing::Values(
        Wrong{"nothing", Ids("id_type: INT64\nshare_embedding: 'itm'"),
              "3: features[1].share_embedding: there is no feature 'itm'"},
        Wrong{"itself", Ids("id_type: INT64\nshare_embedding: 'b'"), "3: features[1].share_embedding: 'b' has no"},
        Wrong{"other_id_type", Ids("id_type: STRING\nshare_embedding: 'item'"),
              "3: features[1].share_embedding: 'item' has another id_type"},
        Wrong{"other_width", Ids("id_type: INT64 embedding_width: 5\nshare_embedding: 'item'"),
              "3: features[1].share_embedding: 'item' has embedding_width 4"},
        Wrong{"own_vocabulary", Ids("id_type: INT64 share_embedding: 'item'\nvocabulary {}"),
              "3: features[1].vocabulary: "},
        Wrong{"a_sharing_one",
              Ids("id_type: INT64 share_embedding: 'item'") +
                  "\nfeatures { id: 3 name: 'c' kind: BAG scope: CONTEXT id_type: INT64\nshare_embedding: 'b' }",
              "4: features[2].share_embedding: 'b' has no embedding"},
        Wrong{"a_number",
              Number("embedding_width: 4 numeric { transform: QUANTILE buckets: 3 }") +
                  "\nfeatures { id: 3 name: 'c' kind: BAG scope: CONTEXT id_type: INT64\nshare_embedding: 'b' }",
              "4: features[2].share_embedding: 'b' has no embedding"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Numbers, WrongConfigTest,
    testing::Values(
        Wrong{"id_type", Number("\nid_type: INT64"), "3: features[1].id_type: "},
        Wrong{"share", Number("\nshare_embedding: 'item'"), "3: features[1].share_embedding: "},
        Wrong{"vocabulary", Number("\nvocabulary {}"), "3: features[1].vocabulary: "},
        Wrong{"huge_width", Number("\nembedding_width: 16385"), "3: features[1].embedding_width: "},
        Wrong{"quantile_without_width", Number("numeric { transform: QUANTILE buckets: 4 }"),
              "2: features[1].embedding_width: QUANTILE"},
        Wrong{"quantile_without_buckets", Number("embedding_width: 2 numeric {\ntransform: QUANTILE }"),
              "2: features[1].numeric.buckets: 0"},
        Wrong{"one_bucket", Number("embedding_width: 2 numeric { transform: QUANTILE\nbuckets: 1 }"),
              "3: features[1].numeric.buckets: 1"},
        Wrong{"huge_buckets", Number("embedding_width: 2 numeric { transform: QUANTILE\nbuckets: 65537 }"),
              "3: features[1].numeric.buckets: 65537"},
        Wrong{"quantile_with_indicator",
              Number("embedding_width: 2 numeric { transform: QUANTILE buckets: 2\nmissing_indicator: true }"),
              "3: features[1].numeric.missing_indicator: "},
        Wrong{"buckets_without_quantile", Number("numeric { transform: LOG1P\nbuckets: 4 }"),
              "3: features[1].numeric.buckets: "}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Network, WrongConfigTest,
    testing::Values(Wrong{"no_width", Blocks(""), "3: network.blocks[0].width: 0"},
                    Wrong{"huge_width", Blocks("\nwidth: 16385"), "4: network.blocks[0].width: 16385"},
                    Wrong{"second_block", Blocks("width: 4 }\n  blocks {\nwidth: 0"), "5: network.blocks[1].width: 0"},
                    Wrong{"dropout_one", Blocks("width: 4\ndropout: 1"), "4: network.blocks[0].dropout: "},
                    Wrong{"dropout_negative", Blocks("width: 4\ndropout: -0.1"), "4: network.blocks[0].dropout: "},
                    Wrong{"dropout_nan", Blocks("width: 4\ndropout: nan"), "4: network.blocks[0].dropout: "},
                    Wrong{"no_experts", Blocks("width: 4 experts {\nlayers: 1 }"),
                          "3: network.blocks[0].experts.experts_per_layer"},
                    Wrong{"many_experts", Blocks("width: 4 experts { layers: 1\nexperts_per_layer: 257 }"),
                          "4: network.blocks[0].experts.experts_per_layer: 257"},
                    Wrong{"many_layers", Blocks("width: 4 experts {\nlayers: 65 experts_per_layer: 2 }"),
                          "4: network.blocks[0].experts.layers: 65"},
                    Wrong{"many_in_all", Blocks("width: 4 experts {\nlayers: 17 experts_per_layer: 241 }"),
                          "4: network.blocks[0].experts.layers: "},
                    Wrong{"top_one", Blocks("width: 4 experts { layers: 1 experts_per_layer: 4\ntop_k: 1 }"),
                          "4: network.blocks[0].experts.top_k: 1"},
                    Wrong{"top_k_above_k", Blocks("width: 4 experts { layers: 1 experts_per_layer: 4\ntop_k: 5 }"),
                          "4: network.blocks[0].experts.top_k: 5"}),
    [](const auto& info) { return info.param.name; });

const std::string kHistory =
    "features { id: 2 name: 'h' kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 3 pooling: NONE }\n"
    "features { id: 3 name: 'g' kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 2 max_length: 7 }\n"
    "features { id: 4 name: 'u' kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 2 }\n";
std::string Attention(const std::string& text) { return kHistory + "network { attention {" + text + "} }"; }

INSTANTIATE_TEST_SUITE_P(
    NetworkParts, WrongConfigTest,
    testing::Values(
        Wrong{
            "projection_of_a_constant_router",
            Blocks(
                "width: 4 experts { layers: 1 experts_per_layer: 4 routing_scale: PAPER\n query_projection: LINEAR }"),
            "4: network.blocks[0].experts.query_projection: "},
        Wrong{"cross_top_one", "network { cross { experts { layers: 1 experts_per_layer: 4\n top_k: 1 } } }",
              "3: network.cross[0].experts.top_k: 1"},
        Wrong{"bag_unpooled", Ids("id_type: INT64 embedding_width: 2\npooling: NONE"),
              "3: features[1].pooling: NONE belongs"},
        Wrong{"nobody_reads_it", kHistory, "2: features[1].pooling: NONE, and no attention"},
        Wrong{"no_query", Attention("history: 'h'"), "5: network.attention[0].query: "},
        Wrong{"no_history", Attention("query: 'item'"), "5: network.attention[0].history: "},
        Wrong{"unknown_query", Attention("query: 'x'"), "5: network.attention[0].query[0]: there is no"},
        Wrong{"query_of_the_context", Attention("query: 'u' history: 'h'"),
              "5: network.attention[0].query[0]: 'u' is no"},
        Wrong{"history_is_no_sequence", Attention("query: 'item' history: 'u'"),
              "5: network.attention[0].history[0]: 'u' is no SEQUENCE"},
        Wrong{"twice", Attention("query: 'item' history: 'h'\nhistory: 'h'"),
              "6: network.attention[0].history[1]: h stands twice"},
        Wrong{"other_length", Attention("query: 'item' history: 'h'\nhistory: 'g'"),
              "6: network.attention[0].history[1]: 'g' and 'h'"},
        Wrong{"huge_history",
              "features { id: 2 name: 'h' kind: SEQUENCE scope: CONTEXT id_type: INT64 embedding_width: 65\n"
              "  max_length: 65536 }\n network { attention { query: 'item' history: 'h' } }",
              "4: network.attention[0].history: max_length 65536 times"},
        Wrong{"heads", Attention("query: 'item' history: 'h' heads: 0"), "5: network.attention[0].heads: 0"},
        Wrong{"head_width", Attention("query: 'item' history: 'h' head_width: 2000"),
              "5: network.attention[0].head_width: 2000"},
        Wrong{"output_width", Attention("query: 'item' history: 'h' output_width: 0"),
              "5: network.attention[0].output_width: 0"}),
    [](const auto& info) { return info.param.name; });

TEST(ModelSpecTest, AttentionEndsTheInputAndTowersMeetInTheHead) {
  const ModelSpec spec = SpecFromText(absl::StrCat(kAllFeatures, kAlignedSequences, "network {", kAttention,
                                                   "blocks { width: 6 } cross { } cross { } linear: true }"));
  EXPECT_EQ(spec.input_width(), 21 + 4 + 4);  // unpooled sequences add nothing, attention 4 and the history's 4
  EXPECT_EQ(spec.attention()[0].input_offset, 21);
  EXPECT_EQ(spec.attention()[0].history_width, 4 + 3);
  EXPECT_EQ(spec.attention()[1].query_width, 4 + 2);
  EXPECT_EQ(spec.blocks().size(), 3);
  EXPECT_EQ(spec.deep_blocks(), 1);
  EXPECT_TRUE(spec.is_first(1));
  EXPECT_EQ(spec.BlockName(2), "cross.1");
  EXPECT_EQ(spec.blocks()[2].width, 29);
  EXPECT_EQ(spec.head_width(), 6 + 29);
  const int clicks = spec.FindFeature("clicks"), history = spec.FindFeature("history");
  EXPECT_TRUE(spec.features()[clicks].aligned);
  EXPECT_FALSE(spec.features()[history].aligned);
  EXPECT_FALSE(spec.is_linear(clicks));
  EXPECT_TRUE(spec.is_linear(history));
}

TEST(ModelSpecTest, RefusesAConfigWithoutFeatures) {
  EXPECT_THAT(std::string(Parse("network {}").message()), StartsWith("c.textproto: features: "));
}

TEST(ModelSpecTest, RefusesAnInputThatIsTooWide) {
  std::string text;
  for (int i = 1; i <= 65; ++i) {  // 65 * 2^14 > 2^20
    absl::StrAppend(&text, "features { id: ", i, " name: 'f", i,
                    "' kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 16384 }\n");
  }
  EXPECT_THAT(std::string(Parse(text).message()), HasSubstr("features: 1064960 is not between"));
}

TEST(ModelSpecTest, AcceptsTheLimits) {
  EXPECT_TRUE(Parse(kItem).ok());
  EXPECT_TRUE(Parse(kItem + Blocks("width: 16384 dropout: 0.99 experts { layers: 16 experts_per_layer: 256 }")).ok());
  EXPECT_TRUE(Parse(kItem + Blocks("width: 1 experts { layers: 64 experts_per_layer: 64 top_k: 2 }")).ok());
  EXPECT_TRUE(Parse(kItem + Ids("id_type: STRING embedding_width: 16384 max_length: 65536 default_value: 'a^b'")).ok());
  EXPECT_TRUE(Parse(kItem + std::string("features { id: 2 name: '\xd7\xa9' kind: SEQUENCE scope: CONTEXT id_type: "
                                        "INT64 embedding_width: 1 default_value: '3^^-4' }"))
                  .ok());
}

TEST(ModelSpecTest, LaysTheInputOutContextFirst) {
  const ModelSpec spec =
      SpecFromText(std::string(kAllFeatures) + "network { blocks { width: 6 } blocks { width: 5 } }");
  // In the order of the config: user, item, history, tags, price, age, days, hash.
  std::vector<size_t> offsets, widths;
  std::vector<int> tables;
  for (const FeatureSpec& feature : spec.features()) {
    offsets.push_back(feature.input_offset);
    widths.push_back(feature.input_width);
    tables.push_back(feature.table);
  }
  EXPECT_EQ(offsets, (std::vector<size_t>{0, 11, 3, 15, 17, 7, 9, 19}));
  EXPECT_EQ(widths, (std::vector<size_t>{3, 4, 4, 2, 2, 2, 2, 2}));
  EXPECT_EQ(tables, (std::vector<int>{0, 1, 1, 2, -1, -1, 3, 4}));
  EXPECT_EQ(spec.context_width(), 11);
  EXPECT_EQ(spec.input_width(), 21);
  EXPECT_EQ(spec.blocks()[0].input, 21);
  EXPECT_EQ(spec.blocks()[1].input, 6);
  EXPECT_EQ(spec.head_width(), 5);
  EXPECT_EQ(spec.tables()[1].feature, "item");
  EXPECT_TRUE(spec.tables()[1].has_vocabulary());
  EXPECT_EQ(spec.tables()[3].buckets, 4);
  EXPECT_EQ(spec.tables()[4].hash_buckets, 6);
}

TEST(ModelSpecTest, TakesKeepingAllExpertsForDenseRouting) {
  const auto top_k = [](const std::string& experts) {
    return SpecFromText(kItem + Blocks("width: 4 experts { " + experts + " }")).blocks()[0].top_k;
  };
  EXPECT_EQ(top_k("layers: 2 experts_per_layer: 4"), 0);
  EXPECT_EQ(top_k("layers: 2 experts_per_layer: 4 top_k: 4"), 0);
  EXPECT_EQ(top_k("layers: 2 experts_per_layer: 4 top_k: 3"), 3);
  EXPECT_EQ(top_k("layers: 2 experts_per_layer: 1 top_k: 1"), 0);
}

TEST(ModelSpecTest, WithoutBlocksTheHeadReadsTheInput) { EXPECT_EQ(SpecFromText(kAllFeatures).head_width(), 21); }

TEST(ModelSpecTest, FindsFeatures) {
  const ModelSpec spec = SpecFromText(kAllFeatures);
  EXPECT_EQ(spec.FindFeature("tags"), 3);
  EXPECT_EQ(spec.FindFeature("tag"), -1);
  EXPECT_EQ(spec.FindFeature(4u), 3);
  EXPECT_EQ(spec.FindFeature(0u), -1);
}

TEST(DefaultIdsTest, ReadsALogCell) {
  using Ids = std::vector<std::string_view>;
  EXPECT_EQ(DefaultIds(v1::Feature::CATEGORICAL, "a^b"), (Ids{"a^b"}));
  EXPECT_EQ(DefaultIds(v1::Feature::CATEGORICAL, ""), Ids{});
  EXPECT_EQ(DefaultIds(v1::Feature::BAG, ""), Ids{});
  EXPECT_EQ(DefaultIds(v1::Feature::BAG, "a"), (Ids{"a"}));
  EXPECT_EQ(DefaultIds(v1::Feature::SEQUENCE, "^a^^bc^"), (Ids{"a", "bc"}));
}

}  // namespace
}  // namespace hilomoe
