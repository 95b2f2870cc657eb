#include "admin/change_request.h"

#include "base/json.h"

namespace ringmaster::admin {

using base::Code;
using nlohmann::json;

base::Result<link::Command> parse_change(std::string_view text, std::string_view names_key) {
  const json body = base::parse_json(text);
  if (body.is_discarded()) return base::fail(Code::invalid, "the body is not JSON");
  if (!body.is_object()) return base::fail(Code::invalid, "the body must be a JSON object such as {\"n\":1}");
  link::Command command;
  const auto n = body.find("n");
  if (n == body.end()) return base::fail(Code::invalid, "n is missing");
  if (!n->is_number_integer() || (!n->is_number_unsigned() && n->get<std::int64_t>() < 1) || *n == 0) {
    return base::fail(Code::invalid, "n must be a whole number, 1 or more");
  }
  command.count = static_cast<std::int64_t>(std::min<std::uint64_t>(n->get<std::uint64_t>(), INT64_MAX));
  const auto names = body.find(names_key);
  if (names == body.end() || names->is_null()) return command;
  if (!names->is_array()) return base::fail(Code::invalid, std::string(names_key) + " must be a list of names");
  for (const json& name : *names) {
    // What is not text is no valid name; the master says so when its turn comes, after all else has been checked.
    command.names.push_back(name.is_string() ? name.get<std::string>() : "");
  }
  return command;
}

base::Result<link::Command> parse_size(std::string_view text) {
  const json body = base::parse_json(text);
  const auto n = body.is_object() ? body.find("n") : body.end();
  if (!body.is_object() || body.size() != 1 || n == body.end() || !n->is_number_unsigned()) {
    return base::fail(Code::invalid, "the body must be {\"n\":N} with a whole number, 0 or more");
  }
  link::Command command;
  command.count = static_cast<std::int64_t>(std::min<std::uint64_t>(n->get<std::uint64_t>(), INT64_MAX));
  return command;
}

bool take_key(const http::RequestHead& head, link::Command& command) {
  static constexpr std::size_t kKeyBytesMax = 200;
  const http::Field* key = head.fields.find("Idempotency-Key");
  if (key == nullptr) return true;
  command.key = key->value;
  return !command.key.empty() && command.key.size() <= kKeyBytesMax;
}

}  // namespace ringmaster::admin
