// HTTP messages as values: methods, fields, request and response heads (RFC 9110, RFC 9112).
//
// A parsed head is views into the buffer that it was parsed from, and is valid as long as that buffer is left alone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ringmaster::http {

enum class Method : std::uint8_t { get, head, post, put, delete_, options, patch, connect, trace, other };

// RFC 9110 section 9.2.2: doing it twice is the same as doing it once, so a lost answer may be asked for again.
bool is_idempotent(Method method);

// The fields that the codec itself has something to do with.
enum class FieldId : std::uint8_t {
  other,
  host,
  content_length,
  transfer_encoding,
  connection,
  keep_alive,
  proxy_connection,
  te,
  trailer,
  upgrade,
  http2_settings,
  expect,
  date,
  origin,
  cookie,
  content_type,
  x_forwarded_for,
  x_forwarded_proto,
  x_forwarded_host,
  x_real_ip,
  forwarded,
};

struct Field {
  std::string_view name;
  std::string_view value;  // without the white space around it
  FieldId id;
};

inline constexpr std::size_t kFieldsMax = 256;  // that there is room for; parsers take fewer unless told otherwise

// The fields of one head, in order. Fixed room, so that parsing allocates nothing.
class Fields {
 public:
  Fields() {}  // NOLINT: leaves the room unset; count_ says what of it is valid
  void clear() { count_ = 0; }
  // False when there is no more room.
  bool add(const Field& field) {
    if (count_ == kFieldsMax) return false;
    room_.fields[count_++] = field;
    return true;
  }
  const Field* begin() const { return room_.fields.data(); }
  const Field* end() const { return room_.fields.data() + count_; }
  std::size_t size() const { return count_; }

  const Field* find(FieldId id) const;             // the first, or null
  const Field* find(std::string_view name) const;  // by name, case-blind
  std::size_t count(FieldId id) const;

 private:
  std::size_t count_ = 0;
  union Room {
    Room() {}  // NOLINT
    std::array<Field, kFieldsMax> fields;
  } room_;
};

enum class Framing : std::uint8_t { none, length, chunked, until_close };

struct RequestHead {
  Method method;
  std::string_view method_text;
  std::string_view path;       // of the target, as received: starts with '/', or is "*"
  std::string_view query;      // with its '?', or empty
  std::string_view authority;  // the Host field's value, or that of an absolute-form target; may be empty in HTTP/1.0
  unsigned minor_version;      // 0 or 1
  Framing framing;
  std::uint64_t content_length;
  bool keep_alive;  // the client wants the connection to stay open
  bool expects_continue;
  Fields fields;
};

struct ResponseHead {
  unsigned status;  // 100 to 599, or to what the parser was told
  std::string_view reason;
  unsigned minor_version;
  Framing framing;
  std::uint64_t content_length;
  bool keep_alive;
  Fields fields;
};

bool equals_ignoring_case(std::string_view a, std::string_view b);

// Calls f(element) for each non-empty element of a comma-separated list (RFC 9110 section 5.6.1).
template <class F>
void for_each_element(std::string_view list, F f) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view element = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    const std::size_t first = element.find_first_not_of(" \t");
    if (first == std::string_view::npos) continue;
    element = element.substr(first, element.find_last_not_of(" \t") - first + 1);
    f(element);
  }
}

}  // namespace ringmaster::http
