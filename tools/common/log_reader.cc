#include "tools/common/log_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/status_macros.h"

namespace hilomoe {
namespace {

// Large enough that reads are few, small enough that a row is still in the second-level cache when it is split.
constexpr size_t kBufferBytes = 256 << 10;
constexpr size_t kShownBytes = 40;
constexpr size_t kListedBytes = 200;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

std::string Shown(std::string_view text) {
  std::string shown = absl::CHexEscape(View(text.substr(0, kShownBytes)));
  if (text.size() > kShownBytes) shown += "...";
  return shown;
}

bool IsTsvName(std::string_view path) {
  for (std::string_view suffix : {".tsv", ".tsv.gz", ".tsv.zst"}) {
    if (path.ends_with(suffix)) return true;
  }
  return false;
}

// Undoes doubled quotes in place and returns the new length.
size_t UndoubleQuotes(char* cell, size_t size) {
  size_t to = 0;
  for (size_t from = 0; from < size; ++from) {
    cell[to++] = cell[from];
    if (cell[from] == '"') ++from;
  }
  return to;
}

}  // namespace

absl::StatusOr<LogReader> LogReader::Open(std::string path, LogReaderOptions options) {
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Open(path);
  if (!source.ok()) {
    return absl::Status(source.status().code(), absl::StrCat(path, ": ", source.status().message()));
  }
  return Start(std::move(path), *std::move(source), options);
}

absl::StatusOr<LogReader> LogReader::OpenBytes(std::string name, std::string bytes, LogReaderOptions options) {
  HILOMOE_ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, ByteSource::OpenBytes(std::move(bytes)));
  return Start(std::move(name), std::move(source), options);
}

absl::StatusOr<LogReader> LogReader::Start(std::string path, std::unique_ptr<ByteSource> source,
                                           const LogReaderOptions& options) {
  using Format = LogReaderOptions::Format;
  LogReader reader;
  const bool tsv = options.format == Format::kTsv || (options.format == Format::kByName && IsTsvName(path));
  reader.path_ = std::move(path);
  reader.delimiter_ = tsv ? '\t' : ',';
  reader.quoting_ = !tsv;
  reader.max_row_bytes_ = options.max_row_bytes;
  reader.source_ = std::move(source);
  reader.buffer_.resize(kBufferBytes);
  HILOMOE_RETURN_IF_ERROR(reader.ReadHeader());
  return reader;
}

absl::Status LogReader::ReadHeader() {
  HILOMOE_RETURN_IF_ERROR(Fill());
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (std::string_view(buffer_.data(), end_).starts_with(kByteOrderMark)) {
    begin_ = kByteOrderMark.size();
  }
  HILOMOE_ASSIGN_OR_RETURN(const bool found, NextRow());
  if (!found) {
    return ErrorAt(begin_, "the file is empty; a header line with the columns' names is needed");
  }
  header_.assign(cells_.begin(), cells_.end());
  std::vector<std::string_view> sorted(header_.begin(), header_.end());
  std::sort(sorted.begin(), sorted.end());
  const auto duplicate = std::adjacent_find(sorted.begin(), sorted.end());
  if (duplicate != sorted.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ":", line_, ": the header names the column '", Shown(*duplicate), "' twice"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> LogReader::ColumnIndex(std::string_view name) const {
  const auto found = std::find(header_.begin(), header_.end(), name);
  if (found != header_.end()) return static_cast<int>(found - header_.begin());
  std::string columns;
  for (const std::string& column : header_) {
    if (columns.size() > kListedBytes) {
      absl::StrAppend(&columns, ", ... (", header_.size(), " in all)");
      break;
    }
    absl::StrAppend(&columns, columns.empty() ? "" : ", ", Shown(column));
  }
  return absl::NotFoundError(absl::StrCat(path_, ": no column '", Shown(name), "'; the header has ", columns));
}

absl::StatusOr<bool> LogReader::Next(Row* row) {
  if (!failed_.ok()) return failed_;
  const absl::StatusOr<bool> found = NextRow();
  if (!found.ok()) {
    failed_ = found.status();
    return failed_;
  }
  if (!*found) return false;
  if (cells_.size() != header_.size()) {
    failed_ = absl::InvalidArgumentError(absl::StrCat(path_, ":", line_, ": ", cells_.size(),
                                                      cells_.size() == 1 ? " cell" : " cells", ", but the header has ",
                                                      header_.size()));
    return failed_;
  }
  ++row_;
  *row = cells_;
  return true;
}

absl::StatusOr<bool> LogReader::NextRow() {
  while (true) {
    HILOMOE_ASSIGN_OR_RETURN(const Scan scan, ScanRow());
    switch (scan) {
      case Scan::kRow:
        return true;
      case Scan::kEnd:
        return false;
      case Scan::kBlank:
        break;
      case Scan::kNeedMore:
        HILOMOE_RETURN_IF_ERROR(Fill());
    }
  }
}

// Reads on until the buffer is full, so that the number of times a long row is scanned anew grows with the logarithm of
// its length.
absl::Status LogReader::Fill() {
  if (end_ - begin_ > max_row_bytes_) return RowTooLong();
  if (!source_status_.ok()) {
    return absl::Status(source_status_.code(), absl::StrCat(path_, ":", LineAt(end_), ": ", source_status_.message()));
  }
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  } else if (end_ == buffer_.size()) {
    buffer_.resize(2 * buffer_.size());
  }
  while (end_ < buffer_.size()) {
    const absl::StatusOr<size_t> count = source_->Read(buffer_.data() + end_, buffer_.size() - end_);
    if (!count.ok()) {
      source_status_ = count.status();
      break;
    }
    if (*count == 0) {
      source_ended_ = true;
      break;
    }
    end_ += *count;
  }
  return absl::OkStatus();
}

absl::StatusOr<LogReader::Scan> LogReader::ScanRow() {
  const char* const base = buffer_.data();
  const void* const newline = std::memchr(base + begin_, '\n', end_ - begin_);
  const size_t stop = newline != nullptr ? static_cast<size_t>(static_cast<const char*>(newline) - base) : end_;
  if (quoting_ && std::memchr(base + begin_, '"', stop - begin_) != nullptr) return ScanQuotedRow();
  if (newline == nullptr && !source_ended_) return Scan::kNeedMore;
  if (begin_ == end_) return Scan::kEnd;

  size_t cells_end = stop;
  if (cells_end > begin_ && base[cells_end - 1] == '\r') --cells_end;
  const bool blank = cells_end == begin_ && header_.size() != 1;
  if (!blank) {
    cells_.clear();
    size_t at = begin_;
    while (const void* found = std::memchr(base + at, delimiter_, cells_end - at)) {
      const size_t end = static_cast<size_t>(static_cast<const char*>(found) - base);
      cells_.emplace_back(base + at, end - at);
      at = end + 1;
    }
    cells_.emplace_back(base + at, cells_end - at);
  }
  HILOMOE_RETURN_IF_ERROR(EndRow(stop, 0));
  return blank ? Scan::kBlank : Scan::kRow;
}

// A quote may hide delimiters and newlines, so that cells are found one after another. They are changed only when the
// whole row is there, because an incomplete one is scanned again.
absl::StatusOr<LogReader::Scan> LogReader::ScanQuotedRow() {
  ranges_.clear();
  char* const base = buffer_.data();
  size_t at = begin_;
  while (true) {
    size_t stop;
    if (at < end_ && base[at] == '"') {
      HILOMOE_ASSIGN_OR_RETURN(const std::optional<CellRange> range, ScanQuotedCell(at));
      if (!range.has_value()) return Scan::kNeedMore;
      ranges_.push_back(*range);
      stop = range->end + 1;
      // A carriage return belongs to the row's end only if nothing or a newline follows.
      if (stop < end_ && base[stop] == '\r') {
        if (stop + 1 == end_ && !source_ended_) return Scan::kNeedMore;
        if (stop + 1 == end_ || base[stop + 1] == '\n') ++stop;
      }
      if (stop < end_ && base[stop] != delimiter_ && base[stop] != '\n') {
        return ErrorAt(stop, "text after a closing quote; a quote inside a quoted cell must be doubled");
      }
    } else {
      stop = at;
      while (stop < end_ && base[stop] != delimiter_ && base[stop] != '\n') ++stop;
      if (stop == end_ && !source_ended_) return Scan::kNeedMore;
      const bool last = stop == end_ || base[stop] == '\n';
      const bool carriage_return = last && stop > at && base[stop - 1] == '\r';
      ranges_.push_back({at, carriage_return ? stop - 1 : stop, false});
    }
    if (stop == end_ || base[stop] == '\n') {
      const int64_t newlines = std::count(base + begin_, base + stop, '\n');
      HILOMOE_RETURN_IF_ERROR(EndRow(stop, newlines));
      break;
    }
    at = stop + 1;
  }
  cells_.clear();
  for (const CellRange& range : ranges_) {
    const size_t size = range.end - range.begin;
    char* const cell = base + range.begin;
    cells_.emplace_back(cell, range.escaped ? UndoubleQuotes(cell, size) : size);
  }
  return Scan::kRow;
}

// The inside of the quoted cell that opens at `open`; nullopt if its end is not in the buffer yet.
absl::StatusOr<std::optional<LogReader::CellRange>> LogReader::ScanQuotedCell(size_t open) const {
  const char* const base = buffer_.data();
  CellRange range = {open + 1, open + 1, false};
  while (true) {
    const void* const quote = std::memchr(base + range.end, '"', end_ - range.end);
    if (quote == nullptr) {
      if (!source_ended_) return std::nullopt;
      return ErrorAt(open, "a quote opens in this line and never closes");
    }
    range.end = static_cast<size_t>(static_cast<const char*>(quote) - base);
    if (range.end + 1 == end_ && !source_ended_) return std::nullopt;
    if (range.end + 1 == end_ || base[range.end + 1] != '"') return range;
    range.escaped = true;
    range.end += 2;
  }
}

// Leaves the row [begin_, stop) behind, whose cells hold so many newlines.
absl::Status LogReader::EndRow(size_t stop, int64_t newlines) {
  if (stop - begin_ > max_row_bytes_) return RowTooLong();
  if (const void* nul = std::memchr(buffer_.data() + begin_, '\0', stop - begin_)) {
    return ErrorAt(static_cast<size_t>(static_cast<const char*>(nul) - buffer_.data()),
                   "a NUL byte; a log must be UTF-8 text");
  }
  line_ = next_line_;
  next_line_ += newlines + 1;
  begin_ = std::min(stop + 1, end_);
  return absl::OkStatus();
}

absl::Status LogReader::RowTooLong() const {
  return ErrorAt(begin_,
                 absl::StrCat("a row of more than ", max_row_bytes_, " bytes begins here; is a quote not closed?"));
}

int64_t LogReader::LineAt(size_t position) const {
  const char* const base = buffer_.data();
  return next_line_ + std::count(base + begin_, base + position, '\n');
}

absl::Status LogReader::ErrorAt(size_t position, std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, ":", LineAt(position), ": ", View(what)));
}

std::optional<int64_t> ParseInt64(std::string_view cell) {
  int64_t value;
  const char* const end = cell.data() + cell.size();
  const auto [rest, error] = std::from_chars(cell.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

std::optional<float> ParseFloat(std::string_view cell) {
  double value;
  const char* const end = cell.data() + cell.size();
  const auto [rest, error] = std::from_chars(cell.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  // The conversion of a value beyond float's range would be undefined; halfway to the next power of two it would round
  // to infinity. NaN fails the comparison too.
  if (!(std::abs(value) <= std::numeric_limits<float>::max())) return std::nullopt;
  return static_cast<float>(value);
}

absl::Status CellError(const LogReader& reader, std::string_view column, std::string_view cell,
                       std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(reader.path(), ":", reader.line(), ": column '", Shown(column), "': '",
                                                 Shown(cell), "' ", View(problem)));
}

}  // namespace hilomoe
