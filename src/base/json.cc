#include "base/json.h"

namespace ringmaster::base {

using nlohmann::json;

json parse_json(std::string_view text) {
  // The library takes a NUL for the end, and would not look at what follows; others do.
  if (text.contains('\0')) return json(json::value_t::discarded);
  return json::parse(text, nullptr, false);
}

json parse_own_json(std::string_view text) {
  return json::parse(text, [](int, json::parse_event_t, const json& value) { return !value.is_number_float(); });
}

std::string json_text(const json& value, int indent) { return value.dump(indent, ' ', false, json::error_handler_t::replace); }

}  // namespace ringmaster::base
