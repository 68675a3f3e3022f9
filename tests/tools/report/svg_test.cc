#include "tools/report/svg.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/report/well_formed.h"

namespace hilomoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Labels(double from, double to, int wanted) {
  const Ticks ticks = RoundTicks(from, to, wanted);
  std::vector<std::string> labels;
  for (const double value : ticks.values) labels.push_back(TickLabel(value, ticks.decimals));
  return labels;
}

TEST(RoundTicksTest, AreRoundAndInside) {
  EXPECT_THAT(Labels(0, 1, 5), ElementsAre("0.0", "0.2", "0.4", "0.6", "0.8", "1.0"));
  EXPECT_THAT(Labels(0.731, 0.742, 5), ElementsAre("0.732", "0.734", "0.736", "0.738", "0.740", "0.742"));
  EXPECT_THAT(Labels(0, 590, 5), ElementsAre("0", "100", "200", "300", "400", "500"));
  EXPECT_THAT(Labels(-7, 5, 6), ElementsAre("-6", "-4", "-2", "0", "2", "4"));
  EXPECT_THAT(Labels(0, 30'000'000, 5), ElementsAre("0", "5M", "10M", "15M", "20M", "25M", "30M"));
  EXPECT_THAT(Labels(0, 42'000, 4), ElementsAre("0", "10k", "20k", "30k", "40k"));
  // Doubles 2 apart, ticks 0.5 apart.
  EXPECT_LE(RoundTicks(1e16, 1e16 + 2, 5).values.size(), 16U);
  // A range of nothing still has a tick.
  EXPECT_EQ(RoundTicks(3, 3, 5).values.size(), 1U);
}

TEST(LinearScaleTest, MapsEnds) {
  const LinearScale scale{10, 20, 200, 100};
  EXPECT_EQ(scale(10), 200);
  EXPECT_EQ(scale(20), 100);
  EXPECT_EQ(scale(15), 150);
  EXPECT_EQ((LinearScale{5, 5, 0, 100}(5)), 50);
}

TEST(SvgTest, EscapesAndRounds) {
  Svg svg(360, 200, "<title>", "a \"b\" & c");
  svg.Text(1.2345, -0.001, "<x>", Svg::Anchor::kEnd, "faint");
  svg.Circle(1, 2, 3, "f1", "tip <&>");
  svg.Rectangle(0, 0, 1, 1, "cell", 0.25);
  svg.BeginClip("id", 0, 0, 1, 1);
  svg.Polyline({{0, 1}, {1.006, 2}}, "line s1");
  svg.EndClip();
  const std::string html = svg.Html();
  EXPECT_EQ(MarkupError(html), "") << html;
  EXPECT_THAT(html, HasSubstr("role=\"img\" aria-label=\"&lt;title&gt;. a &quot;b&quot; &amp; c\""));
  EXPECT_THAT(html, HasSubstr("<text x=\"1.23\" y=\"0\" text-anchor=\"end\""));
  EXPECT_THAT(html, HasSubstr("points=\"0,1 1.01,2\""));
}

}  // namespace
}  // namespace hilomoe
