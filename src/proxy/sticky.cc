#include "proxy/sticky.h"

#include <openssl/crypto.h>

#include <charconv>

#include "balance/counters.h"
#include "base/check.h"
#include "base/hmac.h"
#include "proxy/key.h"

namespace ringmaster::proxy {

// "7-" and sixteen bytes of the code in hex.
const std::string& Sticky::value(std::uint32_t slot) {
  CHECK(slot <= balance::kCellsMax);
  if (values_.size() <= slot) values_.resize(slot + 1);
  std::string& value = values_[slot];
  if (!value.empty()) return value;
  value = std::to_string(slot) + "-" + base::hmac_sha256(pool_.sticky.secret, pool_.name + "\n" + std::to_string(slot)).substr(0, 32);
  return value;
}

std::optional<std::uint32_t> Sticky::slot(const http::RequestHead& head) {
  const std::string_view given = cookie_of(head, pool_.sticky.cookie);
  std::uint32_t slot = 0;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), slot);
  if (error != std::errc{} || slot == 0 || slot > balance::kCellsMax) return std::nullopt;
  const std::string& wanted = value(slot);
  if (given.size() != wanted.size() || ::CRYPTO_memcmp(given.data(), wanted.data(), wanted.size()) != 0) return std::nullopt;
  return slot;
}

std::string Sticky::set_cookie(std::uint32_t slot) {
  std::string line = "Set-Cookie: " + pool_.sticky.cookie + "=" + value(slot) + "; Path=/; HttpOnly; SameSite=Lax";
  if (pool_.sticky.max_age > base::Duration::zero()) {
    line += "; Max-Age=" + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(pool_.sticky.max_age).count());
  }
  return line + "\r\n";
}

}  // namespace ringmaster::proxy
