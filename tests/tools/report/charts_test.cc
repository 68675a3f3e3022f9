#include "tools/report/charts.h"

#include <limits>
#include <regex>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/report/well_formed.h"
#include "tools/report/svg.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// No coordinate may be "nan" or "inf", whatever is drawn.
void ExpectDrawn(const std::string& html) {
  EXPECT_EQ(MarkupError(html), "") << html;
  EXPECT_FALSE(std::regex_search(html, std::regex("\"[^\"]*\\b(nan|inf)\\b[^\"]*\""))) << html;
}

TEST(LineChartTest, PlacesPointsAndLeavesOutWhatHasNoValue) {
  LineChart chart;
  chart.text = {.id = "c", .title = "Chart", .description = "words"};
  chart.series = {{.name = "one", .points = {{0, 1, false, ""}, {5, kNan, false, ""}, {10, 3, true, "the <best>"}}},
                  {.name = "two", .points = {{0, 2, false, ""}, {10, 2, false, ""}}, .dots = true}};
  chart.bands = {{0, 5, {"first", "1"}}, {5, 10, {"a name that is far too long for its band of the plot", "2"}}};
  chart.marks = {5};
  const std::string html = Draw(chart);
  ExpectDrawn(html);
  EXPECT_THAT(html, HasSubstr("aria-label=\"Chart. words\""));
  EXPECT_THAT(html, HasSubstr("the &lt;best&gt;"));
  EXPECT_THAT(html, HasSubstr(">first<"));
  EXPECT_THAT(html, HasSubstr(">2</text>"));
  EXPECT_THAT(html, Not(HasSubstr("far too long")));
  EXPECT_EQ(Count(html, "class=\"ring s1\""), 1U);
  EXPECT_EQ(Count(html, "class=\"f2\""), 3U);  // two points and the key
  // x from 46 to 350; the two series' ends.
  EXPECT_EQ(Count(html, "points=\"46,"), 2 + 1U);  // and the key's first sample
}

TEST(LineChartTest, TheKeyOfFourNamesEndsWithinTheDrawing) {
  LineChart chart;
  chart.text.id = "c";
  for (const char* name : {"blocks.0", "blocks.1", "blocks.2", "blocks.3"}) chart.series.push_back({.name = name});
  const std::string html = Draw(chart);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(html, match, std::regex("<text x=\"([0-9.]+)\" y=\"12\">blocks.3<"))) << html;
  EXPECT_LE(std::stod(match[1]) + TextWidth("blocks.3", 11), 360);
}

TEST(LineChartTest, DrawsAlmostNothing) {
  LineChart chart;
  chart.text.id = "c";
  ExpectDrawn(Draw(chart));
  chart.series = {{.name = "one"}};
  ExpectDrawn(Draw(chart));
  chart.series = {{.name = "one", .points = {{7, 0, false, ""}}}};
  ExpectDrawn(Draw(chart));
  EXPECT_EQ(Count(Draw(chart), "<circle"), 1U);  // a single point has no line
  chart.series[0].points[0].y = kNan;
  ExpectDrawn(Draw(chart));
}

TEST(MirrorHistogramTest, DrawsSharesOfEachSide) {
  MirrorHistogram chart;
  chart.text = {.id = "h", .title = "Scores"};
  chart.up_name = "positive";
  chart.down_name = "negative";
  chart.up = {0, 1, 3};
  chart.down = {900, 100, 0};
  chart.bin_width = 0.25;
  chart.up_rows = 4;
  chart.down_rows = 1000;
  const std::string html = Draw(chart);
  ExpectDrawn(html);
  EXPECT_THAT(html, HasSubstr("0 to 0.25: 900 negative (90.00 %)"));
  EXPECT_THAT(html, HasSubstr("0.5 to 0.75: 3 positive (75.00 %)"));
  EXPECT_EQ(Count(html, "<title>"), 4U);  // bins of nothing have no bar
  ExpectDrawn(Draw(MirrorHistogram{}));
}

TEST(HeatMapTest, WrapsCrossesAndNames) {
  HeatMap map;
  map.text = {.id = "m", .title = "Experts"};
  map.rows = {{"layer <0>", {}}};
  for (int i = 0; i < 11; ++i) map.rows[0].cells.push_back({i * 0.5, i == 0, ""});
  const std::string html = Draw(map);
  ExpectDrawn(html);
  EXPECT_THAT(html, HasSubstr("layer &lt;0&gt;"));
  EXPECT_EQ(Count(html, "<rect"), 11U);
  EXPECT_EQ(Count(html, "class=\"dead\""), 2U);
  EXPECT_THAT(html, HasSubstr("viewBox=\"0 0 360 74\""));  // label 18, two rows of 24, gap 8
  EXPECT_THAT(html, Not(HasSubstr(">0.00<")));             // the crossed one
  EXPECT_THAT(html, HasSubstr(">5.00<"));
  ExpectDrawn(Draw(HeatMap{}));
}

}  // namespace
}  // namespace hilomoe
