#include "tools/train/generate.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "tools/train/generate_random.h"
#include "tools/train/generate_world.h"

namespace hilomoe {
namespace {

constexpr std::string_view kHeader =
    "label,request_id,user_id,hour,weekday,device,country,account_days,hist_items,item_id,topic,"
    "price,position\n";
constexpr std::array<std::string_view, 3> kSplitNames = {"train", "valid", "test"};
constexpr std::array<double, 3> kSplitEnds = {0.8, 0.9, 1.0};
constexpr int64_t kFirstItemId = 100'000;
constexpr int64_t kMost = int64_t{1} << 31;
// How much of a day's traffic an hour has.
constexpr std::array<double, 24> kTraffic = {3, 2, 1, 1, 1, 2, 4,  6,  8,  7,  6, 6,
                                             7, 7, 6, 6, 7, 8, 10, 12, 13, 12, 9, 6};

absl::Status CheckOption(std::string_view name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), " is ", value, "; it must be from ", least, " to ", most));
}

absl::Status CheckOptions(const GenerateOptions& options) {
  if (options.output_dir.empty()) return absl::InvalidArgumentError("output_dir is not set");
  HILOMOE_RETURN_IF_ERROR(CheckOption("users", options.users, 1, kMost));
  HILOMOE_RETURN_IF_ERROR(CheckOption("topics", options.topics, World::kInterests, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckOption("max_candidates", options.max_candidates, 1, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckOption("min_candidates", options.min_candidates, 1, options.max_candidates));
  HILOMOE_RETURN_IF_ERROR(CheckOption("items", options.items, options.max_candidates, kMost));
  HILOMOE_RETURN_IF_ERROR(CheckOption("history_length", options.history_length, 0, 10'000));
  HILOMOE_RETURN_IF_ERROR(CheckOption("ceiling_rows", options.ceiling_rows, 0, kMost));
  HILOMOE_RETURN_IF_ERROR(CheckOption("days", options.days, 1, 100'000));
  // A tenth of the rows then holds a request at least, wherever the one before it ends.
  return CheckOption("rows", options.rows, 20 * options.max_candidates, int64_t{1} << 40);
}

void AppendNumber(std::string& out, int64_t value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
}

// Cents, so that the text does not depend on how floats are printed.
void AppendPrice(std::string& out, double price) {
  const int64_t cents = std::max<int64_t>(1, std::llround(price * 100));
  AppendNumber(out, cents / 100);
  out += '.';
  out += static_cast<char>('0' + cents / 10 % 10);
  out += static_cast<char>('0' + cents % 10);
}

// The last clicks of every user, in a ring each.
class Histories {
 public:
  Histories(size_t users, size_t length) : length_(length), items_(users * length), clicks_(users) {}

  void Append(size_t user, std::string& out) const {
    const uint64_t clicks = clicks_[user];
    const uint64_t kept = std::min<uint64_t>(clicks, length_);
    for (uint64_t i = clicks - kept; i < clicks; ++i) {
      if (i > clicks - kept) out += '^';
      AppendNumber(out, kFirstItemId + items_[user * length_ + i % length_]);
    }
  }

  void Click(size_t user, size_t item) {
    if (length_ == 0) return;
    items_[user * length_ + clicks_[user]++ % length_] = static_cast<uint32_t>(item);
  }

 private:
  size_t length_;
  std::vector<uint32_t> items_;
  std::vector<uint64_t> clicks_;
};

// One of the three files, with the truth about its first rows.
class SplitWriter {
 public:
  static absl::StatusOr<std::unique_ptr<SplitWriter>> Create(std::string_view name, const GenerateOptions& options) {
    std::unique_ptr<SplitWriter> writer(new SplitWriter);
    writer->split_.name = name;
    writer->ceiling_rows_ = static_cast<size_t>(options.ceiling_rows);
    const std::string path = (std::filesystem::path(options.output_dir) / name).string() + ".csv" +
                             std::string(FileSuffix(options.compression));
    writer->split_.path = path;
    HILOMOE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
    writer->file_.emplace(std::move(file));
    AtomicFile* const target = &*writer->file_;
    HILOMOE_ASSIGN_OR_RETURN(writer->sink_, ByteSink::Create(options.compression, [target](std::string_view bytes) {
                               return target->Append(bytes);
                             }));
    HILOMOE_RETURN_IF_ERROR(writer->sink_->Append(kHeader));
    return writer;
  }

  void AddTruth(uint64_t request, double probability, bool click) {
    ++split_.rows;
    split_.clicks += click ? 1 : 0;
    if (probability_.size() == ceiling_rows_) return;
    probability_.push_back(static_cast<float>(probability));
    label_.push_back(click ? 1 : 0);
    request_.push_back(request);
  }
  absl::Status AppendRequest(std::string_view rows) {
    ++split_.requests;
    return sink_->Append(rows);
  }
  // Ends the stream and measures. The file does not have its name yet.
  absl::Status Finish() {
    HILOMOE_RETURN_IF_ERROR(sink_->Finish());
    HILOMOE_ASSIGN_OR_RETURN(split_.ceiling, ComputeMetrics(probability_, label_, request_));
    probability_ = {};
    label_ = {};
    request_ = {};
    return absl::OkStatus();
  }
  absl::Status Commit() { return file_->Commit(); }
  const GenerateReport::Split& split() const { return split_; }

 private:
  SplitWriter() = default;

  GenerateReport::Split split_;
  std::optional<AtomicFile> file_;
  std::unique_ptr<ByteSink> sink_;
  size_t ceiling_rows_ = 0;
  std::vector<float> probability_;
  std::vector<uint8_t> label_;
  std::vector<uint64_t> request_;
};

// The requests of the log, one after another.
class RequestGenerator {
 public:
  explicit RequestGenerator(const GenerateOptions& options)
      : options_(options),
        world_({.seed = options.seed,
                .users = static_cast<size_t>(options.users),
                .items = static_cast<size_t>(options.items),
                .topics = static_cast<size_t>(options.topics)}),
        // Another stream than the world's, so that neither repeats the other's numbers.
        random_(~options.seed),
        histories_(static_cast<size_t>(options.users), static_cast<size_t>(options.history_length)) {
    double sum = 0;
    for (size_t hour = 0; hour < 24; ++hour) {
      sum += kTraffic[hour];
      hour_ends_[hour] = sum;
    }
  }

  // Appends the rows of the next request, at `time` days from the start, to `out`, and tells the writer the truth.
  // Returns how many rows, at most `most`.
  int64_t Next(double time, int64_t most, std::string& out, SplitWriter& writer) {
    const int64_t day = static_cast<int64_t>(time);
    const size_t u = world_.DrawUser(random_);
    const World::User& user = world_.user(u);
    const World::Context context = {.hour = Hour(time - static_cast<double>(day)),
                                    .weekday = static_cast<uint32_t>(day % 7),
                                    .device = world_.DrawDevice(user, random_)};
    ++request_;
    // Before the clicks are drawn: a history shows what was known when the request was made.
    WriteContext(u, context, day);

    const int64_t spread = options_.max_candidates - options_.min_candidates + 1;
    const int64_t drawn = options_.min_candidates + static_cast<int64_t>(random_.Below(static_cast<size_t>(spread)));
    const size_t count = static_cast<size_t>(std::min(drawn, most));
    DrawCandidates(user, count);
    for (size_t i = 0; i < count; ++i) {
      const World::Item& item = world_.item(candidates_[i]);
      const double discount = random_.Chance(0.15) ? 0.7 : 1;
      const double probability = world_.ClickProbability(user, context, item, discount, i + 1);
      const bool click = random_.Chance(probability);
      if (click) histories_.Click(u, candidates_[i]);
      writer.AddTruth(static_cast<uint64_t>(request_), probability, click);
      out += click ? '1' : '0';
      out += context_;
      AppendNumber(out, kFirstItemId + candidates_[i]);
      out += ",t";
      AppendNumber(out, item.topic);
      out += ',';
      AppendPrice(out, item.price * discount);
      out += ',';
      AppendNumber(out, static_cast<int64_t>(i + 1));
      out += '\n';
    }
    return static_cast<int64_t>(count);
  }

 private:
  uint32_t Hour(double part_of_day) const {
    const auto found = std::upper_bound(hour_ends_.begin(), hour_ends_.end(), part_of_day * hour_ends_.back());
    return static_cast<uint32_t>(
        std::min<size_t>(static_cast<size_t>(found - hour_ends_.begin()), hour_ends_.size() - 1));
  }

  void WriteContext(size_t u, const World::Context& context, int64_t day) {
    const World::User& user = world_.user(u);
    context_ = ",";
    AppendNumber(context_, request_);
    context_ += ",u";
    AppendNumber(context_, static_cast<int64_t>(u));
    context_ += ',';
    AppendNumber(context_, context.hour);
    context_ += ',';
    AppendNumber(context_, context.weekday);
    context_ += ',';
    context_ += World::kDevices[context.device];
    context_ += ',';
    if (user.country != World::kUnknownCountry) context_ += World::kCountries[user.country];
    context_ += ',';
    if (user.account_days >= 0) AppendNumber(context_, user.account_days + day);
    context_ += ',';
    histories_.Append(u, context_);
    context_ += ',';
  }

  void DrawCandidates(const World::User& user, size_t count) {
    candidates_.clear();
    while (candidates_.size() < count) {
      size_t item = world_.DrawItem(user, random_);
      // A page shows an item once. A few new draws keep the distribution; the step behind them ends the search.
      for (int attempt = 0; attempt < 4 && Chosen(item); ++attempt) {
        item = world_.DrawItem(user, random_);
      }
      while (Chosen(item)) item = (item + 1) % world_.items();
      candidates_.push_back(static_cast<uint32_t>(item));
    }
    // Without repeats, later draws are less popular items; the position must not tell.
    for (size_t i = count; i > 1; --i) {
      std::swap(candidates_[i - 1], candidates_[random_.Below(i)]);
    }
  }
  bool Chosen(size_t item) const {
    return std::find(candidates_.begin(), candidates_.end(), item) != candidates_.end();
  }

  const GenerateOptions& options_;
  World world_;
  PortableRandom random_;
  Histories histories_;
  std::array<double, 24> hour_ends_;
  int64_t request_ = 0;
  std::string context_;
  std::vector<uint32_t> candidates_;
};

nlohmann::ordered_json Number(const std::optional<double>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

std::string CeilingJson(const GenerateOptions& options, const GenerateReport& report) {
  nlohmann::ordered_json root;
  root["seed"] = options.seed;
  for (const GenerateReport::Split& split : report.splits) {
    const BinaryMetrics& ceiling = split.ceiling;
    root[split.name] = {
        {"file", std::filesystem::path(split.path).filename().string()},
        {"rows", split.rows},
        {"requests", split.requests},
        {"clicks", split.clicks},
        {"measured_rows", ceiling.rows},
        {"auc", Number(ceiling.auc)},
        {"gauc", Number(ceiling.grouped.gauc)},
        {"logloss", Number(ceiling.logloss)},
        {"normalised_entropy", Number(ceiling.normalised_entropy)},
        {"ece", Number(ceiling.ece)},
    };
  }
  return root.dump(2) + "\n";
}

// Gives the files their names, the one that tells about the others last. After an error takes back those given: a part
// of a log would be taken for all of it.
absl::Status Publish(const GenerateOptions& options, const GenerateReport& report,
                     const std::vector<std::unique_ptr<SplitWriter>>& writers) {
  absl::Status status;
  size_t published = 0;
  while (published < writers.size() && status.ok()) {
    status = writers[published]->Commit();
    if (status.ok()) ++published;
  }
  const std::string ceiling = (std::filesystem::path(options.output_dir) / "ceiling.json").string();
  if (status.ok()) status = WriteFile(ceiling, CeilingJson(options, report));
  for (size_t i = 0; !status.ok() && i < published; ++i) {
    const std::string& path = report.splits[i].path;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) std::filesystem::remove(path, ignored);
  }
  return status;
}

absl::Status Generate(const GenerateOptions& options, GenerateReport* report) {
  HILOMOE_RETURN_IF_ERROR(CheckOptions(options));
  std::error_code error;
  std::filesystem::create_directories(options.output_dir, error);
  if (error) return SystemError(error.value(), "cannot create directory", options.output_dir);

  std::vector<std::unique_ptr<SplitWriter>> writers;
  for (const std::string_view name : kSplitNames) {
    HILOMOE_ASSIGN_OR_RETURN(writers.emplace_back(), SplitWriter::Create(name, options));
  }
  RequestGenerator requests(options);
  std::string rows;
  int64_t done = 0;
  for (size_t i = 0; i < writers.size(); ++i) {
    const int64_t end = static_cast<int64_t>(kSplitEnds[i] * static_cast<double>(options.rows));
    while (done < end) {
      rows.clear();
      const double time =
          static_cast<double>(done) / static_cast<double>(options.rows) * static_cast<double>(options.days);
      done += requests.Next(time, options.rows - done, rows, *writers[i]);
      HILOMOE_RETURN_IF_ERROR(writers[i]->AppendRequest(rows));
      if (options.progress) options.progress(done);
    }
    HILOMOE_RETURN_IF_ERROR(writers[i]->Finish());
  }
  report->splits.clear();
  for (const std::unique_ptr<SplitWriter>& writer : writers) report->splits.push_back(writer->split());
  return Publish(options, *report, writers);
}

}  // namespace

absl::Status GenerateLog(const GenerateOptions& options, GenerateReport* report) {
  try {
    return Generate(options, report);
  } catch (const std::exception& error) {  // of std::vector and std::string: no memory
    return absl::ResourceExhaustedError(absl::StrCat("cannot generate a log of ", options.users, " users and ",
                                                     options.items, " items: ", error.what(), "; ask for fewer"));
  }
}

}  // namespace hilomoe
