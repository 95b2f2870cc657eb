// Heads to bytes. What is forwarded is always made anew from parsed fields, never copied: hop-by-hop fields and those
// that Connection nominates stay behind (RFC 9110 section 7.6.1), and the framing is ours.
//
// All functions append to `out`, which is reused from message to message, so that a warm connection allocates nothing.
#pragma once

#include <string>
#include <string_view>

#include <span>

#include "base/clock.h"
#include "http/edits.h"
#include "http/message.h"

namespace ringmaster::http {

// What the replica is told of the client. What came in these fields is dropped (SECURITY A22), unless who sent it is
// trusted: then it is passed on, and the sender's address added to it.
struct Forwarded {
  std::string_view client;  // address text of who sent us the request
  std::string_view proto;   // "http"
  bool trusted = false;
  bool x_forwarded = true;  // X-Forwarded-For, -Proto, -Host
  bool rfc7239 = false;     // Forwarded
};

struct RequestOptions {
  std::string_view path;  // normalised; the query is the head's
  Forwarded forwarded;
  Framing framing = Framing::none;
  std::uint64_t content_length = 0;
  bool websocket = false;                        // asks for the upgrade, on
  const FieldEdits* edits = nullptr;             // the route's
  std::string_view extra{};                      // zero or more whole lines of ours
  std::span<const std::string_view> replaced{};  // fields that `extra` has instead of the client's
};

// The request as it is sent to a replica.
void append_request(std::string& out, const RequestHead& head, const RequestOptions& options);

struct ResponseOptions {
  Framing framing = Framing::length;  // none: no body at all, and no field about one (204, 304, HEAD: see below)
  std::uint64_t content_length = 0;
  bool keep_alive = true;
  unsigned minor_version = 1;  // of the client
  std::string_view date{};     // for a response that has none; empty: none is added
  bool websocket = false;      // the 101 that begins a tunnel
  const FieldEdits* edits = nullptr;
  std::string_view extra{};  // zero or more whole lines
};

// A replica's response as it is sent to the client. Answers to HEAD and 304s keep their Content-Length field.
void append_response(std::string& out, const ResponseHead& head, const ResponseOptions& options);

// A response of our own, head only. `extra` is zero or more whole "Name: value\r\n" lines.
void append_own_response(std::string& out, unsigned status, std::string_view content_type, std::string_view extra, const ResponseOptions& options);

std::string_view reason_phrase(unsigned status);

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7).
void format_date(base::WallTime time, std::string& text);

}  // namespace ringmaster::http
