#include "server/trace_context.h"

#include <algorithm>

namespace hilomoe {
namespace {

constexpr size_t kTraceIdAt = 3, kSpanIdAt = 36, kFlagsAt = 53, kLength = 55;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) { return IsHex(text) && text.find_first_not_of('0') != std::string_view::npos; }

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  if (header.size() < kLength || header[kTraceIdAt - 1] != '-' || header[kSpanIdAt - 1] != '-' ||
      header[kFlagsAt - 1] != '-') {
    return std::nullopt;
  }
  const std::string_view version = header.substr(0, 2);
  const TraceContext context = {header.substr(kTraceIdAt, 32), header.substr(kSpanIdAt, 16),
                                header.substr(kFlagsAt, 2)};
  if (!IsHex(version) || version == "ff" || !IsId(context.trace_id) || !IsId(context.span_id) ||
      !IsHex(context.flags)) {
    return std::nullopt;
  }
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  return context;
}

}  // namespace hilomoe
