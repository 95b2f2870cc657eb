// JSON as text, and back: in one place, since each file that instantiates the parser costs seconds to compile.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ringmaster::base {

// Never throws: what is no JSON gives a discarded value (is_discarded()), which is no object, array, string or number.
nlohmann::json parse_json(std::string_view text);

// For what our own programs have written, to be taken apart by get() and at(): throws what the JSON library throws. A number with a
// fraction or an exponent is left out, as we write none: one that does not fit a whole number must not be converted to it.
nlohmann::json parse_own_json(std::string_view text);

// Bytes that are no UTF-8 become U+FFFD: what others gave us can always be shown. `indent`: spaces for each level; -1 is one line.
std::string json_text(const nlohmann::json& value, int indent = -1);

}  // namespace ringmaster::base
