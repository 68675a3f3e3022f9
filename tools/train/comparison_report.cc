#include "tools/train/comparison_report.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "tools/report/charts.h"
#include "tools/report/html_page.h"
#include "tools/report/svg.h"

namespace hilomoe {
namespace {

constexpr char kNone[] = "–";
constexpr size_t kAuc = static_cast<size_t>(TestMetric::kAuc), kGauc = static_cast<size_t>(TestMetric::kGauc),
                 kLogloss = static_cast<size_t>(TestMetric::kLogloss);

const char* Title(TestMetric metric) {
  switch (metric) {
    case TestMetric::kAuc:
      return "AUC";
    case TestMetric::kGauc:
      return "gAUC";
    default:
      return "logloss";
  }
}

std::string Spread(const Sample& sample, int digits) {
  if (sample.n == 0) return kNone;
  std::string text = absl::StrFormat("%.*f", digits, sample.mean);
  if (sample.deviation.has_value()) absl::StrAppendFormat(&text, " ± %.*f", digits, *sample.deviation);
  return text;
}

std::string Text(const std::optional<Interval>& interval) {
  return interval.has_value() ? absl::StrFormat("[%+.5f, %+.5f]", interval->low, interval->high) : kNone;
}

std::string ArmName(const ComparisonPlan& plan, const ComparisonChoice& choice, size_t a) {
  std::string name = plan.arms[a].name;
  if (a == plan.judged) name += " (judged)";
  if (plan.arms[a].control) name += choice.best_control == a ? " (best control)" : " (control)";
  return name;
}

std::string SeedsText(const std::vector<uint64_t>& seeds) {
  const bool range = seeds.size() > 2 && seeds.back() - seeds.front() == seeds.size() - 1 &&
                     std::is_sorted(seeds.begin(), seeds.end());
  return range ? absl::StrCat(seeds.front(), " to ", seeds.back()) : absl::StrJoin(seeds, ", ");
}

ReportTable ArmsTable(const ComparisonPlan& plan, const ComparisonChoice& choice, const ComparisonResult& result) {
  const bool grouped = result.groups > 0;
  ReportTable table{.title = "Arms", .header = {}, .rows = {}, .notes = {}, .figures_html = {}};
  table.header = {"arm", "test AUC"};
  if (grouped) table.header.push_back("test gAUC");
  for (const char* name : {"test logloss", "valid AUC"}) table.header.push_back(name);
  if (grouped) table.header.push_back("valid gAUC");
  for (const char* name : {"FLOPs/row", "ratio", "parameters", "training s", "trials", "seeds"}) {
    table.header.push_back(name);
  }
  const double reference = static_cast<double>(result.arms[plan.flops_reference].flops);
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    const ArmResult& arm = result.arms[a];
    std::vector<std::string> row = {ArmName(plan, choice, a), Spread(arm.test[kAuc], 5)};
    if (grouped) row.push_back(Spread(arm.test[kGauc], 5));
    row.push_back(Spread(arm.test[kLogloss], 5));
    row.push_back(Spread(arm.valid[kAuc], 5));
    if (grouped) row.push_back(Spread(arm.valid[kGauc], 5));
    row.push_back(GroupDigits(arm.flops));
    row.push_back(absl::StrFormat("%.3f", static_cast<double>(arm.flops) / reference));
    row.push_back(arm.parameters.has_value() ? GroupDigits(*arm.parameters) : kNone);
    row.push_back(Spread(arm.seconds, arm.seconds.mean < 100 ? 1 : 0));
    row.push_back(absl::StrCat(plan.arms[a].trials.size()));
    const size_t seeds = std::max(arm.test[kAuc].n, arm.test[kLogloss].n);
    row.push_back(seeds == plan.seeds.size()
                      ? absl::StrCat(seeds)
                      : absl::StrCat(seeds, " of ", plan.seeds.size(), ", ", arm.failed, " failed"));
    table.rows.push_back(std::move(row));
  }
  table.notes = {absl::StrCat(
      "Mean ± sample standard deviation over seeds. FLOPs of a flat row, a multiply-add counted as 2; ratio "
      "to '",
      plan.arms[plan.flops_reference].name,
      "'. Parameters are all numbers of the checkpoint, embedding tables included. Training seconds are wall "
      "time without reading the log, of runs that were never interrupted; they depend on what else ran.")};
  return table;
}

// The differences of one metric as points with both intervals: seeds above, rows below.
std::string IntervalsFigure(const ComparisonPlan& plan, const ComparisonResult& result, TestMetric metric) {
  std::vector<const ArmDifference*> shown;
  double reach = 0;
  for (const ArmDifference& difference : result.differences) {
    if (difference.metric != metric) continue;
    shown.push_back(&difference);
    reach = std::max(reach, std::abs(difference.over_seeds.mean));
    for (const auto& interval : {difference.over_seeds.interval, difference.over_rows}) {
      if (interval.has_value()) reach = std::max({reach, std::abs(interval->low), std::abs(interval->high)});
    }
  }
  if (shown.empty() || !(reach > 0)) return "";
  // Narrow, so that the text stays readable when a phone's width scales it.
  constexpr double kWidth = 420, kRow = 44;
  const double height = kRow * static_cast<double>(shown.size()) + 24;
  const LinearScale x{-reach, reach, kWidth * 0.015, kWidth * 0.985};
  Svg svg(kWidth, height, absl::StrCat("Differences of ", Title(metric)),
          "both intervals of each; numbers in the table");
  svg.Line(x(0), 0, x(0), height - 18, "grid");
  for (size_t i = 0; i < shown.size(); ++i) {
    const ArmDifference& d = *shown[i];
    const double y = kRow * static_cast<double>(i) + 28;
    const auto line = [&](const std::optional<Interval>& interval, double at, std::string_view style) {
      if (interval.has_value()) svg.Line(x(interval->low), at, x(interval->high), at, style);
    };
    svg.Text(0, y - 14, plan.arms[d.control].name, Svg::Anchor::kStart);
    line(d.over_seeds.interval, y - 5, "line s1");
    line(d.over_rows, y + 5, "line s2");
    svg.Circle(x(d.over_seeds.mean), y, 4, "f3");
  }
  svg.Text(x(0), height - 4, "0", Svg::Anchor::kMiddle, "faint");
  svg.Text(x(reach), height - 4, absl::StrFormat("%+.5f", reach), Svg::Anchor::kEnd, "faint");
  return Figure(Title(metric), svg.Html(),
                absl::StrCat("upper line over seeds, lower line over test ", result.groups > 0 ? "groups" : "rows"));
}

ReportTable DifferencesTable(const ComparisonPlan& plan, const ComparisonChoice& choice,
                             const ComparisonResult& result) {
  ReportTable table{.title = absl::StrCat("'", plan.arms[plan.judged].name, "' minus each control, on the test rows"),
                    .header = {"control", "metric", "difference", "95 % over seeds", "95 % over test rows", "verdict"},
                    .rows = {},
                    .notes = {},
                    .figures_html = {}};
  if (result.groups > 0) table.header[4] = "95 % over test groups";
  bool all_paired = true, any_paired = false;
  size_t undefined = 0;
  for (const ArmDifference& difference : result.differences) {
    all_paired &= difference.paired;
    any_paired |= difference.paired;
    undefined += difference.undefined_resamples;
    const char* const verdict = difference.verdict == Verdict::kBetter  ? "better"
                                : difference.verdict == Verdict::kWorse ? "worse"
                                                                        : "not told apart";
    table.rows.push_back({ArmName(plan, choice, difference.control), Title(difference.metric),
                          absl::StrFormat("%+.5f", difference.over_seeds.mean), Text(difference.over_seeds.interval),
                          Text(difference.over_rows), verdict});
  }
  const char* const pairing = all_paired ? "Student's t on the differences paired by seed"
                              : any_paired
                                  ? "Student's t on the differences paired by seed where both arms have the same "
                                    "seeds, else Welch's for independent samples"
                                  : "Welch's t for independent samples, the arms' seeds being different";
  table.notes = {
      absl::StrCat("Over seeds: ", pairing, "; what another training on the same log would give, the test rows kept."),
      absl::StrCat("Over test ", result.groups > 0 ? "groups" : "rows", ": percentile interval of ",
                   GroupDigits(plan.resamples), " paired bootstrap resamples (seed ", plan.bootstrap_seed,
                   "). Resampled with replacement are the ",
                   result.groups > 0 ? absl::StrCat(GroupDigits(result.groups), " groups ('", plan.data.group_by(),
                                                    "') of the test log, each with all its rows,")
                                     : absl::StrCat(GroupDigits(result.rows), " rows of the test log"),
                   " the same for every run; on each resample the metric of every run is computed, averaged over an "
                   "arm's seeds, "
                   "and subtracted. The trained models are kept: what other test rows would give."),
      absl::StrCat("Better or worse: both intervals lie on one side of 0. No correction is made for the number of "
                   "controls and metrics. The best control is the one with the best mean valid ",
                   v1::TrainingConfig::Monitor_Name(plan.monitor), "; test had no part in it.")};
  if (undefined > 0) {
    table.notes.push_back(absl::StrCat(undefined, " resamples without a value (one class only) are left out."));
  }
  for (const TestMetric metric : {TestMetric::kAuc, TestMetric::kGauc}) {
    if (std::string figure = IntervalsFigure(plan, result, metric); !figure.empty()) {
      table.figures_html.push_back(std::move(figure));
    }
  }
  return table;
}

std::string SavingText(const CurveGap::Saving& saving) {
  using Bound = CurveGap::Saving::Bound;
  const char* const bound = saving.bound == Bound::kAtLeast  ? "at least "
                            : saving.bound == Bound::kAtMost ? "at most "
                                                             : "";
  return absl::StrFormat("%s%+.1f %%", bound, 100 * saving.value);
}

// Every curve's mean against FLOPs.
std::string CurvesFigure(const ComparisonPlan& plan, const ComparisonResult& result, TestMetric metric) {
  LineChart chart;
  chart.text = {.id = absl::StrCat("curves-", MetricName(metric)),
                .title = absl::StrCat("Test ", Title(metric), " against FLOPs"),
                .description = "mean over seeds of every size; numbers in the tables",
                .x_label = "kFLOPs of a row",
                .y_label = Title(metric)};
  for (const CurvePair& pair : result.curves) {
    if (pair.metric != metric) continue;
    for (const std::vector<size_t>* arms : {&pair.controls, &pair.arms}) {
      const std::string& name = plan.arms[arms->front()].curve;
      const auto drawn = [&](const ChartSeries& series) { return series.name == name; };
      if (std::any_of(chart.series.begin(), chart.series.end(), drawn)) continue;
      ChartSeries& series = chart.series.emplace_back();
      series.name = name;
      series.dots = true;
      series.dashed = plan.arms[arms->front()].control;
      for (const size_t a : *arms) {
        const double mean = result.arms[a].test[static_cast<size_t>(metric)].mean;
        series.points.push_back({.x = static_cast<double>(result.arms[a].flops) / 1000,
                                 .y = mean,
                                 .tip = absl::StrFormat("%s: %.5f", plan.arms[a].name, mean)});
      }
    }
  }
  return chart.series.empty()
             ? ""
             : Figure(absl::StrCat(Title(metric), " against FLOPs"), Draw(chart), "kFLOPs of a row; dashed: controls");
}

ReportTable CurvesTable(const ComparisonPlan& plan, const ComparisonResult& result) {
  ReportTable table{.title = "Curves: quality against FLOPs, on the test rows",
                    .header = {"arm", "FLOPs/row", "held against", "metric", "gain at equal FLOPs", "95 % over seeds",
                               "FLOPs saved at equal quality", "95 % over seeds"},
                    .rows = {},
                    .notes = {},
                    .figures_html = {}};
  for (const CurvePair& pair : result.curves) {
    for (size_t i = 0; i < pair.arms.size(); ++i) {
      const CurveGap& gap = pair.gaps[i];
      const auto& gain = gap.at_equal_flops;
      const auto& interval = gap.at_equal_value.interval;
      table.rows.push_back({plan.arms[pair.arms[i]].name, GroupDigits(result.arms[pair.arms[i]].flops),
                            absl::StrCat(plan.arms[pair.controls[0]].curve, ", ", pair.seeds, " seeds"),
                            Title(pair.metric), gain.has_value() ? absl::StrFormat("%+.5f", gain->mean) : kNone,
                            gain.has_value() ? Text(gain->interval) : kNone, SavingText(gap.at_equal_value),
                            interval.has_value()
                                ? absl::StrFormat("[%+.1f, %+.1f]", 100 * interval->low, 100 * interval->high)
                                : kNone});
    }
  }
  table.notes = {
      "A curve joins the means of its arms by straight lines over the logarithm of FLOPs. Gain: the arm's metric minus "
      "the control curve's at the same FLOPs, seed by seed, with Student's t; none outside the curve. Saved: how many "
      "fewer FLOPs the arm has than the control curve needs for the arm's metric, with a bootstrap over seeds; beyond "
      "the curve's ends, its end counts. Each arm stands as it was chosen on the validation rows."};
  for (const TestMetric metric : {TestMetric::kAuc, TestMetric::kGauc}) {
    if (std::string figure = CurvesFigure(plan, result, metric); !figure.empty()) {
      table.figures_html.push_back(std::move(figure));
    }
  }
  return table;
}

ReportTable TrialsTable(const ComparisonPlan& plan, const ComparisonRuns& runs, const ComparisonChoice& choice) {
  const std::vector<uint64_t> seeds(plan.seeds.begin(),
                                    plan.seeds.begin() + static_cast<ptrdiff_t>(plan.selection_seeds));
  ReportTable table{.title = "Trials",
                    .header = {"arm", "trial", absl::StrCat("valid ", v1::TrainingConfig::Monitor_Name(plan.monitor)),
                               "seeds", "chosen"},
                    .rows = {},
                    .notes = {},
                    .figures_html = {}};
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    const ComparisonArm& arm = plan.arms[a];
    for (size_t t = 0; t < arm.trials.size() && arm.trials.size() > 1; ++t) {
      std::vector<double> values;
      for (size_t s = 0; s < plan.selection_seeds; ++s) {
        if (const auto value = runs.Get(a, t, s).Monitored(plan.monitor)) values.push_back(std::abs(*value));
      }
      const bool whole = values.size() == plan.selection_seeds;
      table.rows.push_back({arm.name, arm.trials[t].name, Spread(Summarise(values), 5),
                            absl::StrCat(values.size(), whole ? "" : absl::StrCat(" of ", plan.selection_seeds)),
                            choice.arms[a].trial == t ? "yes"
                            : whole                   ? ""
                                                      : "not eligible"});
    }
  }
  table.notes = {
      absl::StrCat("Chosen on the validation rows of seeds ", SeedsText(seeds),
                   " alone, and frozen before a test row was scored. No test row was scored with a trial that "
                   "was not chosen.")};
  return table;
}

ReportTable FailuresTable(const ComparisonPlan& plan, const ComparisonRuns& runs) {
  ReportTable table{.title = "Failed runs", .header = {"run", "why"}, .rows = {}, .notes = {}, .figures_html = {}};
  for (const ComparisonRun& run : runs.all()) {
    const bool failed = run.state == ComparisonRun::State::kFailed;
    if (!failed && run.test_error.empty()) continue;
    table.rows.push_back({absl::StrCat(plan.arms[run.arm].name, "/", plan.arms[run.arm].trials[run.trial].name, "/",
                                       plan.seeds[run.seed]),
                          failed ? run.error : absl::StrCat("test: ", run.test_error)});
  }
  table.notes = {
      "Means leave failed runs out, which flatters an arm that often fails. --retry_failed runs them again."};
  return table;
}

std::vector<std::string> Remarks(const ComparisonPlan& plan, const ComparisonChoice& choice) {
  std::vector<std::string> remarks;
  const auto trials = [](const ComparisonArm& arm) { return arm.trials.size(); };
  const auto [least, most] =
      std::minmax_element(plan.arms.begin(), plan.arms.end(),
                          [&](const ComparisonArm& x, const ComparisonArm& y) { return trials(x) < trials(y); });
  if (trials(*least) != trials(*most)) {
    remarks.push_back(absl::StrCat("The arms had different numbers of trials, from ", trials(*least), " ('",
                                   least->name, "') to ", trials(*most), " ('", most->name,
                                   "'): more trials find a better one by chance alone."));
  }
  for (size_t a = 0; a < plan.arms.size(); ++a) {
    if (choice.arms[a].after_test) {
      remarks.push_back(absl::StrCat("Arm '", plan.arms[a].name,
                                     "' was added when test rows had already been scored for other arms."));
    }
    if (!choice.arms[a].trial.has_value()) {
      remarks.push_back(absl::StrCat("Arm '", plan.arms[a].name, "' has no result: each of its trials failed."));
    }
  }
  if (choice.seeds != plan.seeds) {
    remarks.push_back(absl::StrCat("The seeds were ", SeedsText(choice.seeds),
                                   " when the choice was frozen, and were changed later."));
  }
  if (!choice.dropped.empty()) {
    remarks.push_back(absl::StrCat(
        "Also trained here, and no longer in the comparison's file: ", absl::StrJoin(choice.dropped, ", "), "."));
  }
  remarks.insert(remarks.end(), plan.notes.begin(), plan.notes.end());
  return remarks;
}

std::string MarkdownCell(std::string_view text) {
  return absl::StrReplaceAll(absl::string_view(text.data(), text.size()), {{"|", "\\|"}, {"\n", " "}});
}

}  // namespace

ComparisonReport MakeReport(const ComparisonPlan& plan, const ComparisonRuns& runs, const ComparisonChoice& choice,
                            const ComparisonResult& result) {
  ComparisonReport report;
  report.title = plan.title.empty() ? absl::StrCat("Comparison of '", plan.arms[plan.judged].name, "'") : plan.title;
  report.introduction = {absl::StrCat(
      "Test log: ", absl::StrJoin(plan.data.test(), ", "), " (", GroupDigits(result.rows), " rows",
      result.groups > 0 ? absl::StrCat(", ", GroupDigits(result.groups), " groups by '", plan.data.group_by(), "'")
                        : "",
      "). Seeds ", SeedsText(plan.seeds), "; early stopping and choice of trials by valid ",
      v1::TrainingConfig::Monitor_Name(plan.monitor), ".")};
  for (std::string& remark : Remarks(plan, choice)) report.introduction.push_back(std::move(remark));
  report.tables.push_back(ArmsTable(plan, choice, result));
  if (!result.differences.empty()) report.tables.push_back(DifferencesTable(plan, choice, result));
  if (!result.curves.empty()) report.tables.push_back(CurvesTable(plan, result));
  if (ReportTable trials = TrialsTable(plan, runs, choice); !trials.rows.empty()) report.tables.push_back(trials);
  if (ReportTable failures = FailuresTable(plan, runs); !failures.rows.empty()) report.tables.push_back(failures);
  return report;
}

std::string ReportMarkdown(const ComparisonReport& report) {
  std::string out = absl::StrCat("# ", report.title, "\n");
  for (const std::string& paragraph : report.introduction) absl::StrAppend(&out, "\n", paragraph, "\n");
  const auto row = [&](const std::vector<std::string>& cells) {
    for (const std::string& cell : cells) absl::StrAppend(&out, "| ", MarkdownCell(cell), " ");
    absl::StrAppend(&out, "|\n");
  };
  for (const ReportTable& table : report.tables) {
    absl::StrAppend(&out, "\n## ", table.title, "\n\n");
    row(table.header);
    row(std::vector<std::string>(table.header.size(), "---"));
    for (const std::vector<std::string>& cells : table.rows) row(cells);
    for (const std::string& note : table.notes) absl::StrAppend(&out, "\n", note, "\n");
  }
  return out;
}

std::string ReportHtml(const ComparisonReport& report) {
  std::string body;
  for (const std::string& paragraph : report.introduction) body += Paragraph(paragraph);
  for (const ReportTable& table : report.tables) {
    Table rows("", table.header);
    for (const std::vector<std::string>& cells : table.rows) rows.AddRow(cells);
    std::string html = rows.Html();
    if (!table.figures_html.empty()) html += FigureGrid(table.figures_html);
    for (const std::string& note : table.notes) html += Paragraph(note);
    body += Section(absl::StrCat("table-", &table - report.tables.data()), table.title, html);
  }
  return RenderPage({report.title, "", body, "Written by hilomoe-train compare."});
}

}  // namespace hilomoe
