// Rows as a model reads them: every feature value replaced by a row of its embedding table, or a transformed number.
#ifndef HILOMOE_MODEL_ENCODED_BATCH_H_
#define HILOMOE_MODEL_ENCODED_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hilomoe {

inline constexpr uint32_t kOutOfVocabularyRow = 0;
inline constexpr uint32_t kMissingRow = 1;
inline constexpr uint32_t kReservedRows = 2;

// One feature of n rows; which members are filled follows from its kind:
//   one table row a row (CATEGORICAL, QUANTILE):  rows [n]
//   pooled (BAG, SEQUENCE):                       rows [offsets[n]], offsets [n + 1]; an empty range is allowed
//   number:                                       values [n] after the transform, 0 where missing
//   with missing_indicator:                       missing [n], 0 or 1
struct EncodedFeature {
  std::vector<uint32_t> rows;
  std::vector<uint32_t> offsets;
  std::vector<float> values;
  std::vector<float> missing;
};

// context_rows is 1 (shared by all candidates; compute-once) or equals candidate_rows (flat rows). Features stand in
// the order of ModelSpec::features().
struct EncodedBatch {
  size_t context_rows = 0;
  size_t candidate_rows = 0;
  std::vector<EncodedFeature> features;
};

}  // namespace hilomoe

#endif  // HILOMOE_MODEL_ENCODED_BATCH_H_
