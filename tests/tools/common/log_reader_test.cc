#include "tools/common/log_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tools/common/byte_sink.h"

namespace hilomoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Rows = std::vector<std::vector<std::string>>;

std::string Compress(Compression compression, std::string_view bytes) {
  std::string out;
  auto sink = ByteSink::Create(compression, [&](std::string_view part) {
    out.append(part);
    return absl::OkStatus();
  });
  EXPECT_TRUE((*sink)->Append(bytes).ok());
  EXPECT_TRUE((*sink)->Finish().ok());
  return out;
}

struct Content {
  Rows rows;  // the header first
  std::vector<int64_t> lines;
  absl::Status status;
};

Content ReadRest(absl::StatusOr<LogReader> reader) {
  Content content;
  content.status = reader.status();
  if (!reader.ok()) return content;
  content.rows.emplace_back(reader->header().begin(), reader->header().end());
  content.lines.push_back(reader->line());
  LogReader::Row row;
  while (true) {
    const absl::StatusOr<bool> more = reader->Next(&row);
    if (!more.ok()) {
      content.status = more.status();
      EXPECT_EQ(reader->Next(&row).status(), more.status()) << "an error stays";
      break;
    }
    if (!*more) {
      EXPECT_FALSE(*reader->Next(&row)) << "the end stays";
      EXPECT_EQ(reader->row() + 1, static_cast<int64_t>(content.rows.size()));
      break;
    }
    content.rows.emplace_back(row.begin(), row.end());
    content.lines.push_back(reader->line());
  }
  return content;
}

Content Read(std::string bytes, std::string name = "log.csv", LogReaderOptions options = {}) {
  return ReadRest(LogReader::OpenBytes(std::move(name), std::move(bytes), options));
}

TEST(LogReaderTest, ReadsWellFormedLogs) {
  const std::string nul_free_tsv = "a\tb\n\"x\t1,2\n";
  struct {
    const char* what;
    std::string name;
    std::string bytes;
    Rows rows;
    std::vector<int64_t> lines;
  } const kCases[] = {
      {"plain", "log.csv", "a,b\n1,2\n3,4\n", {{"a", "b"}, {"1", "2"}, {"3", "4"}}, {1, 2, 3}},
      {"no last newline", "log.csv", "a,b\n1,2", {{"a", "b"}, {"1", "2"}}, {1, 2}},
      {"header alone", "log.csv", "a,b", {{"a", "b"}}, {1}},
      {"CRLF", "log.csv", "a,b\r\n1,2\r\n3,\r\n", {{"a", "b"}, {"1", "2"}, {"3", ""}}, {1, 2, 3}},
      {"CR at the end", "log.csv", "a,b\r\n1,2\r", {{"a", "b"}, {"1", "2"}}, {1, 2}},
      {"CR inside", "log.csv", "a,b\n1\r1,2\n", {{"a", "b"}, {"1\r1", "2"}}, {1, 2}},
      {"byte order mark",
       "log.csv",
       "\xef\xbb\xbf"
       "a,b\n1,2\n",
       {{"a", "b"}, {"1", "2"}},
       {1, 2}},
      {"mark and quote", "log.csv", "\xef\xbb\xbf\"a\",b\n", {{"a", "b"}}, {1}},
      {"empty cells", "log.csv", "a,b,c\n,,\n1,,\n", {{"a", "b", "c"}, {"", "", ""}, {"1", "", ""}}, {1, 2, 3}},
      {"blank lines", "log.csv", "\na,b\n\n1,2\n\r\n\n", {{"a", "b"}, {"1", "2"}}, {2, 4}},
      {"one column", "log.csv", "a\n1\n\n2\n", {{"a"}, {"1"}, {""}, {"2"}}, {1, 2, 3, 4}},
      {"quoted", "log.csv", "a,b\n\"x, y\",\"\"\n\"\",\"z\"", {{"a", "b"}, {"x, y", ""}, {"", "z"}}, {1, 2, 3}},
      {"doubled quotes", "log.csv", "a,b\n\"say \"\"hi\"\"\",\"\"\"\"\n", {{"a", "b"}, {"say \"hi\"", "\""}}, {1, 2}},
      {"newlines in quotes",
       "log.csv",
       "a,b\n\"1\n\n2\",\"3\r\n4\"\r\n5,6\n",
       {{"a", "b"}, {"1\n\n2", "3\r\n4"}, {"5", "6"}},
       {1, 2, 6}},
      {"quotes and CR at the end", "log.csv", "a,b\n\"1\",\"2\"\r", {{"a", "b"}, {"1", "2"}}, {1, 2}},
      {"quote inside a cell", "log.csv", "a,b\n5\" wide,a\"\"b\n", {{"a", "b"}, {"5\" wide", "a\"\"b"}}, {1, 2}},
      {"TSV has no quotes", "log.tsv", nul_free_tsv, {{"a", "b"}, {"\"x", "1,2"}}, {1, 2}},
      {"TSV by its name", "log.tsv.zst", "a\tb\n1\t\n", {{"a", "b"}, {"1", ""}}, {1, 2}},
  };
  for (const auto& test : kCases) {
    const Content content = Read(test.bytes, test.name);
    EXPECT_TRUE(content.status.ok()) << test.what << ": " << content.status;
    EXPECT_EQ(content.rows, test.rows) << test.what;
    EXPECT_EQ(content.lines, test.lines) << test.what;
  }
}

TEST(LogReaderTest, NamesThePlaceOfADefect) {
  const std::string nul("a,b\n1,2\n3,\0004\n", 13);
  struct {
    std::string bytes;
    size_t rows;  // before it, the header too
    const char* message;
  } const kCases[] = {
      {"", 0, "log.csv:1: the file is empty; a header line with the columns' names is needed"},
      {"\n\r\n", 0, "log.csv:3: the file is empty; a header line with the columns' names is needed"},
      {"a,b,a\n1,2,3\n", 0, "log.csv:1: the header names the column 'a' twice"},
      {"a,,\n", 0, "log.csv:1: the header names the column '' twice"},
      {"a,b,c\n1,2,3\n4,5\n", 2, "log.csv:3: 2 cells, but the header has 3"},
      {"a,b,c\n1\n", 1, "log.csv:2: 1 cell, but the header has 3"},
      {"a,b\n1,2\n\n3,4,5\n6,7\n", 2, "log.csv:4: 3 cells, but the header has 2"},
      {"a,b\n\"\"\n", 1, "log.csv:2: 1 cell, but the header has 2"},
      {"a\n1,\n", 1, "log.csv:2: 2 cells, but the header has 1"},
      {nul, 2, "log.csv:3: a NUL byte; a log must be UTF-8 text"},
      {"a,b\n1,2\n3,\"4\n5,6\n", 2, "log.csv:3: a quote opens in this line and never closes"},
      {"a,b\n\"1\n2\",\"3\n4", 1, "log.csv:3: a quote opens in this line and never closes"},
      {"a,b\n\"1\"2,3\n", 1, "log.csv:2: text after a closing quote; a quote inside a quoted cell must be doubled"},
      {"a,b\n\"1\n\"\r,3\n", 1, "log.csv:3: text after a closing quote; a quote inside a quoted cell must be doubled"},
  };
  for (const auto& test : kCases) {
    const Content content = Read(test.bytes);
    EXPECT_EQ(content.status.code(), absl::StatusCode::kInvalidArgument) << test.message;
    EXPECT_EQ(std::string(content.status.message()), test.message);
    EXPECT_EQ(content.rows.size(), test.rows) << test.message;
  }
}

TEST(LogReaderTest, LimitsTheLengthOfARow) {
  LogReaderOptions options;
  options.max_row_bytes = 10;
  EXPECT_TRUE(Read("a,b\n12345,7890\n", "log.csv", options).status.ok());
  const char* const kMessage = "log.csv:2: a row of more than 10 bytes begins here; is a quote not closed?";
  EXPECT_EQ(std::string(Read("a,b\n12345,78901\n", "log.csv", options).status.message()), kMessage);
  EXPECT_EQ(std::string(Read("a,b\n\"1234\",\"890\"\n", "log.csv", options).status.message()), kMessage);
  // Without an end in sight too, and before all of it is held in memory.
  const std::string endless = "a,b\n1,\"" + std::string(3 << 20, 'x');
  EXPECT_EQ(std::string(Read(endless, "log.csv", options).status.message()), kMessage);
}

TEST(LogReaderTest, TellsCompressionByContent) {
  const std::string text = "a,b\n1,2\n";
  for (const Compression compression : {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    for (const char* name : {"log.csv", "log.csv.gz", "log"}) {
      const Content content = Read(Compress(compression, text), name);
      EXPECT_TRUE(content.status.ok()) << content.status;
      EXPECT_EQ(content.rows, (Rows{{"a", "b"}, {"1", "2"}}));
    }
  }
}

TEST(LogReaderTest, HandsOutTheRowsBeforeATruncation) {
  std::string text = "a,b\n";
  std::mt19937 random(3);
  for (int i = 0; i < 500'000; ++i) text += std::to_string(random() % 10'000) + ",x\n";
  for (const Compression compression : {Compression::kGzip, Compression::kZstd}) {
    const std::string stored = Compress(compression, text);
    const Content content = Read(stored.substr(0, stored.size() / 2), "log.csv");
    EXPECT_EQ(content.status.code(), absl::StatusCode::kDataLoss);
    ASSERT_GT(content.rows.size(), 100'000u);
    ASSERT_LT(content.rows.size(), 400'000u);
    const std::string place = "log.csv:" + std::to_string(content.rows.size() + 1) + ": ";
    EXPECT_THAT(std::string(content.status.message()), HasSubstr(place));
    EXPECT_THAT(std::string(content.status.message()), HasSubstr("truncated"));
    // The last row is whole: the cut one is not handed out.
    EXPECT_EQ(content.rows.back().back(), "x");
  }
}

// Cells of all kinds and lengths, so that every state meets the buffer's end; and one row longer than the buffer.
TEST(LogReaderTest, ReadsBackRandomRowsWhereverTheBufferEnds) {
  std::mt19937 random(11);
  const auto cell = [&](bool quoted) {
    static constexpr std::string_view kPlain = "abc019^ ;\xc3\xa9";
    static constexpr std::string_view kAny = "abc\"\",\n\r\n019";
    const std::string_view letters = quoted ? kAny : kPlain;
    std::string text(random() % (random() % 50 == 0 ? 3000 : 12), '\0');
    for (char& letter : text) letter = letters[random() % letters.size()];
    return text;
  };
  const auto stored = [](const std::string& text, bool quoted) {
    if (!quoted) return text;
    std::string out = "\"";
    for (const char letter : text) out.append(letter == '"' ? 2 : 1, letter);
    return out + "\"";
  };
  Rows rows = {{"first", "second", "third"}};
  std::string bytes = "first,second,third\n";
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::string>& row = rows.emplace_back();
    for (int column = 0; column < 3; ++column) {
      const bool quoted = random() % 3 == 0;
      row.push_back(cell(quoted));
      if (i == 10'000 && column == 1) row.back() = std::string(1'000'000, 'x');
      bytes += stored(row.back(), quoted);
      bytes += column < 2 ? "," : random() % 4 == 0 ? "\r\n" : "\n";
    }
  }
  ASSERT_GT(bytes.size(), size_t{2} << 20);
  const Content content = Read(bytes);
  ASSERT_TRUE(content.status.ok()) << content.status;
  ASSERT_EQ(content.rows.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(content.rows[i], rows[i]) << "row " << i;
}

// The first fill of the buffer ends after every byte of the row's end once.
TEST(LogReaderTest, ReadsARowWhoseEndIsCut) {
  constexpr size_t kBufferBytes = 256 << 10;
  for (size_t size = kBufferBytes - 20; size < kBufferBytes + 2; ++size) {
    const std::string cell(size, 'x');
    const Content content = Read("a,b,c\n\"" + cell + "\",\"1\"\"\",\"2\"\r\n3,4,5\r\n");
    ASSERT_TRUE(content.status.ok()) << content.status;
    ASSERT_EQ(content.rows, (Rows{{"a", "b", "c"}, {cell, "1\"", "2"}, {"3", "4", "5"}})) << size;
    ASSERT_EQ(content.lines, (std::vector<int64_t>{1, 2, 3})) << size;
  }
}

TEST(LogReaderTest, ReadsAPipe) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::string text = Compress(Compression::kGzip, "a,b\n1,2\n3,4\n");
  std::thread writer([&] {
    // A byte at a time: short reads.
    for (const char byte : text) EXPECT_EQ(::write(ends[1], &byte, 1), 1);
    ::close(ends[1]);
  });
  absl::StatusOr<LogReader> reader = LogReader::Open("/dev/fd/" + std::to_string(ends[0]));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->total_bytes(), 0);
  LogReader::Row row;
  ASSERT_TRUE(*reader->Next(&row));
  EXPECT_THAT(row, ElementsAre("1", "2"));
  ASSERT_TRUE(*reader->Next(&row));
  EXPECT_FALSE(*reader->Next(&row));
  EXPECT_EQ(reader->bytes_read(), static_cast<int64_t>(text.size()));
  writer.join();
  ::close(ends[0]);
}

TEST(LogReaderTest, FindsColumns) {
  absl::StatusOr<LogReader> reader = LogReader::OpenBytes("log.csv", "label,price,device\n");
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(*reader->ColumnIndex("device"), 2);
  EXPECT_EQ(reader->ColumnIndex("prize").status(),
            absl::NotFoundError("log.csv: no column 'prize'; the header has label, price, device"));

  std::string wide = "c0";
  for (int i = 1; i < 1000; ++i) wide += ",c" + std::to_string(i);
  reader = LogReader::OpenBytes("log.csv", wide + "\n");
  ASSERT_TRUE(reader.ok());
  const std::string message(reader->ColumnIndex("x").status().message());
  EXPECT_THAT(message, HasSubstr("c1, c2, "));
  EXPECT_THAT(message, HasSubstr(", ... (1000 in all)"));
  EXPECT_LT(message.size(), 300u);
}

TEST(LogReaderTest, NamesAFileThatIsNotThere) {
  EXPECT_EQ(LogReader::Open("/no/such.csv").status(),
            absl::NotFoundError("/no/such.csv: cannot open: No such file or directory"));
}

TEST(CellTest, ParsesIntegers) {
  EXPECT_EQ(ParseInt64("0"), 0);
  EXPECT_EQ(ParseInt64("-17"), -17);
  EXPECT_EQ(ParseInt64("9223372036854775807"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(ParseInt64("-9223372036854775808"), std::numeric_limits<int64_t>::min());
  for (const char* bad : {"", " 1", "1 ", "+1", "1.0", "0x1", "abc", "-", "9223372036854775808"}) {
    EXPECT_EQ(ParseInt64(bad), std::nullopt) << bad;
  }
}

TEST(CellTest, ParsesNumbers) {
  EXPECT_EQ(ParseFloat("1.5"), 1.5f);
  EXPECT_EQ(ParseFloat("-2e3"), -2000.0f);
  EXPECT_EQ(ParseFloat(".5"), 0.5f);
  EXPECT_EQ(ParseFloat("7"), 7.0f);
  EXPECT_EQ(ParseFloat("0.1"), 0.1f);
  EXPECT_EQ(ParseFloat("1e-60"), 0.0f);
  EXPECT_EQ(ParseFloat("3.4028234663852886e38"), std::numeric_limits<float>::max());
  for (const char* bad : {"", " 1", "1 ", "+1", "nan", "NaN", "inf", "-inf", "infinity", "1e39", "3.5e38", "1e999",
                          "0x10", "1,5", "1.2.3", "abc", "e5", "-"}) {
    EXPECT_EQ(ParseFloat(bad), std::nullopt) << bad;
  }
}

TEST(CellTest, SaysWhichCellIsWrong) {
  absl::StatusOr<LogReader> reader = LogReader::OpenBytes("train.csv", "label,price\n1,2\n0,abc\n");
  ASSERT_TRUE(reader.ok());
  LogReader::Row row;
  ASSERT_TRUE(*reader->Next(&row));
  ASSERT_TRUE(*reader->Next(&row));
  EXPECT_EQ(CellError(*reader, "price", row[1], "is not a number"),
            absl::InvalidArgumentError("train.csv:3: column 'price': 'abc' is not a number"));
  EXPECT_EQ(CellError(*reader, "price", "a\n\x01", "is not a number"),
            absl::InvalidArgumentError("train.csv:3: column 'price': 'a\\n\\x01' is not a number"));
  EXPECT_EQ(
      CellError(*reader, "price", std::string(1000, 'x'), "is not a number"),
      absl::InvalidArgumentError("train.csv:3: column 'price': '" + std::string(40, 'x') + "...' is not a number"));
}

}  // namespace
}  // namespace hilomoe
