// Changes to a head's fields that a route asks for: first what is removed, then what is set instead, then what is added.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "http/message.h"

namespace ringmaster::http {

struct FieldEdits {
  using Named = std::vector<std::pair<std::string, std::string>>;
  std::vector<std::string> remove;
  Named set;  // instead of all of that name
  Named add;

  bool empty() const { return remove.empty() && set.empty() && add.empty(); }
  // Whether the field does not stay: it is removed, or another is set in its place.
  bool drops(std::string_view name) const {
    const auto same = [&](const std::string& other) { return equals_ignoring_case(other, name); };
    return std::ranges::any_of(remove, same) || std::ranges::any_of(set, same, [](const auto& named) -> const std::string& { return named.first; });
  }
};

}  // namespace ringmaster::http
