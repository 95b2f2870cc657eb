#include "supervise/state_file.h"

#include "base/json.h"
#include "base/log.h"
#include "base/names.h"
#include "base/random.h"

namespace ringmaster::supervise {

using base::Code;
using base::Result;
using nlohmann::json;

Result<StateFile> StateFile::open(io::System& system, const std::string& directory) {
  if (auto made = system.make_directory(directory, 0750, true); !made) {
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
  const json root = base::parse_own_json(text);
  for (const auto& [name, pool] : root.at("pools").items()) {
    DesiredPool& to = desired[name];
    pool.at("configured").get_to(to.configured);
    to.containers = pool.value("containers", 0U);
    for (const json& slot : pool.at("slots")) {
      DesiredSlot& one = to.slots.emplace_back();
      slot.at("slot").get_to(one.slot);
      slot.at("epoch").get_to(one.epoch);
      slot.at("name").get_to(one.name);
      const auto origin = slot.value("origin", std::string(balance::name(one.origin)));
      for (unsigned i = 0; i < balance::kOrigins; ++i) {
        if (origin == balance::name(static_cast<balance::Origin>(i))) one.origin = static_cast<balance::Origin>(i);
      }
      one.server = slot.value("server", "");
      one.ttl_ms = slot.value("ttl_ms", std::uint64_t{0});
    }
  }
  return desired;
}

Result<Desired> StateFile::load() {
  const std::string path = directory_ + "/desired.json";
  const auto text = system_->read_file(path);
  if (!text && text.error().code == Code::not_found) return Desired{};
  if (!text) return base::fail(text.error().code, "the set of replicas cannot be read, and is not overwritten: " + base::describe(text.error()));
  try {
    return read_desired(*text);
  } catch (const json::exception& error) {  // the JSON library's; it does not leave this function
    const auto kept = system_->replace_file(path + ".damaged", *text, false);
    if (!kept) return base::fail(Code::invalid, path + " is damaged, and cannot be set aside: " + base::describe(kept.error()));
    base::log::error("{} is damaged ({}); starting as configured, the file is kept as desired.json.damaged", path, error.what());
    return Desired{};
  }
}

std::string StateFile::text_of(const Desired& desired) {
  json pools = json::object();
  for (const auto& [name, pool] : desired) {
    json slots = json::array();
    for (const DesiredSlot& slot : pool.slots) {
      json& one = slots.emplace_back(json{{"slot", slot.slot}, {"epoch", slot.epoch}, {"name", slot.name}, {"origin", balance::name(slot.origin)}});
      if (!slot.server.empty()) one["server"] = slot.server;
      if (slot.ttl_ms != 0) one["ttl_ms"] = slot.ttl_ms;
    }
    pools[name] = {{"configured", pool.configured}, {"containers", pool.containers}, {"slots", slots}};
  }
  return base::json_text({{"pools", pools}}, 1) + "\n";
}

bool StateFile::save(const std::string& text) {
  const auto saved = system_->replace_file(directory_ + "/desired.json", text, true);
  if (!saved && !failing_)
    base::log::error("the set of replicas could not be saved, and will be forgotten at the next start: {}", base::describe(saved.error()));
  if (saved && failing_) base::log::info("the set of replicas is saved again");
  failing_ = !saved;
  return saved.has_value();
}

void StateFile::save_children(const std::vector<std::int64_t>& pids) {
  json children = json::array();
  for (const std::int64_t pid : pids) children.push_back({{"pid", pid}, {"start", system_->start_time(static_cast<pid_t>(pid))}});
  (void)system_->replace_file(directory_ + "/children.json", base::json_text(json({{"boot", system_->boot_id()}, {"children", children}})) + "\n", false);
}

Result<std::string> StateFile::instance(base::Random& random) {
  const std::string path = directory_ + "/instance";
  const auto known = system_->read_file(path);
  if (known && base::is_pool_name(*known)) return *known;
  // Under another name our containers would be somebody else's.
  if (!known && known.error().code != Code::not_found)
    return base::fail(known.error().code, "this fleet's name cannot be read: " + base::describe(known.error()));
  std::string made = base::random_replica_name(random).substr(std::string_view("Server-").size()) + base::random_replica_name(random).substr(7);
  if (auto written = system_->replace_file(path, made, true); !written) return std::unexpected(written.error());
  return made;
}

unsigned StateFile::kill_leftovers() {
  system_->kill_marked(directory_ + "/");  // an engine that has not quite ended, and whatever has left its session
  const auto text = system_->read_file(directory_ + "/children.json");
  if (!text) return 0;
  unsigned killed = 0;
  try {
    const json root = base::parse_own_json(*text);
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
