// Reads the settings of one TOML table, and remembers which it has been asked for: what is left over is a fault, too.
#pragma once

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "config/load.h"

namespace ringmaster::config {

class Faults {
 public:
  void add(const toml::source_region& where, std::string message) {
    faults_.push_back({std::max(where.begin.line, 1U), std::max(where.begin.column, 1U), std::move(message)});
  }
  std::vector<Fault> take() {
    std::ranges::sort(faults_, {}, [](const Fault& fault) { return std::tuple(fault.line, fault.column, fault.message); });
    return std::move(faults_);
  }
  bool empty() const { return faults_.empty(); }

  // Readers tell which settings they have asked for, and which of these were there.
  void note(const std::string& table, const std::string& key, bool present) {
    const bool named = table.starts_with("[pool.") || table.starts_with("[queue.");
    const std::size_t dot = table.find('.');
    const std::string setting = (named ? table.substr(0, dot + 1) + "*" + table.substr(table.find_first_of(".]", dot + 1)) : table) + " " + key;
    settings_[setting] |= present;
  }
  std::vector<std::string> unmentioned() const {
    std::vector<std::string> names;
    for (const auto& [setting, present] : settings_) {
      if (!present) names.push_back(setting);
    }
    return names;
  }

 private:
  std::vector<Fault> faults_;
  std::map<std::string, bool> settings_;  // and whether any table has it
};

class Reader {
 public:
  // `name` is how messages call the table: "[pool.web]".
  Reader(const toml::table& table, std::string name, Faults& faults) : table_(table), name_(std::move(name)), faults_(faults) {}

  const toml::node* find(std::string_view key) {
    asked_.emplace_back(key);
    return table_.get(key);
  }
  const std::string& name() const { return name_; }
  Faults& faults() { return faults_; }
  const toml::source_region& source() const { return table_.source(); }

  // Each leaves `value` alone when the setting is absent or wrong (and then there is a fault).
  void text(std::string_view key, std::string& value);
  void flag(std::string_view key, bool& value);
  void count(std::string_view key, unsigned& value, unsigned least, unsigned most);
  void counts(std::string_view key, std::vector<unsigned>& values, unsigned least, unsigned most);
  void number(std::string_view key, double& value, double least, double most);
  // "10MiB", "64KiB", "1GiB", or a number of bytes.
  void bytes(std::string_view key, std::uint64_t& value);
  void duration(std::string_view key, base::Duration& value, base::Duration least);
  void texts(std::string_view key, std::vector<std::string>& values);
  // Text that `accept` turns into a value; its error becomes the fault.
  void parsed(std::string_view key, const std::function<base::Result<void>(const std::string&)>& accept);

  // Reports every setting that nobody asked for.
  void finish();

 private:
  const toml::table& table_;
  std::string name_;
  Faults& faults_;
  std::vector<std::string> asked_;
};

}  // namespace ringmaster::config
