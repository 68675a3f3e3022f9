// Writes a CSV of scores: kept columns of the log in front, then `score`, one line per row.
//
// A score is printed with the fewest digits that give the same float32 back. A path that ends in .gz or .zst is
// compressed; "-" is the standard output, under any other name too (/dev/stdout); every other file appears under its
// name only when it is complete (AtomicFile). Threads: one at a time. Errors name the path.
#ifndef HILOMOE_TOOLS_CLIENT_SCORE_WRITER_H_
#define HILOMOE_TOOLS_CLIENT_SCORE_WRITER_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/file_io.h"
#include "tools/common/byte_sink.h"

namespace hilomoe {

class ScoreWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ScoreWriter>> Create(const std::string& path,
                                                             const std::vector<std::string>& kept_columns);

  // `kept`: the row's kept cells, each by AppendCell.
  absl::Status Append(std::string_view kept, float score);
  absl::Status Commit();

  // The cell and a comma, quoted where RFC 4180 wants it.
  static void AppendCell(std::string_view cell, std::string* kept);

 private:
  ScoreWriter() = default;
  absl::Status WriteOut(std::string_view bytes);

  std::optional<AtomicFile> file_;  // none: the standard output
  std::unique_ptr<ByteSink> sink_;
  std::string line_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_CLIENT_SCORE_WRITER_H_
