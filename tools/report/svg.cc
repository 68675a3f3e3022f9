#include "tools/report/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/report/html_page.h"

namespace hilomoe {
namespace {

// At most two decimals, and none that say nothing.
std::string Number(double value) {
  std::string text = absl::StrFormat("%.2f", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string Class(std::string_view style) {
  return style.empty() ? "" : absl::StrCat(" class=\"", EscapeHtml(style), "\"");
}

// The end of an element that may hold a tip.
std::string Close(std::string_view name, std::string_view tip) {
  if (tip.empty()) return "/>\n";
  return absl::StrCat("><title>", EscapeHtml(tip), "</title></", std::string(name), ">\n");
}

}  // namespace

Svg::Svg(double width, double height, std::string_view title, std::string_view description)
    : html_(absl::StrCat("<svg viewBox=\"0 0 ", Number(width), " ", Number(height), "\" role=\"img\" aria-label=\"",
                         EscapeHtml(title), ". ", EscapeHtml(description), "\">\n")) {}

void Svg::Line(double x1, double y1, double x2, double y2, std::string_view style) {
  absl::StrAppend(&html_, "<line x1=\"", Number(x1), "\" y1=\"", Number(y1), "\" x2=\"", Number(x2), "\" y2=\"",
                  Number(y2), "\"", Class(style), "/>\n");
}

void Svg::Polyline(const std::vector<std::pair<double, double>>& points, std::string_view style) {
  html_ += "<polyline points=\"";
  for (size_t i = 0; i < points.size(); ++i) {
    absl::StrAppend(&html_, i == 0 ? "" : " ", Number(points[i].first), ",", Number(points[i].second));
  }
  absl::StrAppend(&html_, "\"", Class(style), "/>\n");
}

void Svg::Rectangle(double x, double y, double width, double height, std::string_view style, double opacity,
                    std::string_view tip) {
  absl::StrAppend(&html_, "<rect x=\"", Number(x), "\" y=\"", Number(y), "\" width=\"", Number(width), "\" height=\"",
                  Number(height), "\"", Class(style));
  if (opacity < 1) absl::StrAppend(&html_, " fill-opacity=\"", Number(opacity), "\"");
  html_ += Close("rect", tip);
}

void Svg::Circle(double x, double y, double radius, std::string_view style, std::string_view tip) {
  absl::StrAppend(&html_, "<circle cx=\"", Number(x), "\" cy=\"", Number(y), "\" r=\"", Number(radius), "\"",
                  Class(style), Close("circle", tip));
}

void Svg::Text(double x, double y, std::string_view text, Anchor anchor, std::string_view style) {
  constexpr std::string_view kAnchors[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
  absl::StrAppend(&html_, "<text x=\"", Number(x), "\" y=\"", Number(y), "\"",
                  std::string(kAnchors[static_cast<int>(anchor)]), Class(style), ">", EscapeHtml(text), "</text>\n");
}

void Svg::BeginClip(std::string_view id, double x, double y, double width, double height) {
  const std::string escaped = EscapeHtml(id);
  absl::StrAppend(&html_, "<clipPath id=\"", escaped, "\"><rect x=\"", Number(x), "\" y=\"", Number(y), "\" width=\"",
                  Number(width), "\" height=\"", Number(height), "\"/></clipPath>\n<g clip-path=\"url(#", escaped,
                  ")\">\n");
}

void Svg::EndClip() { html_ += "</g>\n"; }

std::string Svg::Html() const { return html_ + "</svg>\n"; }

double TextWidth(std::string_view text, double size) {
  const auto characters = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
  return 0.58 * size * static_cast<double>(characters);
}

Ticks RoundTicks(double from, double to, int wanted) {
  Ticks ticks;
  if (!(to > from) || wanted < 1) {
    ticks.values = {from};
    ticks.decimals = 3;
    return ticks;
  }
  const double raw = (to - from) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double ratio = raw / power;
  const double step = power * (ratio <= 1.5 ? 1 : ratio <= 3.5 ? 2 : ratio <= 7.5 ? 5 : 10);
  ticks.decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  // Counted, not added up: the sum's error would lose the last tick. The slack lets a bound be a tick.
  const double slack = 1e-9;
  const auto first = std::ceil(from / step - slack);
  // Bounded: where doubles are coarser than the step, adding 1 would get nowhere.
  for (int i = 0; i <= 3 * wanted && first + i <= to / step + slack; ++i) ticks.values.push_back((first + i) * step);
  return ticks;
}

std::string TickLabel(double value, int decimals) {
  if (decimals > 0 || value == 0) return Decimals(value == 0 ? 0 : value, decimals);
  const double size = std::fabs(value);
  if (size >= 1e6 && std::fmod(size, 1e5) == 0) return absl::StrCat(value / 1e6, "M");
  if (size >= 1e4 && std::fmod(size, 1e2) == 0) return absl::StrCat(value / 1e3, "k");
  return GroupDigits(static_cast<int64_t>(std::llround(value)));
}

}  // namespace hilomoe
