// A random model as the server has it: trained weights, folded and written to a file, opened by a predictor.
#ifndef HILOMOE_TESTS_RUNTIME_SERVED_MODEL_H_
#define HILOMOE_TESTS_RUNTIME_SERVED_MODEL_H_

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model/model_file.h"
#include "model/reference.h"
#include "runtime/predictor.h"
#include "tests/model/random_model.h"
#include "tests/model/test_files.h"
#include "tools/convert/fold.h"

namespace hilomoe {

// INT64 tables know 100, 101, ..., STRING tables "s0", "s1", ...; id i has row i + 2.
class ServedModel {
 public:
  static constexpr uint32_t kIds = 6;

  explicit ServedModel(const std::string& config, uint64_t seed = 1, const StoragePrecision& precision = {})
      : spec(SpecFromText(config)),
        table_rows(TableRowsFor(spec, kIds)),
        training(TensorRegistry::ForTraining(spec, table_rows)) {
    for (const double weight : RandomWeights(spec, training, seed)) weights.push_back(static_cast<float>(weight));
    const TensorRegistry serving = TensorRegistry::ForServing(spec, table_rows);
    const std::vector<std::vector<float>> tensors = FoldTensors(spec, training, serving, weights);
    contents.header.mutable_config()->CopyFrom(spec.config());
    contents.table_rows = table_rows;
    contents.precision = precision;
    for (const std::vector<float>& tensor : tensors) contents.tensors.emplace_back(tensor);
    for (const TableSpec& table : spec.tables()) {
      VocabularyIds& ids = contents.vocabularies.emplace_back();
      for (uint32_t i = 0; i < kIds && table.has_vocabulary(); ++i) {
        if (table.id_type == v1::Feature::INT64) {
          ids.int64s.push_back(100 + i);
        } else {
          ids.strings.push_back(absl::StrCat("s", i));
        }
      }
    }
    const absl::Status written = WriteModelFile(path(), contents);
    EXPECT_TRUE(written.ok()) << written;
    contents.tensors.clear();
  }

  std::unique_ptr<Predictor> Open(kernels::InstructionSet set = kernels::InstructionSet::kAvx512Bf16) const {
    absl::StatusOr<ModelFile> file = ModelFile::Open(path());
    EXPECT_TRUE(file.ok()) << file.status();
    auto predictor = Predictor::Create(*std::move(file), {.instruction_set = set});
    EXPECT_TRUE(predictor.ok()) << predictor.status();
    return *std::move(predictor);
  }

  // The reference's logits with the rounding errors that a float32 evaluation may have.
  ReferenceOutput<Rounded> Reference(const EncodedBatch& batch) const {
    const std::vector<Rounded> arena(weights.begin(), weights.end());
    return ReferenceForward(spec, training.Bind<const Rounded>(spec, arena.data()), batch);
  }
  std::string path() const { return directory_ / "model.hilomoe"; }

  const ModelSpec spec;
  const std::vector<uint32_t> table_rows;
  const TensorRegistry training;
  std::vector<float> weights;
  ModelFileContents contents;  // less the tensors

 private:
  const TestDirectory directory_;
};

// The context's columns as if every candidate had brought its own.
inline EncodedBatch Flatten(const ModelSpec& spec, const EncodedBatch& shared) {
  EncodedBatch flat = shared;
  flat.context_rows = shared.candidate_rows;
  for (size_t f = 0; f < spec.features().size(); ++f) {
    if (!spec.features()[f].is_context()) continue;
    EncodedFeature& to = flat.features[f];
    const EncodedFeature from = to;
    for (size_t r = 1; r < flat.context_rows; ++r) {
      to.rows.insert(to.rows.end(), from.rows.begin(), from.rows.end());
      to.values.insert(to.values.end(), from.values.begin(), from.values.end());
      to.missing.insert(to.missing.end(), from.missing.begin(), from.missing.end());
      if (!from.offsets.empty()) to.offsets.push_back(static_cast<uint32_t>(to.rows.size()));
    }
  }
  return flat;
}

// Candidate r of a batch with a shared context, alone.
inline EncodedBatch OneRow(const ModelSpec& spec, const EncodedBatch& shared, size_t r) {
  EncodedBatch one = shared;
  one.candidate_rows = 1;
  const auto keep = [](auto& values, size_t begin, size_t end) {
    if (values.size() >= end) values = {values.begin() + begin, values.begin() + end};
  };
  for (size_t f = 0; f < spec.features().size(); ++f) {
    if (spec.features()[f].is_context()) continue;
    EncodedFeature& feature = one.features[f];
    if (feature.offsets.empty()) {
      keep(feature.rows, r, r + 1);
    } else {
      keep(feature.rows, feature.offsets[r], feature.offsets[r + 1]);
      feature.offsets = {0, static_cast<uint32_t>(feature.rows.size())};
    }
    keep(feature.values, r, r + 1);
    keep(feature.missing, r, r + 1);
  }
  return one;
}

// Logits against the reference's. A row that is closer to a top-k tie than rounding errors reach is left out.
struct Comparison {
  size_t rows = 0;
  size_t left_out = 0;
  double worst = 0;  // error / bound

  void Add(const ReferenceOutput<Rounded>& expected, absl::Span<const float> logits) {
    ASSERT_EQ(expected.logits.size(), logits.size());
    for (size_t r = 0; r < logits.size(); ++r) {
      ++rows;
      if (expected.tie_gap[r] <= Rounded::kDeviations) {
        ++left_out;
        continue;
      }
      const double bound = expected.logits[r].Bound();
      const double error = std::fabs(logits[r] - expected.logits[r].value);
      ASSERT_LE(error, bound) << "row " << r << " of " << logits.size();
      // A bound that is not small beside the logit would show nothing.
      ASSERT_LT(bound, 1e-3 * std::max(1.0, std::fabs(expected.logits[r].value)));
      worst = std::max(worst, error / bound);
    }
  }
};

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_RUNTIME_SERVED_MODEL_H_
