// SPDX-License-Identifier: Apache-2.0
// The CA's two files. Thread: any.
#pragma once
#include <string>

#include "proxy/base/status.h"

namespace weft::identity {

struct CaFiles {
  std::string root_pem, key_pem;  // both empty: there are none yet
};

// DIRECTORY/root.pem and DIRECTORY/root-key.pem. An error if only one exists, or the key may be
// read by others.
absl::StatusOr<CaFiles> ReadCaFiles(const std::string& directory);
// Makes the directory (0700) if it is missing. Never overwrites; both files are 0600 and on disk
// when it returns.
absl::Status WriteCaFiles(const std::string& directory, const CaFiles& files);

}  // namespace weft::identity
