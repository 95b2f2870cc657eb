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

static std::string_view text_of(const Key& key, const wire::Exchange& exchange) {
  const http::RequestHead& head = exchange.request();
  switch (key.kind) {
    case Key::Kind::path: return exchange.path();
    case Key::Kind::header: {
      const http::Field* field = head.fields.find(key.name);
      return field == nullptr ? std::string_view{} : field->value;
    }
    case Key::Kind::cookie: {
      const http::Field* field = head.fields.find(http::FieldId::cookie);
      return field == nullptr ? std::string_view{} : parameter(field->value, key.name, ';');
    }
    case Key::Kind::query: return head.query.empty() ? std::string_view{} : parameter(head.query.substr(1), key.name, '&');
    default: return {};
  }
}

std::uint64_t key_of(const Key& key, const wire::Exchange& exchange, balance::PickState& state) {
  if (key.kind == Key::Kind::none) return 0;
  if (key.kind == Key::Kind::source) {
    const auto& address = exchange.peer().address;
    return balance::hash_of({reinterpret_cast<const char*>(address.data()), address.size()});
  }
  const std::string_view text = text_of(key, exchange);
  return text.empty() ? balance::draw_request_id(state.random) : balance::hash_of(text);
}

}  // namespace ringmaster::proxy
