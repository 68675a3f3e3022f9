// Calibration, scores and experts in a run's report.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/report/charts.h"
#include "tools/report/html_page.h"
#include "tools/train/run_report.h"

namespace hilomoe {
namespace {

using Json = RunRecord::Json;

// The smallest of some round numbers that is not below `value`.
double RoundUp(double value) {
  for (const double top : {0.05, 0.1, 0.2, 0.3, 0.5, 0.75}) {
    if (value <= top) return top;
  }
  return 1;
}

std::string CalibrationFigure(const Json& final) {
  const Json& calibration = final.at("calibration");
  ChartSeries series{.name = "bins", .dots = true};
  Table table("Bins of equal size, by predicted probability", {"bin", "rows", "predicted", "observed", "difference"});
  double largest = 0;
  for (const Json& bin : calibration.at("bins")) {
    const int64_t rows = bin.at(0).get<int64_t>();
    const double predicted = bin.at(1).get<double>(), observed = bin.at(2).get<double>();
    series.points.push_back(
        {predicted, observed, false,
         absl::StrFormat("%s rows: predicted %.4f, observed %.4f", GroupDigits(rows), predicted, observed)});
    table.AddRow({absl::StrCat(series.points.size()), GroupDigits(rows), Decimals(predicted, 4), Decimals(observed, 4),
                  SignedDecimals(observed - predicted, 4)});
    largest = std::max({largest, predicted, observed});
  }
  const std::string ece = Decimals(NumberIn(final.at("metrics"), "ece"), 4);
  const std::string error = Decimals(NumberIn(calibration, "error"), 4);
  LineChart chart;
  chart.text = {.id = "calibration",
                .title = "Calibration",
                .description = absl::StrCat("Observed against predicted rate of positives in ", series.points.size(),
                                            " bins; mean distance ", error),
                .x_label = "predicted probability",
                .y_label = "observed rate"};
  chart.diagonal = true;
  chart.x_from = chart.y_from = 0;
  chart.x_to = chart.y_to = RoundUp(largest);
  chart.series = {std::move(series)};
  return Figure(
      "Calibration", Draw(chart),
      absl::StrCat("Rows in the order of their prediction, in bins of equal size; on the dotted line predictions are "
                   "right on average. ECE ",
                   ece, " (15 bins of equal width), ", error, " (the bins shown)."),
      table.Html());
}

std::string HistogramFigure(const Json& final) {
  const auto negatives = final.at("histogram").at("negatives").get<std::vector<int64_t>>();
  const auto positives = final.at("histogram").at("positives").get<std::vector<int64_t>>();
  const size_t n = std::min(negatives.size(), positives.size());
  int64_t negative_rows = 0, positive_rows = 0;
  for (size_t i = 0; i < n; ++i) {
    negative_rows += negatives[i];
    positive_rows += positives[i];
  }
  // As far as 99.5 % of either class lie; the rest joins the last bar.
  int64_t negatives_below = 0, positives_below = 0;
  size_t last = 0;
  while (last < n && (static_cast<double>(negatives_below) < 0.995 * static_cast<double>(negative_rows) ||
                      static_cast<double>(positives_below) < 0.995 * static_cast<double>(positive_rows))) {
    negatives_below += negatives[last];
    positives_below += positives[last++];
  }
  const double end = RoundUp(static_cast<double>(last) / static_cast<double>(n));
  const size_t shown = static_cast<size_t>(std::llround(end * static_cast<double>(n)));
  const size_t merged = std::max<size_t>(1, shown / 40), bars = (shown + merged - 1) / merged;
  MirrorHistogram chart;
  chart.up_name = "positive";
  chart.down_name = "negative";
  chart.up.resize(bars);
  chart.down.resize(bars);
  for (size_t i = 0; i < n; ++i) {
    const size_t bar = std::min(i / merged, bars - 1);
    chart.up[bar] += positives[i];
    chart.down[bar] += negatives[i];
  }
  chart.bin_width = static_cast<double>(merged) / static_cast<double>(n);
  chart.up_rows = positive_rows;
  chart.down_rows = negative_rows;
  chart.text = {.id = "scores",
                .title = "Scores",
                .description = absl::StrCat("Predicted probabilities of ", GroupDigits(positive_rows), " positive and ",
                                            GroupDigits(negative_rows), " negative rows"),
                .x_label = "predicted probability",
                .y_label = ""};
  Table table("Rows by predicted probability", {"from", "to", "positive", "negative"});
  for (size_t i = 0; i < bars; ++i) {
    const bool open = i + 1 == bars;
    table.AddRow({Decimals(static_cast<double>(i) * chart.bin_width, 4),
                  open ? "1" : Decimals(static_cast<double>(i + 1) * chart.bin_width, 4), GroupDigits(chart.up[i]),
                  GroupDigits(chart.down[i])});
  }
  return Figure(
      "Scores", Draw(chart),
      absl::StrCat("How the predictions of positive rows (upward) and of negative ones (downward) are spread, in "
                   "% of each class",
                   end < 1 ? "; what lies further right is in the last bar." : "."),
      table.Html());
}

std::string BlockFigure(const Json& block) {
  const std::string name = BlockName(block);
  HeatMap map;
  map.text = {.id = "experts-" + name, .title = "Experts of " + name};
  std::string dead;
  std::vector<std::string> heads = {"layer"};
  std::vector<std::vector<std::string>> rows;
  int l = 0;
  for (const Json& layer : block.at("layers")) {
    const auto scores = layer.at("scores").get<std::vector<double>>();
    if (scores.empty()) continue;
    const double even = 1.0 / static_cast<double>(scores.size()), entropy = layer.at("entropy").get<double>();
    HeatMap::Row row{absl::StrFormat("layer %d · entropy %.3f of ln %d", l, entropy, scores.size()), {}};
    std::vector<std::string> cells = {absl::StrCat(l)};
    for (size_t i = 0; i < scores.size(); ++i) {
      row.cells.push_back(
          {scores[i] / even, false,
           absl::StrFormat("expert %d: mean score %.4f, %.3f of an even share", i, scores[i], scores[i] / even)});
      cells.push_back(Decimals(scores[i] / even, 3));
      if (heads.size() <= scores.size()) heads.push_back(absl::StrCat(i));
    }
    std::string list;
    for (const Json& expert : layer.at("dead")) {
      row.cells.at(expert.get<size_t>()).crossed = true;
      absl::StrAppend(&list, list.empty() ? "" : ", ", expert.get<int>());
    }
    if (!list.empty()) absl::StrAppend(&dead, dead.empty() ? "" : "; ", "layer ", l, ": expert ", list);
    const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
    absl::StrAppend(&map.text.description,
                    absl::StrFormat("layer %d: entropy %.3f, loads from %.2f to %.2f of an even share. ", l, entropy,
                                    *low / even, *high / even));
    map.rows.push_back(std::move(row));
    rows.push_back(std::move(cells));
    ++l;
  }
  Table table("Mean score of each expert, 1 = an even share", heads);
  for (const std::vector<std::string>& cells : rows) table.AddRow(cells);
  return Figure(name, Draw(map),
                dead.empty() ? "No dead experts." : absl::StrCat("Dead experts, crossed out: ", dead, "."),
                table.Html());
}

}  // namespace

std::string CalibrationFigures(const Json& final) {
  return Section("calibration", "Calibration and scores",
                 FigureGrid({CalibrationFigure(final), HistogramFigure(final)}));
}

std::string ExpertUse(const Json& utilisation) {
  if (utilisation.empty()) return "";
  std::vector<std::string> figures;
  size_t experts = 0, dead = 0;
  for (const Json& block : utilisation) {
    figures.push_back(BlockFigure(block));
    for (const Json& layer : block.at("layers")) {
      experts += layer.at("scores").size();
      dead += layer.at("dead").size();
    }
  }
  return Section(
      "experts", "Expert use",
      Paragraph(absl::StrCat(
          dead, " of ", experts,
          " experts are dead. A cell is an expert's mean score over the rows, 1.00 being an even share (1/K): bluer is "
          "more, more orange is less, full colour at four times and a quarter. An expert is dead below 1 % of an even "
          "share. Entropy is that of a row's scores, averaged over rows, as a share of ln K: near 1 rows use all "
          "experts of the layer alike, near 0 one each.")) +
          FigureGrid(figures));
}

}  // namespace hilomoe
