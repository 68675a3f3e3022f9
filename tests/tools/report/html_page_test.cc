#include "tools/report/html_page.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/report/well_formed.h"

namespace hilomoe {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kHostile[] = "</title><script>alert(\"1\")</script> & 'x' \x01\x7F\ty";

TEST(EscapeHtmlTest, LeavesNoMarkup) {
  EXPECT_EQ(EscapeHtml("a<b>&\"'c"), "a&lt;b&gt;&amp;&quot;&#39;c");
  EXPECT_EQ(EscapeHtml("\x01\x1F\x7F"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(EscapeHtml("ü€\t\n"), "ü€\t\n");
}

TEST(HtmlPageTest, EscapesTextEverywhere) {
  Table table(kHostile, {kHostile, "number"});
  table.AddRow({kHostile, kHostile});
  table.AddRow({std::string(100, 'x'), "1"}, true);
  const std::string page =
      RenderPage({.title = kHostile,
                  .subtitle = kHostile,
                  .body_html = Section(kHostile, kHostile, Paragraph(kHostile) + table.Html()) +
                               FigureGrid({Figure(kHostile, "<svg></svg>", kHostile, Table("", {}).Html())}) +
                               Unfold(kHostile, "") + Cards({{kHostile, kHostile, kHostile}, {"name", "1", ""}}),
                  .footer = kHostile});
  EXPECT_EQ(MarkupError(page), "");
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, HasSubstr("<td>&lt;/title&gt;&lt;script&gt;"));
  EXPECT_THAT(page, HasSubstr("<tr class=\"tinted\"><th scope=\"row\" class=\"long\">xxx"));
}

TEST(HtmlPageTest, LoadsNothing) {
  EXPECT_EQ(LoadedFromElsewhere(RenderPage({"title", "subtitle", "", "footer"})), "");
}

// The checker itself, on what it must not let pass.
TEST(MarkupErrorTest, SeesWhatIsWrong) {
  EXPECT_EQ(MarkupError("<!DOCTYPE html>\n<p id=\"a\">x &amp; y<br/></p>\n"), "");
  for (const char* bad :
       {"<p>", "<p></b></p>", "</p>", "<p a=b></p>", "<p a=\"1\" a=\"2\"></p>", "<p>a & b</p>", "<p>a > b</p>",
        "<p>a < b</p>", "<p a=\"<\"></p>", "<p", "<p id=\"a\"></p><p id=\"a\"></p>", "<p>\x01</p>", "<p>&nbsp;</p>"}) {
    EXPECT_NE(MarkupError(bad), "") << bad;
  }
}

TEST(NumbersTest, AreWrittenForPeople) {
  EXPECT_EQ(GroupDigits(0), "0");
  EXPECT_EQ(GroupDigits(999), "999");
  EXPECT_EQ(GroupDigits(1000), "1,000");
  EXPECT_EQ(GroupDigits(-1234567), "-1,234,567");
  EXPECT_EQ(Decimals(0.12345, 3), "0.123");
  EXPECT_EQ(Decimals(std::nullopt, 3), "–");
  EXPECT_EQ(Decimals(std::numeric_limits<double>::infinity(), 3), "–");
  EXPECT_EQ(SignedDecimals(0.125, 2), "+0.12");
  EXPECT_EQ(SignedDecimals(-0.126, 2), "−0.13");
  EXPECT_EQ(SignedDecimals(-0.001, 2), "0.00");
  EXPECT_EQ(SignedDecimals(std::nullopt, 2), "–");
}

}  // namespace
}  // namespace hilomoe
