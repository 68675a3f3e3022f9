#include "tools/client/score_writer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <utility>

#include "model/status_macros.h"

namespace hilomoe {
namespace {

Compression CompressionOf(std::string_view path) {
  for (const Compression compression : {Compression::kGzip, Compression::kZstd}) {
    if (path.ends_with(FileSuffix(compression))) return compression;
  }
  return Compression::kNone;
}

// Whether the path is another name of it, as /dev/stdout. Where it leads to a regular file, an atomic write would put a
// file in the place of that name.
bool IsStandardOutput(const std::string& path) {
  struct stat named, out;
  return ::stat(path.c_str(), &named) == 0 && ::fstat(STDOUT_FILENO, &out) == 0 && named.st_dev == out.st_dev &&
         named.st_ino == out.st_ino;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScoreWriter>> ScoreWriter::Create(const std::string& path,
                                                                 const std::vector<std::string>& kept_columns) {
  std::unique_ptr<ScoreWriter> writer(new ScoreWriter());
  if (path != "-" && !IsStandardOutput(path)) {
    HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
    writer->file_.emplace(std::move(file));
  }
  HILOMOE_ASSIGN_OR_RETURN(
      writer->sink_, ByteSink::Create(CompressionOf(path),
                                      [raw = writer.get()](std::string_view bytes) { return raw->WriteOut(bytes); }));
  std::string header;
  for (const std::string& column : kept_columns) AppendCell(column, &header);
  header += "score\n";
  HILOMOE_RETURN_IF_ERROR(writer->sink_->Append(header));
  return writer;
}

absl::Status ScoreWriter::Append(std::string_view kept, float score) {
  char digits[32];
  const std::to_chars_result end = std::to_chars(digits, digits + sizeof(digits), score);
  line_.assign(kept);
  line_.append(digits, end.ptr);
  line_ += '\n';
  return sink_->Append(line_);
}

absl::Status ScoreWriter::Commit() {
  HILOMOE_RETURN_IF_ERROR(sink_->Finish());
  if (file_.has_value()) return file_->Commit();
  if (std::fflush(stdout) != 0) return SystemError(errno, "cannot write", "standard output");
  return absl::OkStatus();
}

absl::Status ScoreWriter::WriteOut(std::string_view bytes) {
  if (file_.has_value()) return file_->Append(bytes);
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size()) return absl::OkStatus();
  return SystemError(errno, "cannot write", "standard output");
}

void ScoreWriter::AppendCell(std::string_view cell, std::string* kept) {
  if (cell.find_first_of(",\"\r\n") == std::string_view::npos) {
    kept->append(cell);
  } else {
    *kept += '"';
    for (const char c : cell) {
      if (c == '"') *kept += '"';
      *kept += c;
    }
    *kept += '"';
  }
  *kept += ',';
}

}  // namespace hilomoe
