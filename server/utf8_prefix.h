// Cutting text that has to stay UTF-8.
#ifndef HILOMOE_SERVER_UTF8_PREFIX_H_
#define HILOMOE_SERVER_UTF8_PREFIX_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace hilomoe {

// At most so many bytes from the front, without a part of a character at the end.
inline absl::string_view Utf8Prefix(absl::string_view text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

}  // namespace hilomoe

#endif  // HILOMOE_SERVER_UTF8_PREFIX_H_
