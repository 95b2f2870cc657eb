// TOML → Config, checked as a whole: every fault at once, each with file, line, column, and what would be right.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "config/config.h"

namespace ringmaster::config {

struct Fault {
  unsigned line = 1;
  unsigned column = 1;
  std::string message;
};

// "config/demo.toml:12:1: …", one a line, in the order of the file.
std::string to_string(const std::string& file, const std::vector<Fault>& faults);

// `file` is only a name, for messages.
std::variant<Config, std::vector<Fault>> parse(const std::string& file, std::string text);

// The settings that a file of this text could have and has not, as "[pool.*] grace". For the test that config/reference.toml
// shows them all.
std::vector<std::string> unmentioned_settings(const std::string& text);

}  // namespace ringmaster::config
