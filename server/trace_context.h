// W3C Trace Context (https://www.w3.org/TR/trace-context/), as far as a log line needs it.
#ifndef HILOMOE_SERVER_TRACE_CONTEXT_H_
#define HILOMOE_SERVER_TRACE_CONTEXT_H_

#include <optional>
#include <string_view>

namespace hilomoe {

// Views of the header that was parsed.
struct TraceContext {
  std::string_view trace_id;  // 32 digits
  std::string_view span_id;   // 16 digits: the caller's
  std::string_view flags;     // 2 digits
};

// version "-" trace-id "-" parent-id "-" trace-flags, in lower-case hexadecimal digits. Nothing for anything that the
// standard calls invalid: other lengths or digits, ids of zeros, version ff. A later version may go on behind another
// "-".
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_TRACE_CONTEXT_H_
