#include "http/head_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "http/characters.h"
#include "http/target.h"

namespace ringmaster::http {

static constexpr std::size_t kMethodBytesMax = 32;

// --- what both kinds share ---

void HeadParser::restart() {
  line_start_ = scanned_ = 0;
  started_ = false;
  rejection_ = {};
}

Parse HeadParser::reject(unsigned status, std::string_view why) {
  rejection_ = {status, why};
  return Parse::rejected;
}

Parse HeadParser::next_line(std::string_view bytes, std::string_view& line) {
  const char* from = bytes.data() + scanned_;
  const auto* end = static_cast<const char*>(std::memchr(from, '\n', bytes.size() - scanned_));
  const std::size_t line_end = end == nullptr ? bytes.size() : static_cast<std::size_t>(end - bytes.data());
  if (!started_ && line_end - line_start_ > limits_.line_bytes_max) {
    const bool has_method = bytes.substr(line_start_, kMethodBytesMax + 1).find(' ') != std::string_view::npos;
    return has_method ? reject(414, "the request line is too long") : reject(501, "the method is longer than any that is known");
  }
  if (line_end > limits_.head_bytes_max) return reject(431, "the head is too long");
  if (end == nullptr) {
    scanned_ = bytes.size();
    return Parse::more;
  }
  if (line_end == line_start_ || bytes[line_end - 1] != '\r') return reject(400, "a line ends in a bare LF");
  line = bytes.substr(line_start_, line_end - 1 - line_start_);
  line_start_ = scanned_ = line_end + 1;
  return Parse::done;
}

static FieldId identify(std::string_view name) {
  struct Known {
    std::string_view name;
    FieldId id;
  };
  static constexpr Known kKnown[] = {
      {"te", FieldId::te},
      {"host", FieldId::host},
      {"date", FieldId::date},
      {"origin", FieldId::origin},
      {"expect", FieldId::expect},
      {"cookie", FieldId::cookie},
      {"trailer", FieldId::trailer},
      {"upgrade", FieldId::upgrade},
      {"x-real-ip", FieldId::x_real_ip},
      {"forwarded", FieldId::forwarded},
      {"connection", FieldId::connection},
      {"keep-alive", FieldId::keep_alive},
      {"content-type", FieldId::content_type},
      {"content-length", FieldId::content_length},
      {"http2-settings", FieldId::http2_settings},
      {"x-forwarded-for", FieldId::x_forwarded_for},
      {"x-forwarded-host", FieldId::x_forwarded_host},
      {"proxy-connection", FieldId::proxy_connection},
      {"x-forwarded-proto", FieldId::x_forwarded_proto},
      {"transfer-encoding", FieldId::transfer_encoding},
  };
  // Sorted by length; the first letter settles nearly all the rest.
  for (const Known& known : kKnown) {
    if (known.name.size() > name.size()) break;
    if (known.name.size() == name.size() && known.name[0] == lower(name[0]) && equals_ignoring_case(known.name, name)) {
      return known.id;
    }
  }
  return FieldId::other;
}

Parse HeadParser::parse_field(std::string_view line, Fields& fields, bool drop_underscores) {
  if (line[0] == ' ' || line[0] == '\t') return reject(400, "a field is folded over lines");
  std::size_t colon = 0;
  bool underscore = false;
  while (colon < line.size() && is(line[colon], kToken)) underscore |= line[colon++] == '_';
  if (colon == 0 || colon == line.size() || line[colon] != ':') return reject(400, "a field's name is not a token");
  std::size_t first = colon + 1;
  while (first < line.size() && (line[first] == ' ' || line[first] == '\t')) ++first;
  std::size_t last = line.size();
  while (last > first && (line[last - 1] == ' ' || line[last - 1] == '\t')) --last;
  const std::string_view value = line.substr(first, last - first);
  if (!all(value, kFieldValue)) return reject(400, "a field's value has a control character");
  const std::string_view name = line.substr(0, colon);
  if (underscore && drop_underscores) return Parse::done;
  if (fields.size() >= limits_.fields_max || !fields.add({name, value, identify(name)})) return reject(431, "there are too many fields");
  return Parse::done;
}

static bool parse_length(std::string_view text, std::uint64_t& length) {
  static constexpr std::uint64_t kLengthMax = (1ULL << 63) - 1;
  if (text.empty() || !all(text, kDigit)) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  return error == std::errc{} && end == text.data() + text.size() && length <= kLengthMax;
}

Parse HeadParser::parse_framing(const Fields& fields, unsigned minor_version, Framing& framing, std::uint64_t& length) {
  framing = Framing::none;
  length = 0;
  const Field* coding = nullptr;
  const Field* content_length = nullptr;
  for (const Field& field : fields) {
    if (field.id == FieldId::transfer_encoding) {
      if (coding != nullptr) return reject(400, "Transfer-Encoding is given twice");
      coding = &field;
    } else if (field.id == FieldId::content_length) {
      if (content_length != nullptr) return reject(400, "Content-Length is given twice");
      content_length = &field;
    }
  }
  if (coding != nullptr) {
    if (content_length != nullptr) return reject(400, "Content-Length and Transfer-Encoding together");
    if (minor_version == 0) return reject(400, "Transfer-Encoding in HTTP/1.0");
    if (!equals_ignoring_case(coding->value, "chunked")) return reject(400, "Transfer-Encoding is not exactly 'chunked'");
    framing = Framing::chunked;
  } else if (content_length != nullptr) {
    if (!parse_length(content_length->value, length)) return reject(400, "Content-Length is not a number");
    framing = Framing::length;
  }
  return Parse::done;
}

bool HeadParser::has_too_many_options(const Fields& fields) {
  static constexpr std::size_t kOptionsMax = 32;
  std::size_t options = 0;
  for (const Field& field : fields) {
    if (field.id == FieldId::connection) options += 1 + static_cast<std::size_t>(std::ranges::count(field.value, ','));
  }
  return options > kOptionsMax;
}

bool HeadParser::wants_keep_alive(const Fields& fields, unsigned minor_version) {
  bool close = false;
  bool keep_alive = false;
  for (const Field& field : fields) {
    if (field.id != FieldId::connection) continue;
    for_each_element(field.value, [&](std::string_view option) {
      close |= equals_ignoring_case(option, "close");
      keep_alive |= equals_ignoring_case(option, "keep-alive");
    });
  }
  return !close && (minor_version >= 1 || keep_alive);
}

// --- requests ---

void RequestParser::restart() {
  HeadParser::restart();
  head_.fields.clear();
}

Parse RequestParser::parse(std::string_view bytes) {
  // What cannot begin a request is refused at once, not when a line end happens to come (TLS on a plain port).
  if (!started_ && !bytes.empty() && !is(bytes[0], kToken) && bytes[0] != '\r') return reject(400, "this is not HTTP/1");
  std::string_view line;
  while (true) {
    if (const Parse step = next_line(bytes, line); step != Parse::done) return step;
    if (!started_) {
      // One empty line before a request is ignored (RFC 9112 section 2.2).
      if (line.empty() && head_bytes() == 2) continue;
      if (const Parse step = parse_request_line(line); step != Parse::done) return step;
      started_ = true;
    } else if (line.empty()) {
      return finish();
    } else if (const Parse step = parse_field(line, head_.fields, true); step != Parse::done) {
      return step;
    }
  }
}

static Method identify_method(std::string_view text) {
  switch (text.size()) {
    case 3:
      if (text == "GET") return Method::get;
      if (text == "PUT") return Method::put;
      break;
    case 4:
      if (text == "POST") return Method::post;
      if (text == "HEAD") return Method::head;
      break;
    case 5:
      if (text == "PATCH") return Method::patch;
      if (text == "TRACE") return Method::trace;
      break;
    case 6:
      if (text == "DELETE") return Method::delete_;
      break;
    case 7:
      if (text == "OPTIONS") return Method::options;
      if (text == "CONNECT") return Method::connect;
      break;
    default: break;
  }
  return Method::other;
}

// 1 or 0 for a version we speak; else the rejection's status through `status`.
static bool parse_version(std::string_view text, unsigned& minor, unsigned& status) {
  status = 400;
  if (text.size() != 8 || !text.starts_with("HTTP/") || !is(text[5], kDigit) || text[6] != '.' || !is(text[7], kDigit)) {
    return false;
  }
  status = 505;
  minor = static_cast<unsigned>(text[7] - '0');
  return text[5] == '1' && minor <= 1;
}

Parse RequestParser::parse_request_line(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return reject(400, "the request line has not three parts");
  head_.method_text = line.substr(0, first);
  if (!is_token(head_.method_text)) return reject(400, "the method is not a token");
  if (head_.method_text.size() > kMethodBytesMax) return reject(501, "the method is longer than any that is known");  // RFC 9112 section 3
  head_.method = identify_method(head_.method_text);
  unsigned status = 400;
  if (!parse_version(line.substr(last + 1), head_.minor_version, status)) {
    return reject(status, "the version is not HTTP/1.0 or HTTP/1.1");
  }
  if (head_.method == Method::connect || head_.method == Method::trace) {
    return reject(405, "CONNECT and TRACE are not served");
  }
  return parse_target(line.substr(first + 1, last - first - 1));
}

Parse RequestParser::parse_target(std::string_view target) {
  if (target.empty() || !all(target, kTarget)) return reject(400, "the target has a character that must be encoded");
  head_.authority = {};
  head_.query = {};
  if (target == "*") {
    if (head_.method != Method::options) return reject(400, "the target '*' is for OPTIONS only");
    head_.path = target;
    return Parse::done;
  }
  if (target[0] != '/') {
    if (!split_absolute(target, head_.authority, target)) return reject(400, "the target is neither a path nor an http URL");
    if (target.empty() || target[0] == '?') {
      head_.path = "/";
      head_.query = target;
      return Parse::done;
    }
  }
  const std::size_t question = target.find('?');
  head_.path = target.substr(0, question);
  if (question != std::string_view::npos) head_.query = target.substr(question);
  return Parse::done;
}

Parse RequestParser::finish() {
  const std::size_t hosts = head_.fields.count(FieldId::host);
  if (hosts > 1) return reject(400, "Host is given twice");
  if (hosts == 0 && head_.minor_version == 1) return reject(400, "Host is missing");
  if (hosts == 1) {
    const std::string_view host = head_.fields.find(FieldId::host)->value;
    if (!is_authority(host)) return reject(400, "Host is not a host name");
    // An absolute-form target's host replaces the field (RFC 9112 section 3.2.2).
    if (head_.authority.empty()) head_.authority = host;
  }
  if (const Parse step = parse_framing(head_.fields, head_.minor_version, head_.framing, head_.content_length); step != Parse::done) {
    return step;
  }
  if (has_too_many_options(head_.fields)) return reject(400, "Connection has too many options");
  head_.keep_alive = wants_keep_alive(head_.fields, head_.minor_version);
  head_.expects_continue = false;
  for (const Field& field : head_.fields) {
    if (field.id == FieldId::expect) {
      if (!equals_ignoring_case(field.value, "100-continue")) return reject(417, "only 100-continue can be expected");
      head_.expects_continue = head_.minor_version == 1;
    } else if (field.id == FieldId::upgrade && equals_ignoring_case(field.value, "websocket") &&
               (head_.framing == Framing::chunked || head_.content_length > 0)) {
      // Any other Upgrade is ignored, as RFC 9110 section 7.8 allows: it is never forwarded.
      return reject(400, "an upgrade to websocket with a body");
    }
  }
  return Parse::done;
}

void RequestParser::keep_line(std::string& room) {
  const std::array<std::string_view*, 4> parts = {&head_.method_text, &head_.path, &head_.query, &head_.authority};
  room.clear();
  for (const std::string_view* part : parts) room.append(*part);
  std::string_view rest = room;
  for (std::string_view* part : parts) {
    *part = rest.substr(0, part->size());
    rest.remove_prefix(part->size());
  }
  head_.fields.clear();
}

// --- responses ---

void ResponseParser::restart(Method request) {
  HeadParser::restart();
  head_.fields.clear();
  request_ = request;
}

Parse ResponseParser::parse(std::string_view bytes) {
  std::string_view line;
  while (true) {
    if (const Parse step = next_line(bytes, line); step != Parse::done) return step;
    if (!started_) {
      if (const Parse step = parse_status_line(line); step != Parse::done) return step;
      started_ = true;
    } else if (line.empty()) {
      return finish();
    } else if (const Parse step = parse_field(line, head_.fields, false); step != Parse::done) {
      return step;
    }
  }
}

Parse ResponseParser::parse_status_line(std::string_view line) {
  unsigned status = 0;
  if (line.size() < 12 || line[8] != ' ' || !parse_version(line.substr(0, 8), head_.minor_version, status)) {
    return reject(502, "the status line is not HTTP/1");
  }
  const std::string_view code = line.substr(9, 3);
  if (!all(code, kDigit) || (line.size() > 12 && line[12] != ' ')) return reject(502, "the status is not three digits");
  head_.status = static_cast<unsigned>((code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0'));
  if (head_.status < 100 || head_.status > limits_.status_max) return reject(502, "the status is out of range");
  head_.reason = line.size() > 13 ? line.substr(13) : std::string_view{};
  if (!all(head_.reason, kFieldValue)) return reject(502, "the reason has a control character");
  return Parse::done;
}

Parse ResponseParser::finish() {
  if (const Parse step = parse_framing(head_.fields, head_.minor_version, head_.framing, head_.content_length); step != Parse::done) {
    return step;
  }
  if (has_too_many_options(head_.fields)) return reject(400, "Connection has too many options");
  head_.keep_alive = wants_keep_alive(head_.fields, head_.minor_version);
  // RFC 9112 section 6.3, rules 1 and 8.
  if (request_ == Method::head || head_.status < 200 || head_.status == 204 || head_.status == 304) {
    head_.framing = Framing::none;
  } else if (head_.framing == Framing::none) {
    head_.framing = Framing::until_close;
    head_.keep_alive = false;
  }
  return Parse::done;
}

}  // namespace ringmaster::http
