#include "http/serialize.h"

#include <array>
#include <charconv>
#include <ctime>

namespace ringmaster::http {

static void append_number(std::string& out, std::uint64_t number, int base = 10) {
  std::array<char, 20> digits;
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), number, base);
  out.append(digits.data(), end);
}

static void append_field(std::string& out, std::string_view name, std::string_view value) { out.append(name).append(": ").append(value).append("\r\n"); }

static bool is_hop_by_hop(FieldId id) {
  switch (id) {
    case FieldId::connection:
    case FieldId::keep_alive:
    case FieldId::proxy_connection:
    case FieldId::te:
    case FieldId::trailer:
    case FieldId::transfer_encoding:
    case FieldId::upgrade:
    case FieldId::http2_settings: return true;
    default: return false;
  }
}

// Fields that Connection cannot make anybody drop: a client must not be able to strip what routes, frames or
// authenticates a request (SECURITY: the "hop-by-hop abuse" of several proxies).
static bool is_end_to_end(const Field& field) {
  switch (field.id) {
    case FieldId::other:
      return equals_ignoring_case(field.name, "authorization") || equals_ignoring_case(field.name, "cache-control") ||
             equals_ignoring_case(field.name, "set-cookie");
    default: return !is_hop_by_hop(field.id);
  }
}

static bool is_nominated(const Fields& fields, const Field& field) {
  bool nominated = false;
  for (const Field& connection : fields) {
    if (connection.id != FieldId::connection) continue;
    for_each_element(connection.value, [&](std::string_view option) { nominated |= equals_ignoring_case(option, field.name); });
  }
  return nominated && !is_end_to_end(field);
}

// True when Connection says more than "close" and "keep-alive": only then need each field be looked up in it.
static bool has_nominations(const Fields& fields) {
  bool more = false;
  for (const Field& field : fields) {
    if (field.id != FieldId::connection) continue;
    for_each_element(field.value,
                     [&](std::string_view option) { more |= !equals_ignoring_case(option, "close") && !equals_ignoring_case(option, "keep-alive"); });
  }
  return more;
}

// X-Forwarded-Anything, and its older and newer kin.
static bool is_about_the_client(const Field& field) {
  static constexpr std::string_view kPrefix = "x-forwarded-";
  switch (field.id) {
    case FieldId::x_forwarded_for:
    case FieldId::x_forwarded_proto:
    case FieldId::x_forwarded_host:
    case FieldId::x_real_ip:
    case FieldId::forwarded: return true;
    case FieldId::other: return field.name.size() > kPrefix.size() && equals_ignoring_case(field.name.substr(0, kPrefix.size()), kPrefix);
    default: return false;
  }
}

static void append_framing(std::string& out, Framing framing, std::uint64_t content_length) {
  if (framing == Framing::length) {
    out.append("Content-Length: ");
    append_number(out, content_length);
    out.append("\r\n");
  } else if (framing == Framing::chunked) {
    out.append("Transfer-Encoding: chunked\r\n");
  }
}

// Ours, unless the route has it otherwise.
static void append_own_field(std::string& out, std::string_view name, std::string_view value, const FieldEdits* edits) {
  if (edits == nullptr || !edits->drops(name)) append_field(out, name, value);
}

// Whole lines of ours, but for those that the route has otherwise.
static void append_lines(std::string& out, std::string_view lines, const FieldEdits* edits) {
  if (edits == nullptr) {
    out.append(lines);
    return;
  }
  while (!lines.empty()) {
    const std::size_t end = lines.find("\r\n") + 2;
    if (!edits->drops(lines.substr(0, lines.find(':')))) out.append(lines.substr(0, end));
    lines.remove_prefix(end);
  }
}

static bool is_ipv6(std::string_view address) { return address.contains(':'); }

static void append_forwarded(std::string& out, const RequestHead& head, const Forwarded& forwarded, const FieldEdits* edits) {
  const auto wanted = [&](std::string_view name) { return edits == nullptr || !edits->drops(name); };
  const auto append_earlier = [&](FieldId id) {
    for (const Field& field : head.fields) {
      if (forwarded.trusted && field.id == id && !field.value.empty()) out.append(field.value).append(", ");
    }
  };
  const auto claimed = [&](FieldId id) { return forwarded.trusted && head.fields.find(id) != nullptr; };
  if (forwarded.x_forwarded) {
    if (wanted("X-Forwarded-For")) {
      out.append("X-Forwarded-For: ");
      append_earlier(FieldId::x_forwarded_for);
      out.append(forwarded.client).append("\r\n");
    }
    if (!claimed(FieldId::x_forwarded_proto)) append_own_field(out, "X-Forwarded-Proto", forwarded.proto, edits);
    // An HTTP/1.0 request may have come without a Host.
    if (!claimed(FieldId::x_forwarded_host) && !head.authority.empty()) append_own_field(out, "X-Forwarded-Host", head.authority, edits);
  }
  if (forwarded.rfc7239 && wanted("Forwarded")) {
    const bool v6 = is_ipv6(forwarded.client);
    out.append("Forwarded: ");
    append_earlier(FieldId::forwarded);
    out.append(v6 ? "for=\"[" : "for=").append(forwarded.client).append(v6 ? "]\"" : "");
    out.append(";host=\"").append(head.authority).append("\";proto=").append(forwarded.proto).append("\r\n");
  }
}

// Of what the client says about itself only a trusted one's word is passed on; the two lists are made by append_forwarded().
static bool passes(const Field& field, const Forwarded& forwarded) {
  if (!is_about_the_client(field)) return true;
  if (!forwarded.trusted) return false;
  if (field.id == FieldId::x_forwarded_for) return !forwarded.x_forwarded;
  return field.id != FieldId::forwarded || !forwarded.rfc7239;
}

static bool is_replaced(const Field& field, std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    if (equals_ignoring_case(field.name, name)) return true;
  }
  return false;
}

static void append_edits(std::string& out, const FieldEdits* edits) {
  if (edits == nullptr) return;
  for (const auto& [name, value] : edits->set) append_field(out, name, value);
  for (const auto& [name, value] : edits->add) append_field(out, name, value);
}

static constexpr std::string_view kUpgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

void append_request(std::string& out, const RequestHead& head, const RequestOptions& options) {
  out.append(head.method_text).append(" ").append(options.path).append(head.query).append(" HTTP/1.1\r\n");
  append_field(out, "Host", head.authority);
  const bool nominations = has_nominations(head.fields);
  for (const Field& field : head.fields) {
    if (is_hop_by_hop(field.id) || !passes(field, options.forwarded)) continue;
    // Host is written above, Content-Length below, and what Expect asks for is answered by us.
    if (field.id == FieldId::host || field.id == FieldId::content_length || field.id == FieldId::expect) continue;
    if (nominations && is_nominated(head.fields, field)) continue;
    if (options.edits != nullptr && options.edits->drops(field.name)) continue;
    if (!options.replaced.empty() && is_replaced(field, options.replaced)) continue;
    append_field(out, field.name, field.value);
  }
  append_forwarded(out, head, options.forwarded, options.edits);
  append_lines(out, options.extra, options.edits);
  append_edits(out, options.edits);
  if (options.websocket) out.append(kUpgrade);
  append_framing(out, options.framing, options.content_length);
  out.append("\r\n");
}

static void append_status_line(std::string& out, unsigned status, std::string_view reason) {
  out.append("HTTP/1.1 ");
  append_number(out, status);
  out.append(" ").append(reason).append("\r\n");
}

static void append_connection(std::string& out, const ResponseOptions& options) {
  if (!options.keep_alive) {
    out.append("Connection: close\r\n");
  } else if (options.minor_version == 0) {
    out.append("Connection: keep-alive\r\n");
  }
}

void append_response(std::string& out, const ResponseHead& head, const ResponseOptions& options) {
  append_status_line(out, head.status, head.reason);
  const bool nominations = has_nominations(head.fields);
  // Content-Length of a response without a body says what GET would have sent; but 1xx and 204 must not have one.
  const bool keep_length = options.framing == Framing::none && head.status >= 200 && head.status != 204;
  bool dated = options.date.empty() || head.status < 200;
  for (const Field& field : head.fields) {
    if (is_hop_by_hop(field.id)) continue;
    if (field.id == FieldId::content_length && !keep_length) continue;
    if (nominations && is_nominated(head.fields, field)) continue;
    if (options.edits != nullptr && options.edits->drops(field.name)) continue;
    dated |= field.id == FieldId::date;
    append_field(out, field.name, field.value);
  }
  if (!dated) append_own_field(out, "Date", options.date, options.edits);
  append_lines(out, options.extra, options.edits);
  append_edits(out, options.edits);
  append_framing(out, options.framing, options.content_length);
  if (options.websocket) {
    out.append(kUpgrade);
  } else {
    append_connection(out, options);
  }
  out.append("\r\n");
}

void append_own_response(std::string& out, unsigned status, std::string_view content_type, std::string_view extra, const ResponseOptions& options) {
  append_status_line(out, status, reason_phrase(status));
  if (!content_type.empty()) append_field(out, "Content-Type", content_type);
  out.append(extra);
  if (!options.date.empty()) append_field(out, "Date", options.date);
  append_framing(out, options.framing, options.content_length);
  append_connection(out, options);
  out.append("\r\n");
}

std::string_view reason_phrase(unsigned status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 101: return "Switching Protocols";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "";
  }
}

void format_date(base::WallTime time, std::string& text) {
  static constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  const auto append_two = [&](int number) { append_number(text.append(number < 10 ? "0" : ""), static_cast<unsigned>(number)); };
  text.assign(kDays[static_cast<std::size_t>(utc.tm_wday)]).append(", ");
  append_two(utc.tm_mday);
  text.append(" ").append(kMonths[static_cast<std::size_t>(utc.tm_mon)]).append(" ");
  append_number(text, static_cast<unsigned>(utc.tm_year + 1900));
  text.append(" ");
  append_two(utc.tm_hour);
  text.append(":");
  append_two(utc.tm_min);
  text.append(":");
  append_two(utc.tm_sec);
  text.append(" GMT");
}

}  // namespace ringmaster::http
