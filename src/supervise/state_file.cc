#include "supervise/state_file.h"

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace ringmaster::supervise {

using base::Code;
using base::Result;
using nlohmann::json;

Result<StateFile> StateFile::open(io::System& system, const std::string& directory) {
  if (auto made = system.make_directory(directory, 0750); !made) {
    return base::fail(made.error().code, "state directory: " + made.error().detail);
  }
  auto lock = system.lock_file(directory + "/lock");
  if (!lock && lock.error().code == Code::exists) {
    return base::fail(Code::exists, "another Ringmaster runs with the state directory " + directory);
  }
  if (!lock) return base::fail(lock.error().code, "state directory: " + lock.error().detail);
  return StateFile(system, directory, std::move(*lock));
}

static Desired read_desired(const std::string& text) {
  Desired desired;
  const json root = json::parse(text);
  for (const auto& [name, pool] : root.at("pools").items()) {
    DesiredPool& to = desired[name];
    pool.at("configured").get_to(to.configured);
    for (const json& slot : pool.at("slots")) {
      to.slots.push_back({slot.at("slot").get<std::uint32_t>(), slot.at("epoch").get<std::uint64_t>(), slot.at("name").get<std::string>()});
    }
  }
  return desired;
}

Desired StateFile::load() {
  const std::string path = directory_ + "/desired.json";
  const auto text = system_->read_file(path);
  if (!text) {
    if (text.error().code != Code::not_found) base::log::error("{}: starting as configured", base::describe(text.error()));
    return {};
  }
  try {
    return read_desired(*text);
  } catch (const json::exception& error) {  // the JSON library's; it does not leave this function
    const auto kept = system_->replace_file(path + ".damaged", *text, false);
    base::log::error("{} is damaged ({}); starting as configured{}", path, error.what(), kept ? ", the file is kept as desired.json.damaged" : "");
    return {};
  }
}

bool StateFile::save(const Desired& desired) {
  json pools = json::object();
  for (const auto& [name, pool] : desired) {
    json slots = json::array();
    for (const DesiredSlot& slot : pool.slots) slots.push_back({{"slot", slot.slot}, {"epoch", slot.epoch}, {"name", slot.name}});
    pools[name] = {{"configured", pool.configured}, {"slots", slots}};
  }
  const auto saved = system_->replace_file(directory_ + "/desired.json", json({{"pools", pools}}).dump(1) + "\n", true);
  if (!saved && !failing_)
    base::log::error("the set of replicas could not be saved, and will be forgotten at the next start: {}", base::describe(saved.error()));
  if (saved && failing_) base::log::info("the set of replicas is saved again");
  failing_ = !saved;
  return saved.has_value();
}

void StateFile::save_children(const std::vector<std::int64_t>& pids) {
  json children = json::array();
  for (const std::int64_t pid : pids) children.push_back({{"pid", pid}, {"start", system_->start_time(static_cast<pid_t>(pid))}});
  (void)system_->replace_file(directory_ + "/children.json", json({{"boot", system_->boot_id()}, {"children", children}}).dump() + "\n", false);
}

unsigned StateFile::kill_leftovers() {
  const auto text = system_->read_file(directory_ + "/children.json");
  if (!text) return 0;
  unsigned killed = 0;
  try {
    const json root = json::parse(*text);
    if (root.at("boot").get<std::string>() != system_->boot_id()) return 0;
    for (const json& child : root.at("children")) {
      const auto pid = child.at("pid").get<pid_t>();
      const std::string start = system_->start_time(pid);
      if (!start.empty() && start != child.at("start").get<std::string>()) continue;  // another process by now
      system_->kill_session(pid);
      killed += start.empty() ? 0 : 1;
    }
  } catch (const json::exception& error) {  // the JSON library's; it does not leave this function
    base::log::warning("{}/children.json is damaged ({}): what an earlier master left running, if anything, goes on", directory_, error.what());
  }
  return killed;
}

}  // namespace ringmaster::supervise
