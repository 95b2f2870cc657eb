#include "lab/compare.h"

#include "base/json.h"
#include "lab/report.h"

namespace ringmaster::lab {

using base::Result;

static Result<json> read_run(io::System& system, const std::string& folder) {
  const auto text = system.read_file(folder + "/run.json");
  if (!text) return base::fail(text.error().code, folder + " is no report of the lab: " + base::describe(text.error()));
  json run = base::parse_json(*text);
  if (!run.is_object() || !run.contains("experiments") || !run["experiments"].is_object()) {
    return base::fail(base::Code::invalid, folder + "/run.json is no report of the lab");
  }
  return run;
}

static std::string as_text(const json& value) { return value.is_string() ? value.get<std::string>() : base::json_text(value); }

static std::string padded(const std::string& text, std::size_t width, bool left = false) {
  std::size_t shown = 0;  // characters, not bytes
  for (const char c : text) shown += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
  const std::string fill(shown < width ? width - shown : 0, ' ');
  return left ? text + fill : fill + text;
}

static std::string figure(double value) {
  const bool whole = value == static_cast<double>(static_cast<std::int64_t>(value));
  return cell(value, whole ? 0 : 3);
}

// One experiment's figures; empty if they have none in common.
static std::string compare_numbers(const json& before, const json& after) {
  std::string text;
  if (!before.is_object() || !after.is_object()) return text;
  for (const auto& [name, value] : before.items()) {
    if (!after.contains(name) || !value.is_number() || !after[name].is_number()) continue;
    const double from = value.get<double>();
    const double to = after[name].get<double>();
    text += "  " + padded(name, 52, true) + padded(figure(from), 14) + padded(figure(to), 14) + padded(from == 0 ? "" : "× " + cell(to / from, 2), 10) + "\n";
  }
  return text;
}

Result<std::string> compare(io::System& system, const std::string& before, const std::string& after) {
  const auto a = read_run(system, before);
  if (!a) return std::unexpected(a.error());
  const auto b = read_run(system, after);
  if (!b) return std::unexpected(b.error());
  std::string text;
  for (const char* fact : {"version", "started", "machine", "quick", "target", "seed"}) {
    if (!a->contains(fact) || !b->contains(fact)) continue;
    const std::string from = as_text(a->at(fact));
    const std::string to = as_text(b->at(fact));
    text.append(padded(fact, 10, true)).append(from);
    if (from != to) text.append("  →  ").append(to);
    text += '\n';
  }
  if (a->value("quick", false) != b->value("quick", false)) text += "One of them was quick: it measured less, and its figures vary more.\n";
  for (const auto& [name, experiment] : (*a)["experiments"].items()) {
    if (!(*b)["experiments"].contains(name)) {
      text.append("\n").append(name).append(": only in ").append(before).append("\n");
      continue;
    }
    const json& other = (*b)["experiments"][name];
    text += "\n" + padded(name, 54, true) + padded("before", 14) + padded("after", 14) + "\n" +
            compare_numbers(experiment.value("numbers", json::object()), other.value("numbers", json::object()));
    for (const auto* run : {&experiment, &other}) {
      if (run->value("interrupted", false)) text += "  " + std::string(run == &other ? after : before) + " was ended before its time\n";
      for (const json& fault : run->value("faults", json::array()))
        text += "  fault in " + std::string(run == &other ? after : before) + ": " + as_text(fault) + "\n";
    }
  }
  for (const auto& [name, experiment] : (*b)["experiments"].items()) {
    if (!(*a)["experiments"].contains(name)) text.append("\n").append(name).append(": only in ").append(after).append("\n");
  }
  return text;
}

}  // namespace ringmaster::lab
