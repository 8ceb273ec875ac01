// SPDX-License-Identifier: Apache-2.0
#include "proxy/base/log.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace weft {
namespace {

LogConfig& Config() {
  static LogConfig config;
  return config;
}

constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warning", "error"};

void AppendEscaped(std::string& out, std::string_view text) {
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char hex[8];
      snprintf(hex, sizeof hex, "\\u%04x", byte);
      out += hex;
    } else {
      out += c;
    }
  }
}

std::string Timestamp() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[40];
  const size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
  return text;
}

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  AppendEscaped(out, text);
  out += '"';
}

std::string JsonLine(LogLevel level, std::string_view message, LogFields fields) {
  std::string line = "{\"time\":\"" + Timestamp() + "\",\"level\":\"";
  line += kNames[static_cast<size_t>(level)];
  line += "\",\"process\":";
  AppendQuoted(line, Config().process);
  line += ",\"message\":";
  AppendQuoted(line, message);
  for (const auto& [key, value] : fields) {
    line += ",";
    AppendQuoted(line, key);
    line += ":";
    AppendQuoted(line, value);
  }
  return line + "}\n";
}

std::string TextLine(LogLevel level, std::string_view message, LogFields fields) {
  std::string line = Timestamp() + " " + Config().process + " ";
  line += kNames[static_cast<size_t>(level)];
  line += ": ";
  AppendEscaped(line, message);
  for (const auto& [key, value] : fields) {
    line += " ";
    line += key;
    line += "=";
    if (value.find_first_of(" \"") == std::string::npos && !value.empty()) {
      AppendEscaped(line, value);
    } else {
      AppendQuoted(line, value);
    }
  }
  return line + "\n";
}

}  // namespace

void ConfigureLog(LogConfig config) { Config() = std::move(config); }

void Log(LogLevel level, std::string_view message, LogFields fields) {
  if (level < Config().level) return;
  const std::string line =
      Config().json ? JsonLine(level, message, fields) : TextLine(level, message, fields);
  // One write a line: lines of several processes on one terminal stay whole. A failed log write has
  // nowhere to be reported.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

void ReportBug(const char* file, int line, const char* what) {
  Log(LogLevel::kError, "bug: please report it",
      {{"what", what}, {"file", file}, {"line", std::to_string(line)}});
#ifndef NDEBUG
  abort();
#endif
}

}  // namespace weft
