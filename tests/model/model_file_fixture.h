// What tests of model files share: contents to write, and a place to write them to.
#ifndef HILOMOE_TESTS_MODEL_MODEL_FILE_FIXTURE_H_
#define HILOMOE_TESTS_MODEL_MODEL_FILE_FIXTURE_H_

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/model_file.h"
#include "tests/model/random_model.h"
#include "tests/model/test_files.h"

namespace hilomoe {

// The contents that a test writes; spans point into `values`.
struct Contents {
  // int64_ids: of every table of INT64 ids, at least 3.
  explicit Contents(const std::string& config, uint32_t int64_ids = 3) {
    *file.header.mutable_config() = ModelConfigFromText(config);
    const ModelSpec spec = *ModelSpec::Create(file.header.config());
    file.table_rows = TableRowsFor(spec, int64_ids);
    for (const TableSpec& table : spec.tables()) {
      VocabularyIds& ids = file.vocabularies.emplace_back();
      if (!table.has_vocabulary()) continue;
      if (table.id_type == v1::Feature::INT64) {
        ids.int64s = {7, INT64_MIN, -1};
        for (int64_t id = 100; ids.int64s.size() < int64_ids; ++id) ids.int64s.push_back(id);
      } else {
        ids.strings = {"x", "yy", std::string("\0", 1)};
      }
    }
    std::mt19937 engine(9);
    const TensorRegistry registry = TensorRegistry::ForServing(spec, file.table_rows);
    for (const TensorSpec& tensor : registry.tensors()) {
      std::vector<float>& numbers = values.emplace_back(tensor.size);
      for (float& number : numbers) number = static_cast<float>(engine()) * 0x1p-32F - 0.5F;
    }
    for (const std::vector<float>& numbers : values) file.tensors.emplace_back(numbers);
    file.header.mutable_provenance()->set_label("click");
    (*file.header.mutable_provenance()->mutable_metrics())["valid.auc"] = 0.75;
    v1::GoldenRequest* golden = file.header.add_golden();
    golden->set_num_candidates(1);
    golden->add_scores(0.5);
    file.header.set_golden_tolerance(1e-6);
  }

  ModelFileContents file;
  std::vector<std::vector<float>> values;
};

inline constexpr char kTiny[] = R"(
  features { id: 1 name: "a" kind: CATEGORICAL scope: CONTEXT id_type: INT64 embedding_width: 1 }
  network { blocks { width: 1 experts { layers: 1 experts_per_layer: 2 } } })";

class ModelFileTest : public testing::Test {
 protected:
  std::string Write(const Contents& contents) {
    const absl::Status status = WriteModelFile(path_, contents.file);
    EXPECT_TRUE(status.ok()) << status;
    return ReadBytes(path_);
  }
  // Copied and mapped give the same.
  absl::Status Open() {
    const absl::Status status = ModelFile::Open(path_).status();
    EXPECT_EQ(ModelFile::Open(path_, {.memory = FileMemory::kMap, .threads = 2}).status(), status);
    return status;
  }

  const TestDirectory directory_;
  const std::string path_ = directory_ / "model.hilomoe";
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_MODEL_MODEL_FILE_FIXTURE_H_
