#include "tools/train/log_encoder.h"

#include <algorithm>

#include "runtime/column_view.h"

namespace hilomoe {

LogEncoder::LogEncoder(const ModelSpec& spec, const std::vector<VocabularyIds>& ids,
                       const FeatureTensors<const float>& numeric)
    : tables_(spec.tables().size()) {
  for (size_t i = 0; i < spec.tables().size(); ++i) {
    const TableSpec& table = spec.tables()[i];
    if (!table.has_vocabulary()) {
      vocabularies_.push_back(Vocabulary::Hashed(table.hash_buckets));
      continue;
    }
    tables_[i] = BuildVocabularyTable(ids[i]);
    const uint32_t rows = kReservedRows + static_cast<uint32_t>(ids[i].size());
    // What was just built is sound.
    vocabularies_.push_back(*Vocabulary::FromBuckets(tables_[i].buckets, tables_[i].seed, tables_[i].max_probes, rows));
  }
  encoder_ = std::make_unique<RequestEncoder>(spec, vocabularies_, numeric);
}

absl::Status LogEncoder::Encode(const LogChunk& chunk, EncodedBatch* batch) const {
  std::vector<ColumnView> views;
  AppendColumnViews(chunk.columns, &views);
  views.erase(std::remove_if(views.begin(), views.end(), [](const ColumnView& view) { return view.feature_id == 0; }),
              views.end());
  return encoder_->Encode({chunk.rows, {}, views}, batch, nullptr);
}

}  // namespace hilomoe
