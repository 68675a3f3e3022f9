// The little of SVG that the charts need: escaped elements, a linear scale, round ticks.
#ifndef HILOMOE_TOOLS_REPORT_SVG_H_
#define HILOMOE_TOOLS_REPORT_SVG_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hilomoe {

// Builds one <svg> of width x height units; a unit is a CSS pixel on a phone's 360. Positions are rounded to 0.01.
class Svg {
 public:
  // `title` and `description` are what is read aloud instead of the drawing.
  Svg(double width, double height, std::string_view title, std::string_view description);

  enum class Anchor { kStart, kMiddle, kEnd };
  // `style` is a class list of the page's style sheet: "grid", "line s1", "f2".
  void Line(double x1, double y1, double x2, double y2, std::string_view style);
  void Polyline(const std::vector<std::pair<double, double>>& points, std::string_view style);
  // `tip` is shown on hovering; may be empty. opacity is that of the fill.
  void Rectangle(double x, double y, double width, double height, std::string_view style, double opacity = 1,
                 std::string_view tip = {});
  void Circle(double x, double y, double radius, std::string_view style, std::string_view tip = {});
  // Baseline at y.
  void Text(double x, double y, std::string_view text, Anchor anchor, std::string_view style = {});
  // What follows until EndClip is cut to the rectangle. `id` must be unique in the page.
  void BeginClip(std::string_view id, double x, double y, double width, double height);
  void EndClip();

  std::string Html() const;

 private:
  std::string html_;
};

// About how wide a text of so many characters is.
double TextWidth(std::string_view text, double size);

// From [from, to] to [begin, end]; a range of nothing maps to the middle.
struct LinearScale {
  double from = 0, to = 1, begin = 0, end = 1;
  double operator()(double value) const {
    return to == from ? (begin + end) / 2 : begin + (value - from) / (to - from) * (end - begin);
  }
};

// Round numbers (1, 2, 5 times a power of ten) within [from, to], about `wanted` of them; and how many decimals tell
// them apart.
struct Ticks {
  std::vector<double> values;
  int decimals = 0;
};
Ticks RoundTicks(double from, double to, int wanted);
// "1,500", "0.125", "20M"
std::string TickLabel(double value, int decimals);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_REPORT_SVG_H_
