#include "tools/report/html_page.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hilomoe {
namespace {

constexpr size_t kLongCell = 16;  // bytes; longer row headings are wrapped, anywhere if need be

// Colours: Okabe and Ito's, told apart under every kind of colour blindness; in the dark their lighter members.
constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --faint: #59636e; --line: #d5dae0; --band: #f1f4f7;
  --card: #f6f8fa; --one: #0072b2; --two: #c2570c; --three: #00785a; --four: #a0528a; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e8eaed; --faint: #a3adb8; --line: #3a424b; --band: #1d2228; --card: #1d2228;
    --one: #56b4e9; --two: #f09a3e; --three: #35c79a; --four: #dd9bc9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; -webkit-text-size-adjust: 100%; }
header, main, footer { max-width: 1040px; margin: 0 auto; padding: 0 12px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 20px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 36px 0 6px; padding-top: 10px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 12px 0 2px; }
p { margin: 4px 0 10px; max-width: 46em; overflow-wrap: anywhere; }
header p, footer, figcaption, .note { color: var(--faint); }
footer { margin-top: 36px; padding-bottom: 20px; font-size: 0.85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; margin: 12px 0;
  padding: 0; list-style: none; }
@media (min-width: 760px) { .cards { grid-template-columns: repeat(4, 1fr); } }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; }
.cards b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.cards span { display: block; font-size: 0.85rem; color: var(--faint); line-height: 1.35; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 8px 32px; }
figure { margin: 8px 0; min-width: 0; max-width: 540px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 0.85rem; line-height: 1.4; }
.wide { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); font-size: 0.85rem; padding-bottom: 4px; }
caption span { display: inline-block; max-width: calc(100vw - 24px); position: sticky; left: 0; }
th, td { padding: 4px 9px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 3.4em; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tr .long { white-space: normal; overflow-wrap: anywhere; min-width: 9em; max-width: 15em; }
tbody th { font-weight: 500; }
@media (max-width: 480px) { th, td { padding: 4px 6px; } }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tr.tinted * { background: var(--band); }
details { margin: 6px 0; font-size: 0.9rem; }
summary { cursor: pointer; color: var(--one); padding: 4px 0; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px;
  font-size: 0.8rem; line-height: 1.4; }
svg text { fill: var(--ink); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .faint { fill: var(--faint); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .band { fill: var(--band); }
svg .mark { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 3; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 6 4; }
svg .ring { fill: var(--paper); stroke-width: 2.2; }
svg .s1 { stroke: var(--one); } svg .s2 { stroke: var(--two); } svg .s3 { stroke: var(--three); }
svg .s4 { stroke: var(--four); }
svg .line.s3 { stroke-dasharray: 1.5 3.5; stroke-linecap: round; } svg .line.s4 { stroke-dasharray: 9 3 2 3; }
svg .f1 { fill: var(--one); } svg .f2 { fill: var(--two); } svg .f3 { fill: var(--three); } svg .f4 { fill: var(--four); }
svg .cell { stroke: var(--line); stroke-width: 1; }
svg .dead { stroke: var(--ink); stroke-width: 1.4; }
)";

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7F;
        if (control) {
          out += "\xEF\xBF\xBD";
        } else {
          out.push_back(c);
        }
      }
    }
  }
  return out;
}

std::string RenderPage(const Page& page) {
  const std::string title = EscapeHtml(page.title);
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>",
      title, "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<header>\n<h1>", title, "</h1>\n<p>",
      EscapeHtml(page.subtitle), "</p>\n</header>\n<main>\n", page.body_html, "</main>\n<footer>",
      EscapeHtml(page.footer), "</footer>\n</body>\n</html>\n");
}

std::string Section(std::string_view id, std::string_view heading, std::string_view html) {
  return absl::StrCat("<section id=\"", EscapeHtml(id), "\">\n<h2>", EscapeHtml(heading), "</h2>\n", std::string(html),
                      "</section>\n");
}

std::string Paragraph(std::string_view text) { return absl::StrCat("<p>", EscapeHtml(text), "</p>\n"); }

std::string FigureGrid(const std::vector<std::string>& figures_html) {
  std::string out = "<div class=\"figures\">\n";
  for (const std::string& figure : figures_html) out += figure;
  return out + "</div>\n";
}

std::string Figure(std::string_view heading, std::string_view drawing_html, std::string_view caption,
                   std::string_view numbers_html) {
  return absl::StrCat("<figure>\n<h3>", EscapeHtml(heading), "</h3>\n", std::string(drawing_html), "<figcaption>",
                      EscapeHtml(caption), "</figcaption>\n",
                      numbers_html.empty() ? "" : Unfold("Numbers", numbers_html), "</figure>\n");
}

std::string Unfold(std::string_view summary, std::string_view html) {
  return absl::StrCat("<details>\n<summary>", EscapeHtml(summary), "</summary>\n", std::string(html), "</details>\n");
}

std::string Cards(const std::vector<Card>& cards) {
  std::string out = "<ul class=\"cards\">\n";
  for (const Card& card : cards) {
    absl::StrAppend(&out, "<li><span>", EscapeHtml(card.name), "</span><b>", EscapeHtml(card.value), "</b>");
    if (!card.note.empty()) absl::StrAppend(&out, "<span>", EscapeHtml(card.note), "</span>");
    out += "</li>\n";
  }
  return out + "</ul>\n";
}

void Table::AddRow(const std::vector<std::string>& cells, bool tinted) {
  absl::StrAppend(&rows_html_, tinted ? "<tr class=\"tinted\">" : "<tr>");
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i == 0) {
      const bool is_long = cells[i].size() > kLongCell;
      absl::StrAppend(&rows_html_, is_long ? "<th scope=\"row\" class=\"long\">" : "<th scope=\"row\">",
                      EscapeHtml(cells[i]), "</th>");
    } else {
      absl::StrAppend(&rows_html_, "<td>", EscapeHtml(cells[i]), "</td>");
    }
  }
  rows_html_ += "</tr>\n";
}

std::string Table::Html() const {
  // Focusable, so that a keyboard can scroll it.
  std::string out =
      absl::StrCat("<div class=\"wide\" tabindex=\"0\">\n<table", heads_.empty() ? " class=\"facts\"" : "", ">\n");
  if (!caption_.empty()) absl::StrAppend(&out, "<caption><span>", EscapeHtml(caption_), "</span></caption>\n");
  if (!heads_.empty()) {
    out += "<thead><tr>";
    for (const std::string& head : heads_) absl::StrAppend(&out, "<th scope=\"col\">", EscapeHtml(head), "</th>");
    out += "</tr></thead>\n";
  }
  absl::StrAppend(&out, "<tbody>\n", rows_html_, "</tbody>\n</table>\n</div>\n");
  return out;
}

std::string GroupDigits(int64_t value) {
  const std::string digits = absl::StrCat(value);
  const size_t sign = value < 0 ? 1 : 0;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string Decimals(const std::optional<double>& value, int decimals) {
  return value.has_value() && std::isfinite(*value) ? absl::StrFormat("%.*f", decimals, *value) : "–";
}

std::string SignedDecimals(const std::optional<double>& value, int decimals) {
  const std::string size = Decimals(value.has_value() ? std::optional<double>(std::fabs(*value)) : value, decimals);
  if (!value.has_value() || size.find_first_of("123456789") == std::string::npos) return size;  // no sign of nothing
  return absl::StrCat(*value < 0 ? "−" : "+", size);
}

}  // namespace hilomoe
