// Heads from bytes, strictly and incrementally (RFC 9112). Where the RFC leaves a choice, the stricter one is taken:
// two parsers that read the same bytes differently are how requests are smuggled.
//
// Feed parse() the whole of what has arrived so far, from the head's first byte, in a buffer that does not move.
// It works line by line, so it never reads a byte twice and rejects at the first bad line.
#pragma once

#include <string>
#include <string_view>

#include "http/message.h"

namespace ringmaster::http {

struct HeadLimits {
  std::size_t line_bytes_max = 8192;   // the request or status line
  std::size_t head_bytes_max = 16384;  // all of it
  std::size_t fields_max = 100;        // at most kFieldsMax
  unsigned status_max = 599;           // of a response
};

enum class Parse : std::uint8_t { more, done, rejected };

// Why a request was rejected: the status to answer with, and one line for the client.
struct Rejection {
  unsigned status = 400;
  std::string_view why;
};

// What request and response heads share: a start line, field lines, an empty line.
class HeadParser {
 public:
  std::size_t head_bytes() const { return line_start_; }  // once done: the bytes that the head took
  const Rejection& rejection() const { return rejection_; }

 protected:
  explicit HeadParser(const HeadLimits& limits) : limits_(limits) {}
  ~HeadParser() = default;

  void restart();
  Parse reject(unsigned status, std::string_view why);
  // The next whole line without its CRLF. Parse::more when it has not all arrived.
  Parse next_line(std::string_view bytes, std::string_view& line);
  // Names with '_' collide with '-' in CGI-like programs, and so could forge a trusted field: in requests they are dropped.
  Parse parse_field(std::string_view line, Fields& fields, bool drop_underscores);
  // Content-Length and Transfer-Encoding by RFC 9112 section 6.3; Framing::none when neither is there.
  Parse parse_framing(const Fields& fields, unsigned minor_version, Framing& framing, std::uint64_t& length);
  // Each field is looked up in Connection's list, so a long one would make a small request dear.
  static bool has_too_many_options(const Fields& fields);
  static bool wants_keep_alive(const Fields& fields, unsigned minor_version);

  bool started_ = false;  // the start line has been read
  HeadLimits limits_;

 private:
  std::size_t line_start_ = 0;
  std::size_t scanned_ = 0;
  Rejection rejection_;
};

class RequestParser : public HeadParser {
 public:
  explicit RequestParser(const HeadLimits& limits = {}) : HeadParser(limits) {}
  Parse parse(std::string_view bytes);
  void restart();  // for the next head
  const RequestHead& head() const { return head_; }
  // Copies method, path, query and authority to `room`, where head() has them from then on, and forgets the fields: what was
  // parsed need not be kept any more.
  void keep_line(std::string& room);

 private:
  Parse parse_request_line(std::string_view line);
  Parse parse_target(std::string_view target);
  Parse finish();
  RequestHead head_;
};

class ResponseParser : public HeadParser {
 public:
  explicit ResponseParser(const HeadLimits& limits = {}) : HeadParser(limits) {}
  Parse parse(std::string_view bytes);
  // For the next head; `request` is what it answers: it decides whether there is a body.
  void restart(Method request);
  void set_limits(const HeadLimits& limits) { limits_ = limits; }
  const ResponseHead& head() const { return head_; }

 private:
  Parse parse_status_line(std::string_view line);
  Parse finish();
  Method request_ = Method::get;
  ResponseHead head_;
};

}  // namespace ringmaster::http
