// SPDX-License-Identifier: Apache-2.0
#include "proxy/base/status.h"

#include <cstring>

namespace weft {

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(AbslView(context), ": ", status.message()));
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  return absl::ErrnoToStatus(error, AbslView(what));
}

}  // namespace weft
