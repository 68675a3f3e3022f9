// A strict look at a page: well-formed as XML, and nothing in it that would be loaded or run.
#ifndef HILOMOE_TESTS_TOOLS_REPORT_WELL_FORMED_H_
#define HILOMOE_TESTS_TOOLS_REPORT_WELL_FORMED_H_

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace hilomoe {

// What is wrong with the markup, and where; empty when nothing is. Elements must be closed in order, attributes quoted
// and unique in their element, ids unique in the page; a bare '<', '>' or '&' is an error.
inline std::string MarkupError(std::string_view text) {
  constexpr std::string_view kDoctype = "<!DOCTYPE html>\n";
  if (text.substr(0, kDoctype.size()) == kDoctype) text.remove_prefix(kDoctype.size());
  std::vector<std::string> open;
  std::set<std::string> ids;
  size_t at = 0;
  const auto error = [&](const std::string& what) {
    const size_t from = at < 40 ? 0 : at - 40;
    return what + " at: " + std::string(text.substr(from, 100));
  };
  // Text up to `stops`, with nothing but known entities in it.
  const auto bad_text = [&](char stop) {
    while (at < text.size() && text[at] != stop) {
      if (text[at] == '<' || text[at] == '>') return true;
      if (text[at] == '&') {
        bool known = false;
        for (const std::string_view entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
          if (text.substr(at, entity.size()) == entity) known = true;
        }
        if (!known) return true;
      }
      const auto byte = static_cast<unsigned char>(text[at]);
      if (byte < 0x20 && text[at] != '\n' && text[at] != '\t' && text[at] != '\r') return true;
      ++at;
    }
    return false;
  };
  const auto name = [&] {
    const size_t begin = at;
    while (at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) != 0 || text[at] == '-')) ++at;
    return std::string(text.substr(begin, at - begin));
  };
  while (at < text.size()) {
    if (bad_text('<')) return error("bare markup in text");
    if (at == text.size()) break;
    ++at;
    if (text[at] == '/') {
      ++at;
      const std::string closed = name();
      if (open.empty() || open.back() != closed) return error("'" + closed + "' closed out of order");
      open.pop_back();
      if (text[at++] != '>') return error("no end of a closing tag");
      continue;
    }
    const std::string element = name();
    if (element.empty()) return error("no element name");
    std::set<std::string> attributes;
    while (at < text.size() && text[at] == ' ') {
      ++at;
      const std::string attribute = name();
      if (attribute.empty() || !attributes.insert(attribute).second) return error("bad or double attribute");
      if (text.substr(at, 2) != "=\"") return error("unquoted attribute");
      const size_t begin = at += 2;
      if (bad_text('"')) return error("bare markup in an attribute");
      if (attribute == "id" && !ids.insert(std::string(text.substr(begin, at - begin))).second) {
        return error("double id");
      }
      ++at;
    }
    if (text.substr(at, 2) == "/>") {
      at += 2;
    } else if (at < text.size() && text[at] == '>') {
      ++at;
      open.push_back(element);
    } else {
      return error("no end of a tag");
    }
  }
  return open.empty() ? "" : "'" + open.back() + "' is never closed";
}

// What a browser would load or run; empty when the page stands alone.
inline std::string LoadedFromElsewhere(std::string_view page) {
  for (const std::string_view bad : {"<script", "<link", "<img", "<iframe", "<object", "<image", "<use", " src=",
                                     " href=", "@import", "http:", "https:", " onload", " onclick", "javascript:"}) {
    if (page.find(bad) != std::string_view::npos) return std::string(bad);
  }
  // The only url() is that of a clip path of the page itself.
  for (size_t at = page.find("url("); at != std::string_view::npos; at = page.find("url(", at + 1)) {
    if (page.substr(at, 5) != "url(#") return std::string(page.substr(at, 20));
  }
  return "";
}

}  // namespace hilomoe

#endif  // HILOMOE_TESTS_TOOLS_REPORT_WELL_FORMED_H_
