// The learning curves of a run's report.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/report/charts.h"
#include "tools/report/html_page.h"
#include "tools/train/run_report.h"

namespace hilomoe {
namespace {

using Json = RunRecord::Json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
// The first intervals of a run only tell that it began at nothing; they would flatten all that follows.
constexpr size_t kWarmUpIntervals = 3;

double StepOf(const Json& event) { return event.at("step").get<double>(); }

// What all curves share: the stages, and where learning rates dropped.
LineChart Frame(const RunRecord& record) {
  LineChart chart;
  chart.text.x_label = "step (batches)";
  const Json& stages = record.run.at("stages");
  for (const Json& event : record.evaluations) {
    const size_t stage = event.at("stage").get<size_t>();
    if (chart.bands.size() <= stage) {
      chart.bands.resize(stage + 1);
      chart.bands[stage] = {
          StepOf(event), StepOf(event), {stages.at(stage).at("name").get<std::string>(), absl::StrCat(stage + 1)}};
    }
    chart.bands[stage].end = StepOf(event);
  }
  for (const Json& event : record.progress) {
    ChartBand& band = chart.bands.at(event.at("stage").get<size_t>());
    band.end = std::max(band.end, StepOf(event));
  }
  for (const Json& event : record.stage_ends) {
    if (event.at("kept").get<bool>()) continue;
    std::vector<std::string>& labels = chart.bands.at(event.at("stage").get<size_t>()).labels;
    labels.insert(labels.begin(), {labels.at(0) + " (undone)", labels.at(1) + " (undone)"});
  }
  for (size_t i = 1; i + 1 < record.evaluations.size(); ++i) {
    const Json &before = record.evaluations[i - 1], &event = record.evaluations[i], &after = record.evaluations[i + 1];
    const bool same = before.at("stage") == event.at("stage") && event.at("stage") == after.at("stage");
    if (same && event.at("rate_factor") < before.at("rate_factor")) chart.marks.push_back(StepOf(event));
  }
  return chart;
}

// Which evaluations stand: per stage that kept anything, its last best.
std::vector<bool> Kept(const RunRecord& record) {
  std::vector<bool> kept(record.evaluations.size());
  for (const Json& end : record.stage_ends) {
    size_t best = kept.size();
    for (size_t i = 0; i < kept.size(); ++i) {
      const Json& event = record.evaluations[i];
      if (event.at("stage") == end.at("stage") && event.at("best").get<bool>()) best = i;
    }
    if (best < kept.size()) kept[best] = true;
  }
  return kept;
}

ChartSeries ValidSeries(const RunRecord& record, const char* metric, std::string name) {
  ChartSeries series{.name = std::move(name), .dots = true};
  const std::vector<bool> kept = Kept(record);
  for (size_t i = 0; i < record.evaluations.size(); ++i) {
    const Json& event = record.evaluations[i];
    const std::optional<double> value = NumberIn(event.at("metrics"), metric);
    series.points.push_back({StepOf(event), value.value_or(kNone), kept[i],
                             absl::StrFormat("%s at step %.0f: %s%s", series.name, StepOf(event), Decimals(value, 5),
                                             kept[i] ? " (kept)" : "")});
  }
  return series;
}

ChartSeries ProgressSeries(const RunRecord& record, const char* key, std::string name) {
  ChartSeries series{.name = std::move(name)};
  for (const Json& event : record.progress) {
    series.points.push_back({StepOf(event), NumberIn(event, key).value_or(kNone), false, ""});
  }
  return series;
}

// Adds the values from `first` on to the bounds.
void Fit(const ChartSeries& series, size_t first, LineChart* chart) {
  for (size_t i = series.points.size() > first ? first : 0; i < series.points.size(); ++i) {
    const double y = series.points[i].y;
    if (!(y == y)) continue;
    chart->y_from = std::min(chart->y_from.value_or(y), y);
    chart->y_to = std::max(chart->y_to.value_or(y), y);
  }
}

std::string Spoken(const ChartSeries& series) {
  const auto first = std::find_if(series.points.begin(), series.points.end(), [](const auto& p) { return p.y == p.y; });
  const auto last =
      std::find_if(series.points.rbegin(), series.points.rend(), [](const auto& p) { return p.y == p.y; });
  if (first == series.points.end()) return "";
  return absl::StrFormat("%s from %.4f to %.4f. ", series.name, first->y, last->y);
}

std::string EvaluationsTable(const RunRecord& record) {
  Table table("Every evaluation on the validation rows",
              {"stage", "epoch", "step", "AUC", "gAUC", "logloss", "NE", "ECE", ""});
  const std::vector<bool> kept = Kept(record);
  for (size_t i = 0; i < record.evaluations.size(); ++i) {
    const Json& event = record.evaluations[i];
    const Json& metrics = event.at("metrics");
    table.AddRow({record.run.at("stages").at(event.at("stage").get<size_t>()).at("name").get<std::string>(),
                  absl::StrCat(event.at("epoch").get<int64_t>()), GroupDigits(event.at("step").get<int64_t>()),
                  Decimals(NumberIn(metrics, "auc"), 5), Decimals(NumberIn(metrics, "gauc"), 5),
                  Decimals(NumberIn(metrics, "logloss"), 5), Decimals(NumberIn(metrics, "normalised_entropy"), 4),
                  Decimals(NumberIn(metrics, "ece"), 4), kept[i] ? "kept" : ""},
                 kept[i]);
  }
  return table.Html();
}

std::string LossFigure(const RunRecord& record) {
  LineChart chart = Frame(record);
  chart.series = {ProgressSeries(record, "loss", "train"), ValidSeries(record, "logloss", "valid")};
  Fit(chart.series[0], kWarmUpIntervals, &chart);
  Fit(chart.series[1], 1, &chart);
  chart.text.id = "loss";
  chart.text.title = "Loss";
  chart.text.description = absl::StrCat(Spoken(chart.series[0]), Spoken(chart.series[1]));
  return Figure("Loss", Draw(chart),
                "Binary cross-entropy in nats: of the training batches (dropout on, mean of an interval) and of the "
                "validation rows. The first moments of training are cut off.",
                EvaluationsTable(record));
}

std::string AucFigure(const RunRecord& record) {
  LineChart chart = Frame(record);
  chart.series = {ValidSeries(record, "auc", "AUC")};
  ChartSeries grouped = ValidSeries(record, "gauc", "gAUC");
  grouped.dashed = true;
  const bool any = std::any_of(grouped.points.begin(), grouped.points.end(), [](const auto& p) { return p.y == p.y; });
  if (any) chart.series.push_back(std::move(grouped));
  chart.text.y_label = "AUC";
  for (const ChartSeries& series : chart.series) {
    Fit(series, 1, &chart);
    chart.text.description += Spoken(series);
  }
  chart.text.id = "auc";
  chart.text.title = "Validation AUC";
  return Figure(any ? "Validation AUC and gAUC" : "Validation AUC", Draw(chart),
                "Rings: the weights that a stage kept. The untrained network is cut off.");
}

std::string EntropyFigure(const RunRecord& record) {
  LineChart chart = Frame(record);
  for (const Json& event : record.evaluations) {
    const Json& utilisation = event.at("utilisation");
    for (size_t i = 0; i < utilisation.size() && i < 4; ++i) {
      const Json& block = utilisation.at(i);
      if (chart.series.size() <= i) {
        chart.series.push_back({.name = BlockName(block), .dots = true, .dashed = i % 2 == 1});
      }
      double sum = 0;
      for (const Json& layer : block.at("layers")) sum += layer.at("entropy").get<double>();
      chart.series[i].points.push_back(
          {StepOf(event), sum / static_cast<double>(block.at("layers").size()), false, ""});
    }
  }
  if (chart.series.empty()) return "";
  for (const ChartSeries& series : chart.series) chart.text.description += Spoken(series);
  chart.text.y_label = chart.series[0].name;
  chart.y_to = 1;
  chart.text.id = "entropy";
  chart.text.title = "Routing entropy";
  return Figure("Routing entropy", Draw(chart),
                "Mean over a block's layers and the validation rows, as a share of ln K: 1 = every row uses all "
                "experts alike, 0 = one expert each. Of more than four blocks the first four are shown.");
}

std::string GradientFigure(const RunRecord& record) {
  LineChart chart = Frame(record);
  chart.series = {ProgressSeries(record, "gradient_norm", "mean"),
                  ProgressSeries(record, "gradient_norm_max", "largest")};
  chart.series[1].dashed = true;
  for (const ChartSeries& series : chart.series) {
    Fit(series, kWarmUpIntervals, &chart);
    chart.text.description += Spoken(series);
  }
  chart.text.id = "gradient";
  chart.text.title = "Gradient norm";
  return Figure("Gradient norm", Draw(chart), "Of all trained parameters, per interval, before clipping.");
}

}  // namespace

std::string LearningCurves(const RunRecord& record) {
  if (record.evaluations.empty()) return "";
  std::vector<std::string> figures = {LossFigure(record), AucFigure(record)};
  if (std::string entropy = EntropyFigure(record); !entropy.empty()) figures.push_back(std::move(entropy));
  if (!record.progress.empty()) figures.push_back(GradientFigure(record));
  return Section("curves", "Learning curves",
                 Paragraph("Shaded and plain stretches are the stages; dotted lines mark where the learning rates "
                           "dropped because an evaluation was no better.") +
                     FigureGrid(figures));
}

}  // namespace hilomoe
