#include "http/message.h"

#include "http/characters.h"

namespace ringmaster::http {

bool is_idempotent(Method method) {
  switch (method) {
    case Method::get:
    case Method::head:
    case Method::put:
    case Method::delete_:
    case Method::options:
    case Method::trace: return true;
    default: return false;
  }
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

const Field* Fields::find(FieldId id) const {
  for (const Field& field : *this) {
    if (field.id == id) return &field;
  }
  return nullptr;
}

const Field* Fields::find(std::string_view name) const {
  for (const Field& field : *this) {
    if (equals_ignoring_case(field.name, name)) return &field;
  }
  return nullptr;
}

std::size_t Fields::count(FieldId id) const {
  std::size_t n = 0;
  for (const Field& field : *this) n += field.id == id ? 1 : 0;
  return n;
}

}  // namespace ringmaster::http
