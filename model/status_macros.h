// Early returns for absl::Status; the usual pair.
#ifndef HILOMOE_MODEL_STATUS_MACROS_H_
#define HILOMOE_MODEL_STATUS_MACROS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define HILOMOE_RETURN_IF_ERROR(expression)                                 \
  do {                                                                      \
    if (absl::Status _status = (expression); !_status.ok()) return _status; \
  } while (false)

#define HILOMOE_CONCAT_INNER(a, b) a##b
#define HILOMOE_CONCAT(a, b) HILOMOE_CONCAT_INNER(a, b)
#define HILOMOE_ASSIGN_OR_RETURN(lhs, expression) \
  HILOMOE_ASSIGN_OR_RETURN_IMPL(HILOMOE_CONCAT(_status_or_, __LINE__), lhs, expression)
#define HILOMOE_ASSIGN_OR_RETURN_IMPL(result, lhs, expression) \
  auto result = (expression);                                  \
  if (!result.ok()) return std::move(result).status();         \
  lhs = *std::move(result)

#endif  // HILOMOE_MODEL_STATUS_MACROS_H_
