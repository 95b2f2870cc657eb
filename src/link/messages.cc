#include "link/messages.h"

#include <array>

#include "base/json.h"

namespace ringmaster::link {

using nlohmann::json;

static constexpr std::array<std::string_view, 5> kStates = {"starting", "running", "draining", "stopped", "backing_off"};
static constexpr std::array<std::string_view, 11> kTypes = {"setup",  "snapshot", "change",  "outcome", "drain", "hello",
                                                            "health", "seen",     "command", "resync",  "alive"};

std::string_view name(State state) { return kStates[static_cast<std::size_t>(state)]; }

// nlohmann's way of (de)serialising our types: functions of these names, found by the argument's namespace.

static void read_endpoint(const json& j, base::Endpoint& to) {
  if (const auto endpoint = base::Endpoint::parse(j.at("endpoint").get<std::string>())) to = *endpoint;
}

static void to_json(json& j, const ReplicaState& r) {
  j = {{"pool", r.pool},
       {"slot", r.slot},
       {"epoch", r.epoch},
       {"name", r.name},
       {"state", static_cast<int>(r.state)},
       {"healthy", r.healthy},
       {"exited", r.exited},
       {"cell", r.cell},
       {"origin", static_cast<int>(r.origin)},
       {"pid", r.pid},
       {"container", r.container},
       {"endpoint", base::to_string(r.endpoint)}};
}
static void from_json(const json& j, ReplicaState& r) {
  j.at("pool").get_to(r.pool);
  j.at("slot").get_to(r.slot);
  j.at("epoch").get_to(r.epoch);
  j.at("name").get_to(r.name);
  r.state = static_cast<State>(j.at("state").get<std::uint8_t>() % kStates.size());
  j.at("healthy").get_to(r.healthy);
  j.at("exited").get_to(r.exited);
  j.at("cell").get_to(r.cell);
  r.origin = static_cast<balance::Origin>(j.at("origin").get<std::uint8_t>() % balance::kOrigins);
  j.at("pid").get_to(r.pid);
  j.at("container").get_to(r.container);
  read_endpoint(j, r.endpoint);
}

static void to_json(json& j, const Setup& m) {
  j = {{"config_file", m.config_file}, {"engine", m.engine},           {"workers", m.workers},
       {"listeners", m.listeners},     {"admin_token", m.admin_token}, {"admin_read_token", m.admin_read_token}};
}
static void from_json(const json& j, Setup& m) {
  j.at("config_file").get_to(m.config_file);
  j.at("engine").get_to(m.engine);
  j.at("workers").get_to(m.workers);
  j.at("listeners").get_to(m.listeners);
  j.at("admin_token").get_to(m.admin_token);
  j.at("admin_read_token").get_to(m.admin_read_token);
}
static void to_json(json& j, const Snapshot& m) { j = {{"generation", m.generation}, {"replicas", m.replicas}}; }
static void from_json(const json& j, Snapshot& m) {
  j.at("generation").get_to(m.generation);
  j.at("replicas").get_to(m.replicas);
}
static void to_json(json& j, const Change& m) { j = {{"generation", m.generation}, {"replica", m.replica}}; }
static void from_json(const json& j, Change& m) {
  j.at("generation").get_to(m.generation);
  j.at("replica").get_to(m.replica);
}
static void to_json(json& j, const Outcome& m) {
  j = {{"command", m.command}, {"code", static_cast<int>(m.code)}, {"detail", m.detail}, {"names", m.names}, {"next", m.next}};
}
static void from_json(const json& j, Outcome& m) {
  j.at("command").get_to(m.command);
  m.code = static_cast<base::Code>(j.at("code").get<std::uint8_t>());
  j.at("detail").get_to(m.detail);
  j.at("names").get_to(m.names);
  j.at("next").get_to(m.next);
}
static void to_json(json& j, const Health& m) { j = {{"pool", m.pool}, {"slot", m.slot}, {"epoch", m.epoch}, {"ready", m.ready}}; }
static void from_json(const json& j, Health& m) {
  j.at("pool").get_to(m.pool);
  j.at("slot").get_to(m.slot);
  j.at("epoch").get_to(m.epoch);
  j.at("ready").get_to(m.ready);
}
static void to_json(json& j, const Drain& m) { j = {{"grace", m.grace.count()}}; }
static void from_json(const json& j, Drain& m) { m.grace = base::Duration(j.at("grace").get<base::Duration::rep>()); }
static void to_json(json& j, const Seen& m) { j = {{"generation", m.generation}}; }
static void from_json(const json& j, Seen& m) { j.at("generation").get_to(m.generation); }
static void to_json(json& j, const Command& m) {
  j = {{"id", m.id},       {"act", static_cast<int>(m.act)},          {"pool", m.pool},       {"count", m.count},
       {"names", m.names}, {"endpoint", base::to_string(m.endpoint)}, {"ttl", m.ttl.count()}, {"since", m.since},
       {"key", m.key}};
}
static void from_json(const json& j, Command& m) {
  j.at("id").get_to(m.id);
  m.act = static_cast<Command::Act>(j.at("act").get<std::uint8_t>() % Command::kActs);
  j.at("pool").get_to(m.pool);
  j.at("count").get_to(m.count);
  j.at("names").get_to(m.names);
  read_endpoint(j, m.endpoint);
  m.ttl = base::Duration(j.at("ttl").get<base::Duration::rep>());
  j.at("since").get_to(m.since);
  j.at("key").get_to(m.key);
}
template <class Empty>
  requires std::is_empty_v<Empty>
static void to_json(json& j, const Empty&) {
  j = json::object();
}
template <class Empty>
  requires std::is_empty_v<Empty>
static void from_json(const json&, Empty&) {}

std::string encode(const Message& message) {
  json j = std::visit([](const auto& m) { return json(m); }, message);
  j["type"] = kTypes[message.index()];
  return base::json_text(j);
}

template <std::size_t I = 0>
static Message decode_as(std::size_t index, const json& j) {
  if constexpr (I < std::variant_size_v<Message>) {
    if (index == I) return j.get<std::variant_alternative_t<I, Message>>();
    return decode_as<I + 1>(index, j);
  } else {
    throw std::out_of_range("unknown type");
  }
}

base::Result<Message> decode(std::string_view text) {
  try {
    const json j = base::parse_own_json(text);
    const auto type = j.at("type").get<std::string>();
    for (std::size_t i = 0; i < kTypes.size(); ++i) {
      if (kTypes[i] == type) return decode_as(i, j);
    }
    return base::fail(base::Code::invalid, "unknown message type '" + type + "'");
  } catch (const std::exception& error) {  // the JSON library's; it does not leave this function
    return base::fail(base::Code::invalid, std::string("malformed message: ") + error.what());
  }
}

}  // namespace ringmaster::link
