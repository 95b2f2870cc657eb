#include "base/hmac.h"

#include <openssl/hmac.h>

#include <array>

#include "base/check.h"

namespace ringmaster::base {

std::string hmac_sha256(std::string_view secret, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> code{};
  unsigned length = 0;
  ::HMAC(::EVP_sha256(), secret.data(), static_cast<int>(secret.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(), code.data(),
         &length);
  CHECK(length == 32);
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (std::size_t i = 0; i < length; ++i) hex.append(1, kDigits[code[i] >> 4]).append(1, kDigits[code[i] & 15]);
  return hex;
}

}  // namespace ringmaster::base
