// What ties the logs of several programs together: traceparent (W3C Trace Context, level 1) and a request id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ringmaster::http {

// "00-<32 hex digits>-<16>-<2>", neither id all zeros; a later version may say more after that.
bool is_traceparent(std::string_view text);

// Begins a trace of its own: version 00, and not sampled, as we record nothing. The numbers are drawn at random.
void append_traceparent(std::string& out, std::uint64_t trace_high, std::uint64_t trace_low, std::uint64_t span);

// Safe to pass on and to log: 1 to 128 letters, digits, '-', '_', '.'.
bool is_request_id(std::string_view text);

// Sixteen hex digits.
void append_hex(std::string& out, std::uint64_t number);

}  // namespace ringmaster::http
