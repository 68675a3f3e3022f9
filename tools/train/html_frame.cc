#include "tools/train/html_frame.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace hilomoe {
namespace {

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5d9de; --soft: #f3f5f7; --faint: #5b6672;
  --good: #14713a; --bad: #b3261e; --accent: #2457a6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14171a; --line: #373e46; --soft: #1e2328;
  --faint: #9aa5b1; --good: #62c98b; --bad: #ff8a80; --accent: #86b4ff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 }
h2 { font-size: 1.15rem; margin: 1.75rem 0 .5rem }
p, li { max-width: 46rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
td.wrap { white-space: normal; min-width: 16rem }
tr:last-child > * { border-bottom: 0 }
thead th { background: var(--soft); font-weight: 600 }
th:first-child { position: sticky; left: 0; background: var(--soft) }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif }
)";

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

std::string HtmlText(std::string_view text) {
  return absl::StrReplaceAll(View(text), {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string HtmlPage(std::string_view title, std::string_view body) {
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
      HtmlText(title), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n", View(body), "</body>\n</html>\n");
}

}  // namespace hilomoe
