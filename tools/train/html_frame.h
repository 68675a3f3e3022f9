// The frame of a report page: one self-contained HTML file, light and dark, readable at the width of a phone.
#ifndef HILOMOE_TOOLS_TRAIN_HTML_FRAME_H_
#define HILOMOE_TOOLS_TRAIN_HTML_FRAME_H_

#include <string>
#include <string_view>

namespace hilomoe {

// `body` is HTML; tables stand in <div class="scroll">. `title` is text.
std::string HtmlPage(std::string_view title, std::string_view body);

// Text as HTML.
std::string HtmlText(std::string_view text);

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_HTML_FRAME_H_
