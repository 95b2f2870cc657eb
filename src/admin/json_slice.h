// Where a value stands in a JSON text, so that it can be kept byte for byte: a parser gives values, and values written again are
// other bytes (1.10 becomes 1.1, members change places).
//
// The text must be JSON that a parser has taken. Pure.
#pragma once

#include <string_view>
#include <vector>

namespace ringmaster::admin {

// The value of the object's member; empty if it has none of this name. Of several the last, as the parser has it.
std::string_view slice_member(std::string_view object, std::string_view name);

// The value that the text is, without white space or a byte order mark around it.
std::string_view slice_value(std::string_view text);

// The elements of the array.
std::vector<std::string_view> slice_elements(std::string_view array);

}  // namespace ringmaster::admin
