#include "admin/guard.h"

#include <openssl/crypto.h>

#include "base/log.h"
#include "http/target.h"

namespace ringmaster::admin {

bool is_local_host(std::string_view authority) {
  const std::string_view host = http::host_of(authority);
  return host == "127.0.0.1" || host == "localhost" || host == "[::1]";
}

bool is_of_own_user(const wire::Exchange& exchange) {
  const auto user = exchange.peer_user();
  return !user || *user == 0 || *user == exchange.loop().system().own_user().user;
}

bool shows_token(const wire::Exchange& exchange, std::string_view token) {
  const http::Field* field = exchange.request().fields.find("authorization");
  const std::string wanted = "Bearer " + std::string(token);
  return !token.empty() && field != nullptr && field->value.size() == wanted.size() && CRYPTO_memcmp(field->value.data(), wanted.data(), wanted.size()) == 0;
}

bool may_be_json(const wire::Exchange& exchange) {
  const http::Field* field = exchange.request().fields.find(http::FieldId::content_type);
  if (field == nullptr) return true;
  std::string_view type = field->value.substr(0, field->value.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  return http::equals_ignoring_case(type, "application/json");
}

io::Async<base::Result<std::string>> read_json_body(wire::Exchange& exchange, const wire::Handler& pages, std::size_t bytes_max) {
  const http::Field* type = exchange.request().fields.find(http::FieldId::content_type);
  if (type == nullptr || !type->value.starts_with("application/json")) {
    co_await wire::reply_error(exchange, pages, 415, "the body must be sent as Content-Type: application/json");
    co_return base::fail(base::Code::invalid);
  }
  auto body = co_await exchange.read_whole_body(bytes_max);
  if (!body) {
    co_await wire::reply_error(exchange, pages, body.error().code == base::Code::too_large ? 413 : 400, base::describe(body.error()));
    co_return base::fail(base::Code::invalid);
  }
  co_return std::move(*body);
}

void audit(const wire::Exchange& exchange, std::string_view what, std::string_view outcome) {
  const auto user = exchange.peer_user();
  const std::string who = user                                                         ? "user " + std::to_string(*user)
                          : exchange.request().fields.find("authorization") == nullptr ? "somebody"
                                                                                       : "a holder of a token";
  base::log::info("audit: {} from {}: {} {} {}: {}", who, base::address_text(exchange.client()), exchange.request().method_text,
                  base::log::printable(exchange.path()), base::log::printable(what), base::log::printable(outcome));
}

}  // namespace ringmaster::admin
