#include "tools/report/charts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/report/html_page.h"
#include "tools/report/svg.h"

namespace hilomoe {
namespace {

constexpr double kWidth = 360, kHeight = 236;
constexpr double kLeft = 46, kRight = 10, kTop = 36, kBottom = 36;  // of the plot, within the drawing
constexpr double kTextSize = 11;

struct Range {
  double from = std::numeric_limits<double>::infinity(), to = -std::numeric_limits<double>::infinity();

  void Add(double value) {
    if (!std::isfinite(value)) return;
    from = std::min(from, value);
    to = std::max(to, value);
  }
  // Something to draw in, whatever was added.
  void Widen() {
    if (from > to) *this = {0, 1};
    if (from == to) {
      const double half = from == 0 ? 1 : std::fabs(from) * 0.05;
      from -= half;
      to += half;
    }
  }
};

// Grid, ticks and labels around the plot.
void DrawAxes(const ChartText& text, const LinearScale& x, const LinearScale& y, Svg* svg) {
  const Ticks y_ticks = RoundTicks(y.from, y.to, 5);
  for (const double value : y_ticks.values) {
    svg->Line(x.begin, y(value), x.end, y(value), "grid");
    svg->Text(x.begin - 4, y(value) + 4, TickLabel(value, y_ticks.decimals), Svg::Anchor::kEnd);
  }
  const Ticks x_ticks = RoundTicks(x.from, x.to, 5);
  for (const double value : x_ticks.values) {
    svg->Line(x(value), y.begin, x(value), y.begin + 4, "grid");
    svg->Text(x(value), y.begin + 15, TickLabel(value, x_ticks.decimals), Svg::Anchor::kMiddle);
  }
  svg->Line(x.begin, y.begin, x.end, y.begin, "grid");
  svg->Text((x.begin + x.end) / 2, y.begin + 30, text.x_label, Svg::Anchor::kMiddle, "faint");
}

void DrawBands(const LineChart& chart, const LinearScale& x, const LinearScale& y, Svg* svg) {
  for (size_t i = 0; i < chart.bands.size(); ++i) {
    const ChartBand& band = chart.bands[i];
    const double begin = x(band.begin), width = x(band.end) - begin;
    if (i % 2 == 0) svg->Rectangle(begin, y.end, width, y.begin - y.end, "band");
    const auto label = std::find_if(band.labels.begin(), band.labels.end(), [&](const std::string& candidate) {
      return TextWidth(candidate, kTextSize) <= width - 2;
    });
    if (label != band.labels.end()) {
      svg->Text(begin + width / 2, y.end - 4, *label, Svg::Anchor::kMiddle, "faint");
    }
  }
}

void DrawSeries(const ChartSeries& series, size_t index, const LinearScale& x, const LinearScale& y, Svg* svg) {
  std::vector<std::pair<double, double>> points;
  for (const ChartPoint& point : series.points) {
    if (std::isfinite(point.y)) points.emplace_back(x(point.x), y(point.y));
  }
  const std::string color = absl::StrCat("s", index % 4 + 1), fill = absl::StrCat("f", index % 4 + 1);
  if (points.size() > 1) svg->Polyline(points, absl::StrCat("line ", color, series.dashed ? " dashed" : ""));
  for (const ChartPoint& point : series.points) {
    if (!std::isfinite(point.y) || (!series.dots && !point.emphasised && points.size() > 1)) continue;
    if (point.emphasised) {
      svg->Circle(x(point.x), y(point.y), 4.2, absl::StrCat("ring ", color), point.tip);
    } else {
      svg->Circle(x(point.x), y(point.y), 2.4, fill, point.tip);
    }
  }
}

// Names of the series beside a sample of their lines, in one row at the top.
void DrawKey(const std::vector<ChartSeries>& series, Svg* svg) {
  if (series.size() < 2) return;
  constexpr double kSample = 24, kGap = 10;
  double width = -kGap;
  for (const ChartSeries& one : series) width += kSample + TextWidth(one.name, kTextSize) + kGap;
  // From the plot's left edge, or as far left of it as the names need.
  double at = std::max(0.0, std::min(kLeft, kWidth - kRight - width));
  for (size_t i = 0; i < series.size(); ++i) {
    const std::string color = absl::StrCat("s", i % 4 + 1);
    svg->Polyline({{at, 8}, {at + 20, 8}}, absl::StrCat("line ", color, series[i].dashed ? " dashed" : ""));
    if (series[i].dots) svg->Circle(at + 10, 8, 2.6, absl::StrCat("f", i % 4 + 1));
    svg->Text(at + kSample, 12, series[i].name, Svg::Anchor::kStart);
    at += kSample + TextWidth(series[i].name, kTextSize) + kGap;
  }
}

}  // namespace

std::string Draw(const LineChart& chart) {
  Range xs, ys;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      xs.Add(point.x);
      ys.Add(point.y);
    }
  }
  for (const ChartBand& band : chart.bands) {
    xs.Add(band.begin);
    xs.Add(band.end);
  }
  xs.from = chart.x_from.value_or(xs.from);
  xs.to = chart.x_to.value_or(xs.to);
  ys.from = chart.y_from.value_or(ys.from);
  ys.to = chart.y_to.value_or(ys.to);
  xs.Widen();
  ys.Widen();
  const double margin = chart.diagonal ? 0 : (ys.to - ys.from) * 0.06;
  const LinearScale x{xs.from, xs.to, kLeft, kWidth - kRight};
  const LinearScale y{ys.from - margin, ys.to + margin, kHeight - kBottom, kTop};

  Svg svg(kWidth, kHeight, chart.text.title, chart.text.description);
  DrawBands(chart, x, y, &svg);
  DrawAxes(chart.text, x, y, &svg);
  if (chart.series.size() < 2) svg.Text(kLeft, 12, chart.text.y_label, Svg::Anchor::kStart, "faint");
  DrawKey(chart.series, &svg);
  // Rings at the plot's edges stay whole.
  svg.BeginClip(chart.text.id + "-plot", kLeft - 5, kTop - 5, kWidth - kLeft - kRight + 10,
                kHeight - kTop - kBottom + 10);
  for (const double mark : chart.marks) svg.Line(x(mark), kTop, x(mark), kHeight - kBottom, "mark");
  if (chart.diagonal) {
    const double from = std::max(x.from, y.from), to = std::min(x.to, y.to);
    svg.Line(x(from), y(from), x(to), y(to), "mark");
  }
  for (size_t i = 0; i < chart.series.size(); ++i) DrawSeries(chart.series[i], i, x, y, &svg);
  svg.EndClip();
  return svg.Html();
}

std::string Draw(const MirrorHistogram& chart) {
  const auto share = [](int64_t count, int64_t rows) {
    return rows > 0 ? 100.0 * static_cast<double>(count) / static_cast<double>(rows) : 0;
  };
  double up = 0, down = 0;
  for (size_t i = 0; i < chart.up.size(); ++i) {
    up = std::max(up, share(chart.up[i], chart.up_rows));
    down = std::max(down, share(chart.down[i], chart.down_rows));
  }
  const double most = std::max({up, down, 1e-9});
  // A side of small shares still gets room for its ticks.
  const LinearScale y{-std::max(down, most * 0.15) * 1.05, std::max(up, most * 0.15) * 1.05, kHeight - kBottom, kTop};
  const LinearScale x{0, static_cast<double>(chart.up.size()) * chart.bin_width, kLeft, kWidth - kRight};

  Svg svg(kWidth, kHeight, chart.text.title, chart.text.description);
  const Ticks ticks = RoundTicks(y.from, y.to, 6);
  for (const double value : ticks.values) {
    svg.Line(x.begin, y(value), x.end, y(value), "grid");
    svg.Text(x.begin - 4, y(value) + 4, TickLabel(std::fabs(value), ticks.decimals), Svg::Anchor::kEnd);
  }
  const Ticks x_ticks = RoundTicks(x.from, x.to, 5);
  for (const double value : x_ticks.values) {
    svg.Text(x(value), y.begin + 15, TickLabel(value, x_ticks.decimals), Svg::Anchor::kMiddle);
  }
  svg.Text((x.begin + x.end) / 2, y.begin + 30, chart.text.x_label, Svg::Anchor::kMiddle, "faint");
  for (size_t i = 0; i < chart.up.size(); ++i) {
    const double begin = x(static_cast<double>(i) * chart.bin_width);
    const double width = std::max(x(static_cast<double>(i + 1) * chart.bin_width) - begin - 0.8, 0.8);
    const std::string place = absl::StrFormat("%g to %g: ", static_cast<double>(i) * chart.bin_width,
                                              static_cast<double>(i + 1) * chart.bin_width);
    const auto bar = [&](double percent, int64_t count, const std::string& name, const char* style, bool upward) {
      if (count == 0) return;
      const double height = std::max(std::fabs(y(percent) - y(0)), 0.6);
      svg.Rectangle(begin, upward ? y(0) - height : y(0), width, height, style, 1,
                    absl::StrCat(place, GroupDigits(count), " ", name, absl::StrFormat(" (%.2f %%)", percent)));
    };
    bar(share(chart.up[i], chart.up_rows), chart.up[i], chart.up_name, "f1", true);
    bar(share(chart.down[i], chart.down_rows), chart.down[i], chart.down_name, "f2", false);
  }
  svg.Line(x.begin, y(0), x.end, y(0), "s1 grid");
  svg.Rectangle(kLeft, 3, 10, 10, "f1");
  svg.Text(kLeft + 14, 12, absl::StrCat("↑ ", chart.up_name), Svg::Anchor::kStart);
  const double second = kLeft + 34 + TextWidth(chart.up_name, kTextSize);
  svg.Rectangle(second, 3, 10, 10, "f2");
  svg.Text(second + 14, 12, absl::StrCat("↓ ", chart.down_name), Svg::Anchor::kStart);
  svg.Text(kWidth - kRight, 12, "% of each", Svg::Anchor::kEnd, "faint");
  return svg.Html();
}

std::string Draw(const HeatMap& map) {
  constexpr size_t kColumns = 8;
  constexpr double kCellWidth = kWidth / kColumns, kCellHeight = 24, kLabelHeight = 18, kGap = 8;
  double height = 0;
  for (const HeatMap::Row& row : map.rows) {
    height += kLabelHeight + static_cast<double>((row.cells.size() + kColumns - 1) / kColumns) * kCellHeight + kGap;
  }
  Svg svg(kWidth, std::max(height, 1.0), map.text.title, map.text.description);
  double top = 0;
  for (const HeatMap::Row& row : map.rows) {
    svg.Text(0, top + 13, row.label, Svg::Anchor::kStart);
    top += kLabelHeight;
    for (size_t i = 0; i < row.cells.size(); ++i) {
      const HeatMap::Cell& cell = row.cells[i];
      const double left = static_cast<double>(i % kColumns) * kCellWidth;
      const double y = top + static_cast<double>(i / kColumns) * kCellHeight;
      // At most half opaque: the number in the page's ink keeps a contrast of 4.5 on it, light or dark.
      const double strength = std::min(std::fabs(std::log2(std::max(cell.value, 1e-9))) / 2, 1.0) * 0.5;
      svg.Rectangle(left + 1, y + 1, kCellWidth - 2, kCellHeight - 2, cell.value >= 1 ? "cell f1" : "cell f2", strength,
                    cell.tip);
      if (cell.crossed) {
        svg.Line(left + 2, y + 2, left + kCellWidth - 2, y + kCellHeight - 2, "dead");
        svg.Line(left + 2, y + kCellHeight - 2, left + kCellWidth - 2, y + 2, "dead");
        continue;  // its number stands in the words below
      }
      svg.Text(left + kCellWidth / 2, y + kCellHeight / 2 + 4, Decimals(cell.value, cell.value < 10 ? 2 : 1),
               Svg::Anchor::kMiddle);
    }
    top += static_cast<double>((row.cells.size() + kColumns - 1) / kColumns) * kCellHeight + kGap;
  }
  return svg.Html();
}

}  // namespace hilomoe
