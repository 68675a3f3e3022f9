// Charts as inline SVG, 360 units wide: at phone size a unit is a pixel. What tells series apart is never colour alone.
#ifndef HILOMOE_TOOLS_REPORT_CHARTS_H_
#define HILOMOE_TOOLS_REPORT_CHARTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hilomoe {

struct ChartText {
  std::string id{};     // unique in the page
  std::string title{};  // with the description, what is read aloud
  std::string description{};
  std::string x_label{}, y_label{};
};

struct ChartPoint {
  double x = 0, y = 0;
  bool emphasised = false;  // drawn as a ring
  std::string tip;
};

struct ChartSeries {
  std::string name{};
  std::vector<ChartPoint> points{};  // of ascending x; those with a y that is not finite are left out
  bool dots = false;                 // every point shown
  bool dashed = false;
};

// A stretch of x; the first of its labels for which there is room stands above it.
struct ChartBand {
  double begin = 0, end = 0;
  std::vector<std::string> labels;
};

struct LineChart {
  ChartText text;
  std::vector<ChartSeries> series;  // at most four
  std::vector<ChartBand> bands;
  std::vector<double> marks;           // dashed verticals
  std::optional<double> y_from, y_to;  // what is outside is cut off; default: all that there is
  std::optional<double> x_from, x_to;
  bool diagonal = false;  // the line y = x
};
std::string Draw(const LineChart& chart);

// Two histograms over [0, bins * bin_width], one upward and one downward, each as shares of its own rows.
struct MirrorHistogram {
  ChartText text;
  std::string up_name, down_name;
  std::vector<int64_t> up, down;  // of equal length
  double bin_width = 1;
  int64_t up_rows = 0, down_rows = 0;  // what shares are of
};
std::string Draw(const MirrorHistogram& chart);

// Numbers of which 1 is even: larger ones ever bluer, smaller ones ever more orange, full at 4 and 1/4. Rows are
// wrapped after eight cells.
struct HeatMap {
  struct Cell {
    double value = 1;
    bool crossed = false;
    std::string tip;
  };
  struct Row {
    std::string label;
    std::vector<Cell> cells;
  };
  ChartText text;  // no axes
  std::vector<Row> rows;
};
std::string Draw(const HeatMap& map);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_REPORT_CHARTS_H_
