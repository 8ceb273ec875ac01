// SPDX-License-Identifier: Apache-2.0
// llhttp's callbacks and what a head must be like. No lenient flag is ever set: what llhttp or this
// file refuses is answered 400 and the connection ends, since two readers of one byte stream must
// never disagree on where a message ends.
#include "proxy/http/http1_parse.h"

#include "proxy/http/fields.h"

namespace weft::http {
namespace {

// Chunk extensions carry nothing we forward; more than this is somebody burning our time.
constexpr size_t kMaxExtensionBytes = 16 * 1024;
constexpr size_t kFieldOverheadBytes = 4;
constexpr uint32_t kMaxInformational = 100;

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Calls `visit` for each element of a comma separated list; stops and returns false when it does.
template <typename Visit>
bool EachToken(std::string_view list, Visit visit) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view token = Trim(list.substr(0, comma));
    if (!token.empty() && !visit(token)) return false;
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return true;
}

bool IsForwardingField(std::string_view name) {
  return EqualsIgnoreCase(name, "forwarded") || EqualsIgnoreCase(name, "x-forwarded-for") ||
         EqualsIgnoreCase(name, "x-forwarded-proto") || EqualsIgnoreCase(name, "x-forwarded-host");
}

bool FramesMessage(std::string_view name) {
  return EqualsIgnoreCase(name, "content-length") || EqualsIgnoreCase(name, "transfer-encoding") ||
         EqualsIgnoreCase(name, "host");
}

}  // namespace

struct Http1Callbacks {
  static Http1Session& Self(llhttp_t* parser) { return *static_cast<Http1Session*>(parser->data); }

  static int OnBegin(llhttp_t* parser) {
    Self(parser).phase_ = Http1Session::Phase::kHead;
    return 0;
  }
  static int OnUrl(llhttp_t* parser, const char* at, size_t size) {
    return Self(parser).OnSpan(&Self(parser).target_, at, size);
  }
  static int OnIgnored(llhttp_t* parser, const char* at, size_t size) {
    (void)at;
    return Self(parser).OnSpan(nullptr, nullptr, size);
  }
  static int OnName(llhttp_t* parser, const char* at, size_t size) {
    return Self(parser).OnSpan(&Self(parser).name_, at, size);
  }
  static int OnValue(llhttp_t* parser, const char* at, size_t size) {
    return Self(parser).OnSpan(&Self(parser).value_, at, size);
  }
  static int OnValueComplete(llhttp_t* parser) { return Self(parser).OnField(); }
  static int OnHeadComplete(llhttp_t* parser) { return Self(parser).OnHeadComplete(); }
  static int OnExtension(llhttp_t* parser, const char*, size_t size) {
    Http1Session& self = Self(parser);
    self.got_.extension_bytes += size + 1;
    return self.got_.extension_bytes > kMaxExtensionBytes ? HPE_USER : 0;
  }
  static int OnBody(llhttp_t* parser, const char* at, size_t size) {
    Http1Session& self = Self(parser);
    if (self.discarding_) {
      self.discarded_bytes_ += size;
      return 0;
    }
    self.unconsumed_bytes_ += size;
    self.events_.Push(Event::Kind::kData, self.current_).data = {
        reinterpret_cast<const uint8_t*>(at), size};
    return 0;
  }
  static int OnMessageComplete(llhttp_t* parser) { return Self(parser).OnMessageComplete(); }
};

const llhttp_settings_t* Http1Settings() {
  static const llhttp_settings_t kSettings = [] {
    llhttp_settings_t s;
    llhttp_settings_init(&s);
    s.on_message_begin = &Http1Callbacks::OnBegin;
    s.on_url = &Http1Callbacks::OnUrl;
    s.on_status = &Http1Callbacks::OnIgnored;
    s.on_header_field = &Http1Callbacks::OnName;
    s.on_header_value = &Http1Callbacks::OnValue;
    s.on_header_value_complete = &Http1Callbacks::OnValueComplete;
    s.on_headers_complete = &Http1Callbacks::OnHeadComplete;
    s.on_chunk_extension_name = &Http1Callbacks::OnExtension;
    s.on_chunk_extension_value = &Http1Callbacks::OnExtension;
    s.on_body = &Http1Callbacks::OnBody;
    s.on_message_complete = &Http1Callbacks::OnMessageComplete;
    return s;
  }();
  return &kSettings;
}

int Http1Session::OnSpan(Http1Token* token, const char* at, size_t size) {
  got_.head_bytes += size;
  if (got_.head_bytes > limits_.max_header_list_bytes) {
    got_.too_large = true;
    return HPE_USER;
  }
  if (token != nullptr) token->Add(at, size);
  return 0;
}

// One field of the head or of the trailers is complete.
int Http1Session::OnField() {
  const std::string_view name = name_.view();
  const std::string_view value = Trim(value_.view());
  const bool in_trailers = phase_ == Phase::kBody;
  HeaderList& list = in_trailers              ? trailers_
                     : role_ == Role::kServer ? request_.headers
                                              : response_.headers;
  got_.head_bytes += kFieldOverheadBytes;
  if (list.size() >= limits_.max_header_count) {
    got_.too_large = true;
    return HPE_USER;
  }
  bool keep = true;
  if (in_trailers) {
    keep = !FramesMessage(name) && !EqualsIgnoreCase(name, "connection");
  } else {
    switch (name.size()) {
      case 2:
        keep = !EqualsIgnoreCase(name, "te");
        break;
      case 4:
        if (role_ == Role::kServer && EqualsIgnoreCase(name, "host")) {
          if (got_.has_host || !IsValidAuthority(value)) return HPE_USER;
          got_.has_host = true;
          host_ = value;
          keep = false;
        }
        break;
      case 7:
        if (EqualsIgnoreCase(name, "upgrade")) {
          if (!upgrade_value_.empty() && !value.empty()) upgrade_value_ += ", ";
          upgrade_value_ += value;
          keep = false;
        }
        break;
      case 10:
        if (EqualsIgnoreCase(name, "connection")) {
          connection_ += value;
          connection_ += ',';
          keep = false;
        } else {
          keep = !EqualsIgnoreCase(name, "keep-alive");
        }
        break;
      case 14:
        keep = !EqualsIgnoreCase(name, "http2-settings");
        break;
      case 16:
        keep = !EqualsIgnoreCase(name, "proxy-connection");
        break;
      case 17:
        if (EqualsIgnoreCase(name, "transfer-encoding")) {
          // Any other coding would have to be undone or understood alike by the next reader.
          if (++got_.transfer_encodings > 1 || !EqualsIgnoreCase(value, "chunked")) return HPE_USER;
          keep = false;
        }
        break;
      default:
        break;
    }
  }
  if (keep) list.Add(name, value);
  name_.Clear();
  value_.Clear();
  return 0;
}

// Applies Connection (RFC 9110 7.6.1): removes the fields that it names, and decides about Upgrade.
bool Http1Session::TakeConnectionFields() {
  HeaderList& list = role_ == Role::kServer ? request_.headers : response_.headers;
  got_.is_upgrade = false;
  if (!connection_.empty()) {
    const bool fine = EachToken(connection_, [&](std::string_view token) {
      if (EqualsIgnoreCase(token, "close") || EqualsIgnoreCase(token, "keep-alive")) return true;
      if (EqualsIgnoreCase(token, "upgrade")) {
        got_.is_upgrade = !upgrade_value_.empty();
        return true;
      }
      if (FramesMessage(token)) return false;
      // Nobody strips what proxies in front of us have said about the client.
      if (!IsForwardingField(token)) list.Remove(token);
      return true;
    });
    if (!fine) return false;
  }
  // A cleartext upgrade to HTTP/2 would take the connection out of our sight.
  EachToken(upgrade_value_, [&](std::string_view token) {
    if (EqualsIgnoreCase(token.substr(0, 2), "h2")) got_.is_upgrade = false;
    return true;
  });
  if (got_.is_upgrade) list.Add("upgrade", upgrade_value_);
  return true;
}

// The four forms of a request target (RFC 9112 3.2).
bool Http1Session::SplitTarget(std::string_view target) {
  if (!IsValidTarget(target)) return false;
  request_.scheme = "http";
  request_.authority = host_;
  if (connect_) {
    if (target.empty() || !IsValidAuthority(target)) return false;
    request_.authority = target;
    return true;
  }
  if (target.starts_with('/')) {
    request_.path = target;
    return true;
  }
  if (target == "*") {
    request_.path = target;
    return request_.method == "OPTIONS";
  }
  const size_t scheme_end = target.find("://");
  if (scheme_end == std::string_view::npos) return false;
  const std::string_view scheme = target.substr(0, scheme_end);
  if (!EqualsIgnoreCase(scheme, "http") && !EqualsIgnoreCase(scheme, "https")) return false;
  if (scheme.size() == 5) request_.scheme = "https";
  std::string_view rest = target.substr(scheme_end + 3);
  const size_t path_at = rest.find_first_of("/?");
  const std::string_view authority = rest.substr(0, path_at);
  if (authority.empty() || !IsValidAuthority(authority)) return false;
  request_.authority = authority;  // RFC 9112 3.2.2: Host is ignored
  rest = path_at == std::string_view::npos ? std::string_view() : rest.substr(path_at);
  if (rest.empty() || rest[0] == '?') request_.path = "/";
  request_.path += rest;
  return true;
}

int Http1Session::OnHeadComplete() {
  const bool known_version = parser_.http_major == 1 && parser_.http_minor <= 1;
  if (!known_version) {
    got_.error_status = 505;
    return HPE_USER;
  }
  // RFC 9112 6.1: chunked does not exist in HTTP/1.0; together with a length, or twice, it is an
  // attack.
  if (got_.transfer_encodings > 0 && parser_.http_minor == 0) return HPE_USER;
  if (got_.transfer_encodings > 0 && (parser_.flags & F_CHUNKED) == 0) return HPE_USER;
  if (!TakeConnectionFields()) return HPE_USER;
  return role_ == Role::kServer ? OnRequestHead() : OnResponseHead();
}

int Http1Session::OnRequestHead() {
  http10_ = parser_.http_minor == 0;
  keep_alive_ = llhttp_should_keep_alive(&parser_) != 0;
  request_.method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
  head_request_ = parser_.method == HTTP_HEAD;
  connect_ = parser_.method == HTTP_CONNECT;
  if (!got_.has_host && !http10_) return HPE_USER;
  if (!SplitTarget(target_.view())) return HPE_USER;
  const bool has_body = (parser_.flags & F_CHUNKED) != 0 || parser_.content_length > 0;
  if (connect_) {
    if (has_body || (parser_.flags & F_CONTENT_LENGTH) != 0) return HPE_USER;
  } else {
    parser_.upgrade = 0;  // whether the protocol changes is decided by the response
  }
  upgrade_ = got_.is_upgrade && !has_body && !http10_;
  if (got_.is_upgrade && !upgrade_) request_.headers.Remove("upgrade");
  phase_ = Phase::kBody;
  Open();
  got_.end_announced = !has_body && !connect_;
  Event& event = events_.Push(Event::Kind::kRequest, current_);
  event.end_stream = got_.end_announced;
  event.request = events_.requests.Take(&request_);
  got_.head_bytes = 0;
  return 0;
}

int Http1Session::OnResponseHead() {
  const int status = parser_.status_code;
  response_.status = status;
  if (status == 101 && (!upgrade_ || !got_.is_upgrade)) return HPE_USER;
  got_.informational = status < 200 && status != 101;
  phase_ = Phase::kBody;
  got_.head_bytes = 0;
  if (got_.informational) {
    if (++got_.informational_count > kMaxInformational) return HPE_USER;
    events_.Push(Event::Kind::kInformational, current_).response =
        events_.responses.Take(&response_);
    return 1;
  }
  const bool tunnel = status == 101 || (connect_ && status / 100 == 2);
  const bool bodiless = head_request_ || status == 204 || status == 304;
  const bool empty = (parser_.flags & F_CHUNKED) == 0 && (parser_.flags & F_CONTENT_LENGTH) != 0 &&
                     parser_.content_length == 0;
  keep_alive_ = llhttp_should_keep_alive(&parser_) != 0 ||
                (bodiless && (parser_.flags & F_CONNECTION_CLOSE) == 0 && parser_.http_minor == 1);
  got_.end_announced = !tunnel && (bodiless || empty);
  Event& event = events_.Push(Event::Kind::kResponse, current_);
  event.end_stream = got_.end_announced;
  event.response = events_.responses.Take(&response_);
  if (tunnel) {
    upgraded_unsaid_ = true;
    return 2;
  }
  return bodiless ? 1 : 0;
}

int Http1Session::OnMessageComplete() {
  if (got_.informational) return HPE_PAUSED;
  got_.ended = true;
  if (phase_ == Phase::kBody) phase_ = Phase::kWaiting;
  if (discarding_ || upgraded_unsaid_ || connect_) return HPE_PAUSED;
  if (!trailers_.empty()) {
    events_.Push(Event::Kind::kTrailers, current_).trailers = events_.trailers.Take(&trailers_);
  } else if (!got_.end_announced) {
    events_.Push(Event::Kind::kEnd, current_);
  }
  return HPE_PAUSED;
}

}  // namespace weft::http
