#include "tools/train/run_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/file_io.h"
#include "model/status_macros.h"
#include "tools/report/html_page.h"
#include "tools/train/run_log.h"

namespace hilomoe {
namespace {

using Json = RunRecord::Json;

struct Metric {
  const char* key;
  const char* name;
  int decimals;
  const char* meaning;
};
constexpr Metric kMetrics[] = {
    {"auc", "AUC", 5, "higher is better"},
    {"gauc", "gAUC", 5, "within groups; higher is better"},
    {"logloss", "logloss", 5, "nats; lower is better"},
    {"normalised_entropy", "NE", 4, "1 = predicting the mean rate; lower is better"},
    {"ece", "ECE", 4, "calibration error; lower is better"},
};

// "430,720" and what it is more than without experts.
Card CostCard(const char* name, int64_t value, int64_t without) {
  const double more = without > 0 ? 100.0 * (static_cast<double>(value) / static_cast<double>(without) - 1) : 0;
  return {name, GroupDigits(value),
          value == without ? "no experts"
                           : absl::StrFormat("%+.1f %% against %s without experts", more, GroupDigits(without))};
}

// "2 experts"
std::string StageName(const RunRecord& record, size_t stage) {
  return absl::StrCat(stage + 1, " ", record.run.at("stages").at(stage).at("name").get<std::string>());
}

// The first 80 characters.
std::string Shortened(const std::string& text) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    // Bytes that continue a character do not count, and are not cut off from it.
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && ++characters > 80) return text.substr(0, i) + "…";
  }
  return text;
}

std::string Headline(const RunRecord& record, const Json* metrics, const std::string& of) {
  std::vector<Card> cards;
  if (metrics != nullptr) {
    for (const Metric& metric : kMetrics) {
      const std::optional<double> value = NumberIn(*metrics, metric.key);
      if (metric.key == std::string("gauc") && !value.has_value()) continue;
      cards.push_back({absl::StrCat(of, " ", metric.name), Decimals(value, metric.decimals), metric.meaning});
    }
    const double rows = NumberIn(*metrics, "rows").value_or(0), positives = NumberIn(*metrics, "positives").value_or(0);
    cards.push_back({absl::StrCat(of, " rows"), GroupDigits(static_cast<int64_t>(rows)),
                     absl::StrFormat("%.2f %% positive, predicted %.2f %%", rows > 0 ? 100 * positives / rows : 0,
                                     100 * NumberIn(*metrics, "mean_probability").value_or(0))});
  }
  const Json& flops = record.run.at("flops");
  cards.push_back(
      CostCard("FLOPs per row", flops.at("row").get<int64_t>(), flops.at("row_without_experts").get<int64_t>()));
  cards.push_back(CostCard("Parameters", record.run.at("parameters").get<int64_t>(),
                           record.run.at("parameters_without_experts").get<int64_t>()));
  return Cards(cards);
}

std::string RoutingValue(const RunRecord& record) {
  std::vector<std::string> tables;
  for (const Json& final : record.finals) {
    const Json& fixed = final.at("fixed_routing");
    if (fixed.is_null()) continue;
    const std::string split = final.at("split").get<std::string>();
    Table table(absl::StrCat("On the ", split, " rows"), {"", "routed per row", "routed alike", "difference"});
    for (const Metric& metric : kMetrics) {
      const std::optional<double> with = NumberIn(final.at("metrics"), metric.key);
      const std::optional<double> without = NumberIn(fixed, metric.key);
      if (!with.has_value() || !without.has_value()) continue;
      table.AddRow({metric.name, Decimals(with, metric.decimals), Decimals(without, metric.decimals),
                    SignedDecimals(*with - *without, 5)});
    }
    tables.push_back(table.Html());
  }
  if (tables.empty()) return "";
  return Section("routing", "The value of routing",
                 Paragraph("The same weights, evaluated once as trained and once with the routing scores of every row "
                           "replaced by their means over the rows: the experts stay, the choice among them goes. The "
                           "difference is what choosing per row is worth to this model.") +
                     FigureGrid(tables));
}

std::string SliceTable(const Json& slice, const std::string& split) {
  const int64_t distinct = slice.at("distinct").get<int64_t>();
  const size_t shown = slice.at("values").size();
  const bool grouped = std::any_of(slice.at("values").begin(), slice.at("values").end(),
                                   [](const Json& value) { return NumberIn(value.at("metrics"), "gauc").has_value(); });
  std::vector<std::string> heads = {"value", "rows", "AUC"};
  if (grouped) heads.emplace_back("gAUC");
  for (const char* head : {"logloss", "NE", "ECE", "positive %", "predicted %"}) heads.emplace_back(head);
  Table table(absl::StrCat("By ", slice.at("column").get<std::string>(), ", ", split, " rows; ", GroupDigits(distinct),
                           distinct == 1 ? " value" : " values"),
              heads);
  const auto add = [&](const std::string& name, const Json& metrics, bool tinted) {
    const double rows = NumberIn(metrics, "rows").value_or(0);
    std::vector<std::string> cells = {name, GroupDigits(static_cast<int64_t>(rows)),
                                      Decimals(NumberIn(metrics, "auc"), 4)};
    if (grouped) cells.push_back(Decimals(NumberIn(metrics, "gauc"), 4));
    cells.push_back(Decimals(NumberIn(metrics, "logloss"), 4));
    cells.push_back(Decimals(NumberIn(metrics, "normalised_entropy"), 3));
    cells.push_back(Decimals(NumberIn(metrics, "ece"), 4));
    cells.push_back(Decimals(rows > 0 ? 100 * NumberIn(metrics, "positives").value_or(0) / rows : 0, 2));
    cells.push_back(Decimals(100 * NumberIn(metrics, "mean_probability").value_or(0), 2));
    table.AddRow(cells, tinted);
  };
  for (const Json& value : slice.at("values")) {
    const std::string name = value.at("value").get<std::string>();
    add(name.empty() ? "(empty)" : Shortened(name), value.at("metrics"), false);
  }
  if (!slice.at("rest").is_null()) {
    add(absl::StrCat("all other ", GroupDigits(distinct - static_cast<int64_t>(shown))), slice.at("rest"), true);
  }
  return table.Html();
}

std::string Slices(const Json& final) {
  if (final.at("slices").empty()) return "";
  std::string html = Paragraph(
      "Metrics of the rows that share a value, the most frequent values first. A dash: rows of one class only. Few "
      "rows "
      "make uncertain numbers.");
  for (const Json& slice : final.at("slices")) html += SliceTable(slice, final.at("split").get<std::string>());
  return Section("slices", "Slices", html);
}

std::string RatesTable(const RunRecord& record) {
  constexpr const char* kGroups[] = {"embedding", "backbone", "expert", "router", "head"};
  Table table("Learning rates at each stage's first line of progress; a dash: frozen",
              {"stage", "embedding", "backbone", "expert", "router", "head"});
  size_t next = 0;
  for (const Json& event : record.progress) {
    const size_t stage = event.at("stage").get<size_t>();
    if (stage < next) continue;
    next = stage + 1;
    std::vector<std::string> cells = {StageName(record, stage)};
    for (const char* group : kGroups) {
      const std::optional<double> rate = NumberIn(event.at("learning_rates"), group);
      cells.push_back(rate.has_value() ? absl::StrFormat("%g", *rate) : "–");
    }
    table.AddRow(cells);
  }
  return table.empty() ? "" : table.Html();
}

std::string Stages(const RunRecord& record) {
  const std::string monitor = record.run.at("monitor").get<std::string>();
  const auto* metric = std::find_if(std::begin(kMetrics), std::end(kMetrics),
                                    [&](const Metric& candidate) { return monitor == candidate.key; });
  const std::string name = metric == std::end(kMetrics) ? monitor : metric->name;
  Table table("In the order of training; undone: never better than its start, so its steps were taken back",
              {"stage", "outcome", absl::StrCat("start ", name), absl::StrCat("best ", name), "experts", "epochs",
               "steps", "evaluations", "rate drops", "seconds"});
  double seconds_before = 0;
  const Json& stages = record.run.at("stages");
  for (size_t s = 0; s < stages.size(); ++s) {
    const Json& stage = stages.at(s);
    const Json *first = nullptr, *best = nullptr, *last = nullptr, *end = nullptr;
    for (const Json& event : record.stage_ends) {
      if (event.at("stage") == s) end = &event;
    }
    size_t evaluations = 0, drops = 0;
    double factor = 1;
    for (const Json& event : record.evaluations) {
      if (event.at("stage") != s) continue;
      if (first == nullptr) first = &event;
      if (event.at("best").get<bool>()) best = &event;
      last = &event;
      ++evaluations;
      // With the rates after a stage's last evaluation nothing was trained.
      const bool trained_on = end == nullptr || event.at("step") != end->at("step");
      if (event.at("rate_factor").get<double>() < factor && trained_on) ++drops;
      factor = event.at("rate_factor").get<double>();
    }
    const std::string experts = stage.at("experts").get<bool>() ? "on" : "off";
    const std::string epochs = absl::StrCat(" of ", stage.at("epochs").get<int64_t>());
    if (first == nullptr) {
      table.AddRow({StageName(record, s), "not begun", "–", "–", experts, "0" + epochs, "–", "–", "–", "–"});
      continue;
    }
    const Json& latest = end != nullptr ? *end : *last;
    const double seconds = NumberIn(latest, "seconds").value_or(0);
    const bool undone = end != nullptr && !end->at("kept").get<bool>();
    table.AddRow({StageName(record, s),
                  end == nullptr ? "under way"
                  : undone       ? "undone"
                                 : "kept",
                  Decimals(NumberIn(first->at("metrics"), monitor.c_str()), 5),
                  Decimals(NumberIn((best != nullptr ? best : first)->at("metrics"), monitor.c_str()), 5), experts,
                  latest.at("epoch").dump() + epochs,
                  GroupDigits(latest.at("step").get<int64_t>() - first->at("step").get<int64_t>()),
                  absl::StrCat(evaluations), absl::StrCat(drops), Decimals(seconds - seconds_before, 1)},
                 undone);
    seconds_before = seconds;
  }
  return Section("stages", "Stages", table.Html() + RatesTable(record));
}

std::string About(const RunRecord& record) {
  const Json& run = record.run;
  const Json& rows = run.at("rows");
  Table table("", {});
  const auto add = [&](const char* name, std::string value) { table.AddRow({name, std::move(value)}); };
  add("begun", run.at("created").get<std::string>());
  add("written by", run.at("created_by").get<std::string>());
  add("config digest", run.at("config_digest").get<std::string>());
  add("seed", absl::StrCat(run.at("seed").get<uint64_t>()));
  add("threads", absl::StrCat(run.at("threads").get<int64_t>()));
  add("training rows",
      absl::StrFormat("%s (%.2f %% positive)", GroupDigits(rows.at("train").get<int64_t>()),
                      100 * rows.at("train_positives").get<double>() / std::max(1.0, rows.at("train").get<double>())));
  add("validation rows", GroupDigits(rows.at("valid").get<int64_t>()));
  if (const Json* test = record.Final("test")) {
    add("test rows", GroupDigits(test->at("metrics").at("rows").get<int64_t>()));
  }
  const Json& flops = run.at("flops");
  // With the context's part computed once.
  add("FLOPs, request", GroupDigits(flops.at("request").get<int64_t>()));
  add("FLOPs, candidate", GroupDigits(flops.at("candidate").get<int64_t>()));
  if (record.resumes > 0) add("resumed", absl::StrCat(record.resumes, record.resumes == 1 ? " time" : " times"));
  return Section("run", "The run",
                 table.Html() + Unfold("Config", absl::StrCat("<pre>", EscapeHtml(run.at("config").get<std::string>()),
                                                              "</pre>\n")));
}

// One line: how far the run is.
std::string Subtitle(const RunRecord& record) {
  const std::string begun = record.run.at("created").get<std::string>();
  if (!record.end.is_null()) {
    return absl::StrFormat("Begun %s, finished after %.0f s of training and %s steps.", begun,
                           NumberIn(record.end, "seconds").value_or(0),
                           GroupDigits(record.end.at("step").get<int64_t>()));
  }
  return absl::StrFormat("Begun %s; not finished: %d of %d stages are over.", begun, record.stage_ends.size(),
                         record.run.at("stages").size());
}

std::string RunPage(const RunRecord& record) {
  const Json* final = record.Final("test");
  if (final == nullptr) final = record.Final("valid");
  std::string body;
  if (NumberIn(record.run, "format") != kRunLogFormat) {
    body += Paragraph("This record was written by another version; some of it may be missing here.");
  }
  if (record.run.contains("earlier_lost")) {
    body += Paragraph("The run was resumed, but the record of what came before was lost: curves begin there.");
  }
  const Json* metrics = nullptr;
  std::string of = "valid";
  Json utilisation = Json::array();
  if (final != nullptr) {
    metrics = &final->at("metrics");
    of = final->at("split").get<std::string>();
    utilisation = final->at("utilisation");
  } else {
    for (const Json& event : record.evaluations) {
      if (!event.at("best").get<bool>()) continue;
      metrics = &event.at("metrics");
      utilisation = event.at("utilisation");
    }
  }
  body += Headline(record, metrics, of);
  body += RoutingValue(record);
  body += LearningCurves(record);
  if (final != nullptr) body += CalibrationFigures(*final);
  body += ExpertUse(utilisation);
  if (final != nullptr) body += Slices(*final);
  body += Stages(record);
  body += About(record);
  return RenderPage({.title = "Training run",
                     .subtitle = Subtitle(record),
                     .body_html = std::move(body),
                     .footer = "Drawn from metrics.jsonl; hilomoe-train report --run=DIR draws it again."});
}

}  // namespace

absl::Status WriteRunReport(const std::string& run_dir, const std::string& output) {
  const std::string path = absl::StrCat(run_dir, "/", kRunLogName);
  HILOMOE_ASSIGN_OR_RETURN(const RunRecord record, ReadRunRecord(path));
  std::string page;
  try {
    page = RunPage(record);
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat("'", path, "' is not what training writes: ", error.what()));
  }
  return WriteFile(output, page);
}

}  // namespace hilomoe
