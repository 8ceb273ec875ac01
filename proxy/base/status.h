// SPDX-License-Identifier: Apache-2.0
// Errors of configuration, start-up and control. Never built on the path of a request: there a
// Reason is the error.
#pragma once
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace weft {

// Debian's abseil has its own string_view; this is the one bridge.
inline absl::string_view AbslView(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view StdView(absl::string_view s) { return {s.data(), s.size()}; }

// The same status with "context: " before its message.
absl::Status Annotate(const absl::Status& status, std::string_view context);
// The error of errno `error` for an operation on `what`: "open /x: No such file or directory".
absl::Status ErrnoStatus(int error, std::string_view what);

}  // namespace weft

#define WEFT_CONCAT_(a, b) a##b
#define WEFT_CONCAT(a, b) WEFT_CONCAT_(a, b)
// WEFT_RETURN_IF_ERROR(expression): returns the status from the enclosing function if it is not OK.
#define WEFT_RETURN_IF_ERROR(expression)                                \
  do {                                                                  \
    if (absl::Status weft_status_ = (expression); !weft_status_.ok()) { \
      return weft_status_;                                              \
    }                                                                   \
  } while (false)
// WEFT_ASSIGN_OR_RETURN(lhs, expression): lhs may declare a variable.
#define WEFT_ASSIGN_OR_RETURN(lhs, expression) \
  WEFT_ASSIGN_OR_RETURN_(WEFT_CONCAT(weft_or_, __LINE__), lhs, expression)
#define WEFT_ASSIGN_OR_RETURN_(name, lhs, expression) \
  auto name = (expression);                           \
  if (!name.ok()) return name.status();               \
  lhs = std::move(name).value()
