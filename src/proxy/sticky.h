// Sticky sessions: a cookie names the slot that a client was given, so that it comes back to it. The value is signed
// (HMAC-SHA-256), or clients could choose their replica. It names the slot, not the replica: its successor takes over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "http/message.h"

namespace ringmaster::proxy {

class Sticky {
 public:
  explicit Sticky(const config::Pool& pool) : pool_(pool) {}

  bool on() const { return !pool_.sticky.cookie.empty(); }
  // The slot that the request's cookie names; nothing if it has none, or one that we did not sign.
  std::optional<std::uint32_t> slot(const http::RequestHead& head);
  // The whole Set-Cookie line that gives the client this slot.
  std::string set_cookie(std::uint32_t slot);

 private:
  const std::string& value(std::uint32_t slot);

  const config::Pool& pool_;
  std::vector<std::string> values_;  // by slot, made when first needed
};

}  // namespace ringmaster::proxy
