#include "tools/train/log_encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "runtime/column_view.h"

namespace hilomoe {

absl::StatusOr<LogEncoder> LogEncoder::Create(const ModelSpec& spec, const std::vector<VocabularyIds>& ids,
                                              const FeatureTensors<const float>& numeric) {
  LogEncoder encoder;
  encoder.tables_.resize(spec.tables().size());
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    if (!table.has_vocabulary()) {
      encoder.vocabularies_.push_back(Vocabulary::Hashed(table.hash_buckets));
      continue;
    }
    HILOMOE_ASSIGN_OR_RETURN(encoder.tables_[i], BuildVocabularyTable(ids[i]));
    const VocabularyTable& built = encoder.tables_[i];
    const uint32_t rows = kReservedRows + static_cast<uint32_t>(ids[i].size());
    // What was just built is sound.
    encoder.vocabularies_.push_back(*Vocabulary::FromBuckets(built.buckets, built.seed, built.max_probes, rows));
  }
  encoder.encoder_ = std::make_unique<RequestEncoder>(spec, encoder.vocabularies_, numeric);
  return encoder;
}

absl::Status LogEncoder::Encode(const LogChunk& chunk, EncodedBatch* batch) const {
  std::vector<ColumnView> views;
  AppendColumnViews(chunk.columns, &views);
  views.erase(std::remove_if(views.begin(), views.end(), [](const ColumnView& view) { return view.feature_id == 0; }),
              views.end());
  const absl::Status status = encoder_->Encode({chunk.rows, {}, views}, batch, nullptr);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(chunk.place, ", or a row before it: ", status.message()));
}

}  // namespace hilomoe
