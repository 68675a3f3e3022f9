// Self-contained HTML pages: one file that opens offline, with its style inside, no script, nothing loaded. Light and
// dark follow the reader's system; readable from 360 pixels of width on. Everything is well-formed XML, too.
//
// Text from data goes through EscapeHtml; parameters named `html` are markup already. Pure functions.
#ifndef HILOMOE_TOOLS_REPORT_HTML_PAGE_H_
#define HILOMOE_TOOLS_REPORT_HTML_PAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hilomoe {

// For text and for quoted attributes. Characters that no XML may hold (control characters) become U+FFFD. UTF-8.
std::string EscapeHtml(std::string_view text);

// The whole document. The footer is text.
struct Page {
  std::string title;
  std::string subtitle;
  std::string body_html;
  std::string footer;
};
std::string RenderPage(const Page& page);

// A headed part of a page; `id` is what #links name.
std::string Section(std::string_view id, std::string_view heading, std::string_view html);
std::string Paragraph(std::string_view text);
// Figures (or tables) side by side where there is room.
std::string FigureGrid(const std::vector<std::string>& figures_html);
// A drawing with its words, and the numbers behind it (a Table's HTML, may be empty) to unfold.
std::string Figure(std::string_view heading, std::string_view drawing_html, std::string_view caption,
                   std::string_view numbers_html = {});
std::string Unfold(std::string_view summary, std::string_view html);

// Headline numbers.
struct Card {
  std::string name;
  std::string value;
  std::string note;  // may be empty
};
std::string Cards(const std::vector<Card>& cards);

// A table; narrow screens scroll it sideways. The first cell of a row is its heading. Caption and heads may be
// empty; cells without heads are text, not numbers.
class Table {
 public:
  Table(std::string caption, std::vector<std::string> heads) : caption_(std::move(caption)), heads_(std::move(heads)) {}
  // As many cells as heads, if there are heads; text. `tinted` sets the row apart.
  void AddRow(const std::vector<std::string>& cells, bool tinted = false);
  bool empty() const { return rows_html_.empty(); }
  std::string Html() const;

 private:
  std::string caption_;
  std::vector<std::string> heads_;
  std::string rows_html_;
};

// 1234567 -> "1,234,567"
std::string GroupDigits(int64_t value);
// With so many decimals; what has no value is a dash.
std::string Decimals(const std::optional<double>& value, int decimals);
// "+0.25", "−0.25"; "0.00" of what rounds to nothing.
std::string SignedDecimals(const std::optional<double>& value, int decimals);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_REPORT_HTML_PAGE_H_
