#include "config/reader.h"

#include <fmt/format.h>

namespace ringmaster::config {

using base::Duration;

void Reader::text(std::string_view key, std::string& value) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  if (const auto text = node->value_exact<std::string>()) {
    value = *text;
  } else {
    faults_.add(node->source(), std::string(key) + " must be text in quotes");
  }
}

void Reader::flag(std::string_view key, bool& value) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  if (const auto flag = node->value_exact<bool>()) {
    value = *flag;
  } else {
    faults_.add(node->source(), std::string(key) + " must be true or false");
  }
}

void Reader::count(std::string_view key, unsigned& value, unsigned least, unsigned most) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto number = node->value_exact<std::int64_t>();
  if (number && *number >= least && *number <= most) {
    value = static_cast<unsigned>(*number);
  } else {
    faults_.add(node->source(), std::string(key) + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
}

void Reader::counts(std::string_view key, std::vector<unsigned>& values, unsigned least, unsigned most) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr) {
    faults_.add(node->source(), std::string(key) + " must be a list of whole numbers: [1, 2]");
    return;
  }
  values.clear();
  for (const toml::node& element : *array) {
    const auto number = element.value_exact<std::int64_t>();
    if (number && *number >= least && *number <= most) {
      values.push_back(static_cast<unsigned>(*number));
    } else {
      faults_.add(element.source(),
                  "every element of " + std::string(key) + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    }
  }
}

void Reader::number(std::string_view key, double& value, double least, double most) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto number = node->value<double>();  // a whole number will do
  if (node->is_number() && number && *number >= least && *number <= most) {
    value = *number;
  } else {
    faults_.add(node->source(), fmt::format("{} must be a number from {} to {}", key, least, most));
  }
}

void Reader::bytes(std::string_view key, std::uint64_t& value) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto plain = node->value_exact<std::int64_t>();
  const std::string text = plain ? std::to_string(*plain) : node->value_exact<std::string>().value_or("");
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const int shift = unit.empty() ? 0 : unit == "KiB" ? 10 : unit == "MiB" ? 20 : unit == "GiB" ? 30 : -1;
  if (error == std::errc{} && shift >= 0 && number < (1ULL << (60 - shift))) {
    value = number << shift;
  } else {
    faults_.add(node->source(), std::string(key) + " must be a size such as \"64KiB\", \"10MiB\" or a number of bytes");
  }
}

static bool parse_duration(std::string_view text, Duration& value) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0 || number > 1'000'000'000) return false;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (unit == "ms")
    value = std::chrono::milliseconds(number);
  else if (unit == "s")
    value = std::chrono::seconds(number);
  else if (unit == "m")
    value = std::chrono::minutes(std::min<std::int64_t>(number, 1'000'000));
  else if (unit == "h")
    value = std::chrono::hours(std::min<std::int64_t>(number, 100'000));
  else if (unit == "d")
    value = std::chrono::hours(24) * std::min<std::int64_t>(number, 10'000);
  else
    return false;
  return true;
}

void Reader::duration(std::string_view key, Duration& value, Duration least) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  Duration duration{};
  const auto text = node->value_exact<std::string>();
  if (!text || !parse_duration(*text, duration)) {
    faults_.add(node->source(), std::string(key) + " must be a duration such as \"250ms\", \"5s\" or \"1m\"");
  } else if (duration < least) {
    faults_.add(node->source(), std::string(key) + " must be at least " + std::to_string(least / std::chrono::milliseconds(1)) + "ms");
  } else {
    value = duration;
  }
}

void Reader::texts(std::string_view key, std::vector<std::string>& values) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr) {
    faults_.add(node->source(), std::string(key) + " must be a list of texts: [\"a\", \"b\"]");
    return;
  }
  values.clear();
  for (const toml::node& element : *array) {
    if (const auto text = element.value_exact<std::string>()) {
      values.push_back(*text);
    } else {
      faults_.add(element.source(), "every element of " + std::string(key) + " must be text in quotes");
    }
  }
}

void Reader::parsed(std::string_view key, const std::function<base::Result<void>(const std::string&)>& accept) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto text = node->value_exact<std::string>();
  if (!text) {
    faults_.add(node->source(), std::string(key) + " must be text in quotes");
  } else if (const auto accepted = accept(*text); !accepted) {
    faults_.add(node->source(), std::string(key) + ": " + base::describe(accepted.error()));
  }
}

void Reader::finish() {
  for (const std::string& asked : asked_) faults_.note(name_, asked, table_.get(asked) != nullptr);
  for (const auto& [key, node] : table_) {
    if (std::ranges::find(asked_, key.str()) != asked_.end()) continue;
    std::string known;
    for (const std::string& asked : asked_) known += (known.empty() ? "" : ", ") + asked;
    faults_.add(key.source(), "unknown setting '" + std::string(key.str()) + "' in " + name_ + "; known here: " + known);
  }
}

}  // namespace ringmaster::config
