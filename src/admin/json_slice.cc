#include "admin/json_slice.h"

#include "base/json.h"

namespace ringmaster::admin {

namespace {

// Reads over the parts of a JSON text. At its end everything is empty.
class Scanner {
 public:
  // A byte order mark before the text is passed over, as the parser does it (RFC 8259 section 8.1).
  explicit Scanner(std::string_view text) : text_(text), at_(text.starts_with("\xEF\xBB\xBF") ? 3 : 0) {}

  // The next character that is no white space, or 0.
  char peek() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  // Over one character, whatever it is.
  void step() { at_ = std::min(at_ + 1, text_.size()); }

  std::string_view value() {
    const char first = peek();
    const std::size_t begin = at_;
    if (first == '"') {
      skip_string();
    } else if (first == '{' || first == '[') {
      skip_nested();
    } else {
      at_ = std::min(text_.find_first_of(" \t\r\n,]}", at_), text_.size());
    }
    return text_.substr(begin, at_ - begin);
  }

 private:
  void skip_string() {
    for (step(); at_ < text_.size() && text_[at_] != '"'; step()) {
      if (text_[at_] == '\\') step();
    }
    step();
  }
  void skip_nested() {
    int depth = 0;
    do {
      const char c = peek();
      if (c == '"') {
        skip_string();
        continue;
      }
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      step();
    } while (depth > 0 && at_ < text_.size());
  }

  std::string_view text_;
  std::size_t at_;
};

}  // namespace

std::string_view slice_member(std::string_view object, std::string_view name) {
  Scanner scanner(object);
  std::string_view found;
  if (scanner.peek() != '{') return found;
  do {
    scanner.step();  // '{' or ','
    if (scanner.peek() != '"') break;
    const auto key = base::parse_json(scanner.value());  // its escapes
    scanner.peek();
    scanner.step();  // ':'
    const std::string_view value = scanner.value();
    if (key.is_string() && key.get_ref<const std::string&>() == name) found = value;
  } while (scanner.peek() == ',');
  return found;
}

std::string_view slice_value(std::string_view text) { return Scanner(text).value(); }

std::vector<std::string_view> slice_elements(std::string_view array) {
  Scanner scanner(array);
  std::vector<std::string_view> elements;
  if (scanner.peek() != '[') return elements;
  do {
    scanner.step();  // '[' or ','
    if (scanner.peek() == ']') break;
    elements.push_back(scanner.value());
  } while (scanner.peek() == ',');
  return elements;
}

}  // namespace ringmaster::admin
