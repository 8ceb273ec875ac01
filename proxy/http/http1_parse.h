// SPDX-License-Identifier: Apache-2.0
// The callbacks that llhttp makes into an Http1Session. Internal to proxy/http.
#pragma once
#include "proxy/http/http1_session.h"

namespace weft::http {

// One immutable table for all sessions; `data` of the parser is the session.
const llhttp_settings_t* Http1Settings();

}  // namespace weft::http
