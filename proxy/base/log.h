// SPDX-License-Identifier: Apache-2.0
// Log lines for people and for machines: one line each on standard error, text or JSON, with a
// level and key=value pairs. Any thread. Never on the path of a request: what happens there is
// counted and leaves as an event.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace weft {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogConfig {
  LogLevel level = LogLevel::kInfo;
  bool json = false;
  std::string process;  // e.g. "weft-proxy"
};
// Once, from main, before any other thread runs.
void ConfigureLog(LogConfig config);

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;
// Control characters in the message and the values are escaped, so that nobody forges a line.
void Log(LogLevel level, std::string_view message, LogFields fields = {});
inline void LogInfo(std::string_view m, LogFields f = {}) { Log(LogLevel::kInfo, m, f); }
inline void LogWarning(std::string_view m, LogFields f = {}) { Log(LogLevel::kWarning, m, f); }
inline void LogError(std::string_view m, LogFields f = {}) { Log(LogLevel::kError, m, f); }
inline void LogDebug(std::string_view m, LogFields f = {}) { Log(LogLevel::kDebug, m, f); }

// Believed impossible, but survivable: aborts in checked builds, logs once and counts in release.
// Never on a peer's bytes.
[[gnu::cold]] void ReportBug(const char* file, int line, const char* what);

}  // namespace weft

#define WEFT_BUG(what) ::weft::ReportBug(__FILE__, __LINE__, (what))
// Impossible: ends the process. Never on a peer's bytes.
#define WEFT_CHECK(condition)                                                \
  do {                                                                       \
    if (!(condition)) [[unlikely]] {                                         \
      ::weft::Log(::weft::LogLevel::kError, "check failed: " #condition,     \
                  {{"file", __FILE__}, {"line", std::to_string(__LINE__)}}); \
      __builtin_trap();                                                      \
    }                                                                        \
  } while (false)
