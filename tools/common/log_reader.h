// Reads a click log row by row, in bounded memory.
//
// A log is CSV or TSV (TSV by name: .tsv, .tsv.gz, .tsv.zst), plain, gzip or zstd (told apart by the first bytes,
// whatever the name), with one header line that names the columns. UTF-8; a byte order mark is skipped; lines end in LF
// or CRLF, the last one may lack its end; empty lines are skipped unless the log has one column only.
//
// CSV is RFC 4180: a cell that starts with a quote ends at the next single quote, may hold delimiters, newlines and
// doubled quotes, and nothing may follow it in its cell. A quote further inside a cell is an ordinary character. TSV
// has no quoting.
//
//   HILOMOE_ASSIGN_OR_RETURN(LogReader reader, LogReader::Open("train.csv.gz"));
//   HILOMOE_ASSIGN_OR_RETURN(const int price, reader.ColumnIndex("price"));
//   LogReader::Row row;
//   while (true) {
//     HILOMOE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
//     if (!more) break;
//     ... row[price] ...
//   }
//
// Threads: one at a time. Errors: INVALID_ARGUMENT for a malformed log, DATA_LOSS for a truncated or corrupt compressed
// stream, errno's code for the file itself; all name the file, those about the content start with "path:line: ". Rows
// decoded before an error are handed out first; after an error Next() repeats it.
#ifndef HILOMOE_TOOLS_COMMON_LOG_READER_H_
#define HILOMOE_TOOLS_COMMON_LOG_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/common/byte_source.h"

namespace hilomoe {

struct LogReaderOptions {
  enum class Format { kByName, kCsv, kTsv };
  Format format = Format::kByName;
  size_t max_row_bytes = size_t{64} << 20;  // a longer row is an error
};

class LogReader {
 public:
  // The cells of one row, as many as the header has.
  using Row = std::span<const std::string_view>;

  // Opens a file (which need not be seekable) and reads the header.
  static absl::StatusOr<LogReader> Open(std::string path, LogReaderOptions options = {});
  // The same over bytes in memory; `name` stands in for the path.
  static absl::StatusOr<LogReader> OpenBytes(std::string name, std::string bytes, LogReaderOptions options = {});

  LogReader(LogReader&&) = default;
  LogReader& operator=(LogReader&&) = default;

  const std::string& path() const { return path_; }
  std::span<const std::string> header() const { return header_; }
  // NOT_FOUND names the file and the columns there are.
  absl::StatusOr<int> ColumnIndex(std::string_view name) const;

  // True and the next row's cells, valid until the next call; or false at the end of the log.
  absl::StatusOr<bool> Next(Row* row);

  int64_t line() const { return line_; }  // from 1: where the latest row (at first: the header) began
  int64_t row() const { return row_; }    // rows handed out so far, the header not counted

  // How far the reader is: bytes as they lie in the file, compressed or not. total_bytes() is 0 where unknown (a pipe).
  int64_t bytes_read() const { return source_->bytes_read(); }
  int64_t total_bytes() const { return source_->total_bytes(); }

 private:
  // A cell inside the buffer; `escaped` if doubled quotes have to be undone.
  struct CellRange {
    size_t begin;
    size_t end;
    bool escaped;
  };
  enum class Scan { kRow, kBlank, kNeedMore, kEnd };

  LogReader() = default;
  static absl::StatusOr<LogReader> Start(std::string path, std::unique_ptr<ByteSource> source,
                                         const LogReaderOptions& options);
  absl::Status ReadHeader();
  absl::StatusOr<bool> NextRow();
  absl::StatusOr<Scan> ScanRow();
  absl::StatusOr<Scan> ScanQuotedRow();
  absl::StatusOr<std::optional<CellRange>> ScanQuotedCell(size_t open) const;
  absl::Status EndRow(size_t stop, int64_t newlines);
  absl::Status Fill();
  absl::Status RowTooLong() const;
  int64_t LineAt(size_t position) const;
  absl::Status ErrorAt(size_t position, std::string_view what) const;

  std::string path_;
  char delimiter_ = ',';
  bool quoting_ = true;
  size_t max_row_bytes_ = 0;
  std::unique_ptr<ByteSource> source_;

  // buffer_[begin_, end_) is read but not handed out.
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool source_ended_ = false;
  absl::Status source_status_;  // of the source, told once the rows before it are handed out
  absl::Status failed_;         // what Next() repeats

  std::vector<std::string> header_;
  std::vector<std::string_view> cells_;
  std::vector<CellRange> ranges_;
  int64_t line_ = 0;
  int64_t next_line_ = 1;
  int64_t row_ = 0;
};

// A decimal integer that fits, and nothing else: no blanks, no leading plus.
std::optional<int64_t> ParseInt64(std::string_view cell);

// A finite decimal number and nothing else. It is rounded to double, then to float, as pandas and numpy do; tiny
// numbers become 0; numbers beyond float's range are refused, and so are those too small even for a double (1e-400).
std::optional<float> ParseFloat(std::string_view cell);

// INVALID_ARGUMENT about a cell of the latest row: "train.csv:812: column 'price': 'abc' is not a number", for
// `problem` "is not a number". A long cell is shortened, unprintable bytes are escaped.
absl::Status CellError(const LogReader& reader, std::string_view column, std::string_view cell,
                       std::string_view problem);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_COMMON_LOG_READER_H_
