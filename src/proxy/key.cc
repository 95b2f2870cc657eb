#include "proxy/key.h"

namespace ringmaster::proxy {

using balance::Key;

// The value of `name` in "a=1; b=2" (cookies) or "a=1&b=2" (a query).
static std::string_view parameter(std::string_view list, std::string_view name, char separator) {
  while (!list.empty()) {
    const std::size_t end = list.find(separator);
    std::string_view pair = list.substr(0, end);
    list = end == std::string_view::npos ? std::string_view{} : list.substr(end + 1);
    while (pair.starts_with(' ')) pair.remove_prefix(1);
    if (pair.size() > name.size() && pair.starts_with(name) && pair[name.size()] == '=') return pair.substr(name.size() + 1);
  }
  return {};
}

std::string_view cookie_of(const http::RequestHead& head, std::string_view name) {
  for (const http::Field& field : head.fields) {
    if (field.id != http::FieldId::cookie) continue;
    const std::string_view value = parameter(field.value, name, ';');
    if (!value.empty()) return value;
  }
  return {};
}

static std::string_view text_of(const Key& key, const wire::Exchange& exchange) {
  const http::RequestHead& head = exchange.request();
  switch (key.kind) {
    case Key::Kind::path: return exchange.path();
    case Key::Kind::header: {
      const http::Field* field = head.fields.find(key.name);
      return field == nullptr ? std::string_view{} : field->value;
    }
    case Key::Kind::cookie: return cookie_of(head, key.name);
    case Key::Kind::query: return head.query.empty() ? std::string_view{} : parameter(head.query.substr(1), key.name, '&');
    default: return {};
  }
}

// `bytes`: of the address that count.
static std::uint64_t hash_of_client(const wire::Exchange& exchange, std::size_t bytes = 16) {
  const auto& address = exchange.client().address;
  return balance::hash_of({reinterpret_cast<const char*>(address.data()), bytes});
}

std::uint64_t key_of(const Key& key, const wire::Exchange& exchange, balance::PickState& state) {
  if (key.kind == Key::Kind::none) return 0;
  if (key.kind == Key::Kind::source) return hash_of_client(exchange);
  const std::string_view text = text_of(key, exchange);
  return text.empty() ? balance::draw_request_id(state.random) : balance::hash_of(text);
}

std::uint64_t limit_key_of(const Key& key, const wire::Exchange& exchange) {
  const std::string_view text = text_of(key, exchange);
  // Of an IPv6 address its /64, which one client has whole.
  const std::size_t bytes = exchange.client().family == base::Endpoint::Family::v6 ? 8 : 16;
  return text.empty() ? hash_of_client(exchange, bytes) : balance::hash_of(text);
}

}  // namespace ringmaster::proxy
