// Signatures: HMAC with SHA-256 (RFC 2104), as lower-case hexadecimal.
#pragma once

#include <string>
#include <string_view>

namespace ringmaster::base {

std::string hmac_sha256(std::string_view secret, std::string_view text);

}  // namespace ringmaster::base
