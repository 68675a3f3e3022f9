// Cells of a log -> the packed columns of requests. The one place where a cell's text gets its meaning:
//
//   empty                    missing: a row without a value
//   CATEGORICAL              one id, whole
//   BAG, SEQUENCE            ids with `^` between them; what is empty between two `^` is no id and left out
//   NUMERIC                  a finite number
#ifndef HILOMOE_TOOLS_COMMON_COLUMN_BUILDER_H_
#define HILOMOE_TOOLS_COMMON_COLUMN_BUILDER_H_

#include <cstddef>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "hilomoe/v1/column.pb.h"
#include "model/model_spec.h"
#include "tools/common/log_reader.h"

namespace hilomoe {

// Appends `cell`, of the reader's latest row, as the next row of `column`, which holds rows_before rows. Errors:
// "log.csv:812: column 'price': 'abc' is not a finite number".
absl::Status AppendCell(const FeatureSpec& feature, const LogReader& reader, std::string_view cell, size_t rows_before,
                        v1::Column* column);

// Appends row `row` of `from` as the next row of `to`, which holds rows_before rows.
void AppendRow(const v1::Column& from, size_t row, size_t rows_before, v1::Column* to);

// Empties the column but keeps its memory and its feature.
void ClearValues(v1::Column* column);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_COLUMN_BUILDER_H_
