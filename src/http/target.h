// Request targets (RFC 9112 section 3.2, RFC 3986): their parts, and one normal form of a path.
#pragma once

#include <string>
#include <string_view>

namespace ringmaster::http {

// "http://host:80/a?b" → authority "host:80", rest "/a?b" (which may be empty). False unless it is an http or https
// URL with a valid authority and no user information.
bool split_absolute(std::string_view target, std::string_view& authority, std::string_view& rest);

// A host name, IPv4 address or [IPv6 address], with an optional port.
bool is_authority(std::string_view text);

// The host of a valid authority, without its port; an IPv6 address keeps its brackets.
std::string_view host_of(std::string_view authority);

// The path in the one form that is matched *and* forwarded, so that nobody behind us can read it differently:
// unreserved characters decoded, other escapes in upper case, "." and ".." resolved, "//" merged (RFC 3986 section 6.2).
// Paths that are normal already (nearly all) are returned as they are; others are built in `scratch`.
// False for a broken escape, for %00, and for a ".." above the root.
bool normalise_path(std::string_view path, std::string& scratch, std::string_view& normal);

// Whether programs differ in how they read it: an escaped slash or backslash, or "..;" as Java's servers have it.
bool is_ambiguous_path(std::string_view path);

// All but letters, digits and "-._~" as %XX: for a value in a path or a query (RFC 3986 section 2).
std::string percent_encode(std::string_view text);

}  // namespace ringmaster::http
